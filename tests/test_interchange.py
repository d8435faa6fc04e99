"""Adapter folders between labkit's layers and PEFT: the same numbers, or a reason why not."""

import json
import shutil

import peft
import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from labkit import interchange
from labkit.adapters import AdapterError
from labkit.dora import DoRALinear, inject_dora
from labkit.interchange import load_adapter, save_adapter
from labkit.lora import adapted, inject

SHAPE = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
    "tie_word_embeddings": True,
}  # fmt: skip
IDS = torch.arange(12)[None]
TARGETS = ("all-linear", ["q_proj", "v_proj"], ["layers.1.mlp.up_proj"])


def llama():
    torch.manual_seed(3)
    return LlamaForCausalLM(LlamaConfig(**SHAPE)).eval()


def moved(model):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith((".B", "lora_B.default.weight")):
                p.copy_(torch.randn(p.shape, generator=generator))
            if "magnitude" in name:
                p.mul_(torch.empty(p.shape).uniform_(0.5, 2.0, generator=generator))
    return model


def ours(targets="all-linear", put=inject, **settings):
    usual = {"rank": 3, "alpha": 7, "dropout": 0.25}
    return moved(put(llama(), targets, **usual | settings)).eval()


def theirs(**settings):
    usual = {"r": 3, "lora_alpha": 7, "lora_dropout": 0.25, "target_modules": "all-linear"}
    config = peft.LoraConfig(task_type="CAUSAL_LM", **usual | settings)
    return moved(peft.get_peft_model(llama(), config)).eval()


def close(got, wanted):
    """Two libraries, one formula: logits to a few float32 roundings, in a model of two layers."""
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)
    assert (wanted - llama()(IDS).logits).abs().max() > 0.01


@pytest.mark.parametrize("targets", TARGETS)
def test_peft_loads_what_we_save(tmp_path, targets):
    model = ours(targets)
    assert save_adapter(model, tmp_path / "a").stat().st_size > 0
    loaded = peft.PeftModel.from_pretrained(llama(), tmp_path / "a").eval()
    close(loaded(IDS).logits, model(IDS).logits)
    config = loaded.peft_config["default"]
    assert (config.r, config.lora_alpha, config.lora_dropout) == (3, 7, 0.25)
    state = peft.get_peft_model_state_dict(loaded)
    kept = interchange.tensors(model)
    assert state.keys() == kept.keys()
    assert all(torch.equal(state[name], kept[name]) for name in state)


@pytest.mark.parametrize("targets", TARGETS)
def test_peft_loads_the_magnitudes_that_we_save(tmp_path, targets):
    model = ours(targets, inject_dora)
    save_adapter(model, tmp_path / "a")
    loaded = peft.PeftModel.from_pretrained(llama(), tmp_path / "a").eval()
    assert loaded.peft_config["default"].use_dora
    close(loaded(IDS).logits, model(IDS).logits)
    state, kept = peft.get_peft_model_state_dict(loaded), interchange.tensors(model)
    assert state.keys() == kept.keys()
    assert all(torch.equal(state[name], kept[name]) for name in state)


@pytest.mark.parametrize("plain", [True, False], ids=["on a plain base", "on one with layers"])
def test_we_load_the_magnitudes_that_peft_saves(tmp_path, plain):
    model = theirs(use_dora=True)
    model.save_pretrained(tmp_path)
    base = llama() if plain else inject_dora(llama(), rank=3, alpha=7, dropout=0.25).eval()
    loaded = load_adapter(base, tmp_path)
    assert all(isinstance(layer, DoRALinear) for layer in adapted(loaded).values())
    close(loaded(IDS).logits, model(IDS).logits)


def test_a_dora_folder_without_its_magnitudes_is_refused(tmp_path):
    save_adapter(ours(), tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"use_dora": True}))
    with pytest.raises(AdapterError, match=r"lacks .*lora_magnitude_vector"):
        load_adapter(llama(), tmp_path)


def test_a_dora_folder_is_not_loaded_into_lora_layers(tmp_path):
    save_adapter(ours(put=inject_dora), tmp_path)
    with pytest.raises(AdapterError, match=r"dora=True.*dora=False"):
        load_adapter(ours(), tmp_path)


@pytest.mark.parametrize("targets", [*TARGETS, r".*layers\.0.*_proj"])
def test_we_load_what_peft_saves(tmp_path, targets):
    model = theirs(target_modules=targets)
    model.save_pretrained(tmp_path)
    loaded = load_adapter(llama(), tmp_path)
    close(loaded(IDS).logits, model(IDS).logits)
    state = peft.get_peft_model_state_dict(model)
    kept = interchange.tensors(loaded)
    assert state.keys() == kept.keys()
    assert all(torch.equal(state[name], kept[name]) for name in state)
    assert {(la.rank, la.alpha, la.dropout.p) for la in adapted(loaded).values()} == {(3, 7, 0.25)}
    trained = {n.rpartition(".")[2] for n, p in loaded.named_parameters() if p.requires_grad}
    assert trained == {"A", "B"}


def test_a_round_trip_gives_the_same_outputs_bit_for_bit(tmp_path):
    model = ours()
    save_adapter(model, tmp_path)
    plain = load_adapter(llama(), tmp_path)
    filled = load_adapter(inject(llama(), rank=3, alpha=7, dropout=0.25).eval(), tmp_path)
    for loaded in (plain, filled):
        assert torch.equal(loaded(IDS).logits, model(IDS).logits)


def test_the_short_names_of_targets_are_written_only_where_they_name_the_same_maps(tmp_path):
    assert interchange.config(ours(["q_proj", "v_proj"]))["target_modules"] == ["q_proj", "v_proj"]
    one = interchange.config(ours(["layers.1.mlp.up_proj"]))["target_modules"]
    assert one == ["model.layers.1.mlp.up_proj"]


def test_an_adapter_saved_in_bfloat16_comes_back_as_float32_of_the_same_values(tmp_path):
    model = ours().to(torch.bfloat16)
    save_adapter(model, tmp_path)
    loaded = load_adapter(llama(), tmp_path)
    for name, tensor in interchange.tensors(loaded).items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, interchange.tensors(model)[name].float())


def test_saving_replaces_an_older_adapter_and_leaves_nothing_beside_it(tmp_path):
    save_adapter(ours(), tmp_path / "a")
    model = ours(["q_proj"], rank=2)
    save_adapter(model, tmp_path / "a")
    assert torch.equal(load_adapter(llama(), tmp_path / "a")(IDS).logits, model(IDS).logits)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(AdapterError, match=r"could not be written to a .*free 1 MiB or choose"):
        save_adapter(ours(), tmp_path / "file" / "a")


def test_what_is_no_adapter_or_not_one_is_not_saved(tmp_path):
    with pytest.raises(AdapterError, match=r"no adapter to save: call labkit\.lora\.inject"):
        save_adapter(llama(), tmp_path)
    model = ours(["q_proj"])
    extra = inject(nn.Sequential(nn.Linear(32, 32)), rank=2, alpha=1.0)
    model.model.extra = extra
    with pytest.raises(AdapterError, match=r"one rank, alpha and dropout .* found Said\(rank=2"):
        save_adapter(model, tmp_path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("adapters") / "good"
    save_adapter(ours(), path)
    return path


DAMAGE = {
    "no config": ("adapter_config.json", None, "good has no readable adapter_config.json"),
    "half a config": ("adapter_config.json", b'{"r": ', "no readable adapter_config.json"),
    "a config without rank": (
        "adapter_config.json", b'{"peft_type": "LORA"}', r"KeyError: 'r'\): copy the whole folder",
    ),
    "a list": ("adapter_config.json", b"[]", "no readable adapter_config.json"),
    "no weights": ("adapter_model.safetensors", None, "has no adapter_model.safetensors: copy"),
    "half the weights": ("adapter_model.safetensors", b"\x10", "damaged or cut off"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "content", "message"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_folder_is_one_sentence(folder, tmp_path, name, content, message):
    copy = shutil.copytree(folder, tmp_path / "good")
    if content is None:
        (copy / name).unlink()
    else:
        (copy / name).write_bytes(content)
    model = llama()
    with pytest.raises(AdapterError, match=message):
        load_adapter(model, copy)
    assert not adapted(model)


def test_a_pickle_is_never_opened(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "good")
    (copy / "adapter_model.safetensors").rename(copy / "adapter_model.bin")
    with pytest.raises(AdapterError, match=r"adapter_model.bin is a pickle and is never opened"):
        load_adapter(llama(), copy)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"use_rslora": True}, "has use_rslora=True, which labkit's layers do not compute"),
        ({"bias": "all"}, "has bias='all'"),
        ({"rank_pattern": {"q_proj": 2}}, "has rank_pattern"),
        ({"alpha_pattern": {"q_proj": 2}}, "has alpha_pattern"),
        ({"modules_to_save": ["lm_head"]}, r"has modules_to_save=\['lm_head'\]"),
        ({"init_lora_weights": "pissa"}, "has init_lora_weights='pissa'"),
    ],
)
def test_what_our_layers_do_not_compute_is_refused_by_name(tmp_path, settings, message):
    theirs(**settings).save_pretrained(tmp_path)
    with pytest.raises(AdapterError, match=message):
        load_adapter(llama(), tmp_path)


def test_another_method_is_refused(tmp_path):
    peft.get_peft_model(llama(), peft.IA3Config(task_type="CAUSAL_LM")).save_pretrained(tmp_path)
    with pytest.raises(AdapterError, match=r"holds IA3, not LORA: load it with PEFT|no readable"):
        load_adapter(llama(), tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    full = config | {"r": 1, "lora_alpha": 1, "lora_dropout": 0}
    (tmp_path / "adapter_config.json").write_text(json.dumps(full))
    with pytest.raises(AdapterError, match="holds IA3, not LORA"):
        load_adapter(llama(), tmp_path)


def changed(folder, tmp_path, change):
    from safetensors.torch import load_file, save_file

    copy = shutil.copytree(folder, tmp_path / "good")
    state = load_file(copy / "adapter_model.safetensors")
    change(state)
    save_file(state, copy / "adapter_model.safetensors")
    return copy


FIRST = "base_model.model.model.layers.0.mlp.down_proj"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop(f"{FIRST}.lora_B.weight"), f"lacks {FIRST}.lora_B.weight: copy it again"),
        (lambda s: s.update({"other": torch.ones(1)}), "has, unexpectedly, other"),
        (lambda s: s.clear(), "lacks any tensor"),
        (
            lambda s: s.update({f"{FIRST}.lora_A.weight": torch.ones(4, 48)}),
            r"down_proj.lora_A.weight is \(4, 48\) in good, the model and r=3 want \(3, 48\)",
        ),
        (
            lambda s: s.update(
                {f"{FIRST}0.lora_{f}.weight": torch.ones(3, 3) for f in "AB"}
            ),
            "adapts model.layers.0.mlp.down_proj0 and 0 more maps that the model has not",
        ),
    ],
)  # fmt: skip
def test_tensors_that_do_not_fit_are_named(folder, tmp_path, change, message):
    copy, model = changed(folder, tmp_path, change), llama()
    with pytest.raises(AdapterError, match=message):
        load_adapter(model, copy)
    assert not adapted(model)


def test_a_model_with_other_layers_is_not_filled(folder):
    for other in (ours(rank=2), ours(["q_proj"]), ours(alpha=8)):
        with pytest.raises(AdapterError, match=r"good has Said\(rank=3.* load it on a plain base"):
            load_adapter(other, folder)
