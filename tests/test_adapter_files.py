"""Any adapter file, read into factors by layer and projection, or a sentence that says why not."""

import json
import math

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from labkit.adapter_files import adapter_of, read_adapter
from labkit.adapters import AdapterError
from labkit.dora import inject_dora
from labkit.interchange import save_adapter
from labkit.lora import adapted, inject

SHAPE = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
}  # fmt: skip
UP = "model.layers.1.mlp.up_proj"


def llama():
    torch.manual_seed(3)
    return LlamaForCausalLM(LlamaConfig(**SHAPE))


def moved(model):
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.requires_grad:
                p.add_(torch.rand(p.shape, generator=torch.Generator().manual_seed(len(name))))
    return model


def theirs(folder, **settings):
    """A PEFT adapter, saved; and what it adds to each map."""
    usual = {"r": 3, "lora_alpha": 7, "target_modules": "all-linear"}
    model = moved(peft.get_peft_model(llama(), peft.LoraConfig(**usual | settings)))
    model.save_pretrained(folder)
    deltas = {
        name.removeprefix("base_model.model."): m.get_delta_weight("default").detach()
        for name, m in model.named_modules()
        if isinstance(m, peft.tuners.lora.Linear)
    }
    return model, deltas


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Rank 3 and alpha 7 as PEFT saves them; read only."""
    path = tmp_path_factory.mktemp("adapters") / "plain"
    theirs(path)
    return path


def changed(folder, tmp_path, change=None, **config):
    """A copy of `folder`, its tensors passed through `change`, its config updated."""
    path = tmp_path / "copy"
    path.mkdir()
    state = load_file(folder / "adapter_model.safetensors")
    save_file(change(state) if change else state, path / "adapter_model.safetensors")
    said = json.loads((folder / "adapter_config.json").read_text())
    (path / "adapter_config.json").write_text(json.dumps(said | config))
    return path


def agree(found, deltas):
    assert found.updates.keys() == deltas.keys()
    for name, update in found.updates.items():
        torch.testing.assert_close(update.scale * update.B @ update.A, deltas[name])


SETTINGS = {
    "plain": {},
    "rslora": {"use_rslora": True},
    "patterns": {
        "rank_pattern": {"v_proj": 5, r"layers\.0\.mlp\.up_proj": 2},
        "alpha_pattern": {"model.layers.1.self_attn.v_proj": 11},
        "target_modules": ["q_proj", "v_proj", "up_proj"],
    },
}


@pytest.mark.parametrize("kind", SETTINGS)
def test_a_folder_of_peft_gives_the_updates_that_peft_computes(tmp_path, kind):
    _, deltas = theirs(tmp_path / kind, **SETTINGS[kind])
    found = read_adapter(tmp_path / kind)
    agree(found, deltas)
    ranks = {update.rank for update in found.updates.values()}
    assert ranks == ({3, 5, 2} if kind == "patterns" else {3})


def test_a_dora_adapter_brings_its_magnitudes(tmp_path):
    model, _ = theirs(tmp_path / "dora", use_dora=True)
    found = read_adapter(tmp_path / "dora")
    layer = model.get_submodule(f"base_model.model.{UP}")
    want = layer.lora_magnitude_vector["default"].weight
    torch.testing.assert_close(found.updates[UP].magnitude, want.detach())
    assert "14 updates, DoRA, rank 3" in str(found)


@pytest.mark.parametrize("put", [inject, inject_dora])
def test_our_folder_and_the_model_itself_give_the_same(tmp_path, put):
    model = moved(put(llama(), ["q_proj", "up_proj"], 3, 7))
    save_adapter(model, tmp_path / "ours")
    saved, live = read_adapter(tmp_path / "ours"), adapter_of(model)
    for found in (saved, live):
        update = found.at(1, "up_proj")
        layer = getattr(adapted(model)[UP], "lora", adapted(model)[UP])
        torch.testing.assert_close(update.scale * update.B @ update.A, layer.delta().detach())
        assert (update.magnitude is not None) == (put is inject_dora)
    with torch.no_grad():
        layer.B.zero_()
    assert live.at(1, "up_proj").B.abs().sum() > 0  # a copy


@pytest.mark.parametrize("put", [inject, inject_dora])
def test_the_state_dict_of_our_layers_is_read_with_a_given_alpha(tmp_path, put):
    model = moved(put(llama(), "up_proj", 3, 7))
    save_file(dict(model.state_dict()), tmp_path / "all.safetensors")
    found = read_adapter(tmp_path / "all.safetensors", alpha=7)
    layers = {n: getattr(layer, "lora", layer) for n, layer in adapted(model).items()}
    agree(found, {n: layer.delta().detach() for n, layer in layers.items()})
    assert "model.embed_tokens.weight" in found.left_out
    assert (found.updates[UP].magnitude is not None) == (put is inject_dora)


def test_a_bare_file_needs_alpha_and_a_config_forbids_it(folder, tmp_path):
    bare = tmp_path / "mine.safetensors"
    bare.write_bytes((folder / "adapter_model.safetensors").read_bytes())
    with pytest.raises(AdapterError, match=r"mine.safetensors has no adapter_config.json .*alpha="):
        read_adapter(bare)
    assert {u.scale for u in read_adapter(bare, alpha=12).updates.values()} == {4}
    with pytest.raises(AdapterError, match=r"alpha=12 was given, but .*json says it"):
        read_adapter(folder, alpha=12)


def test_names_of_kohya_hold_their_own_alpha(tmp_path):
    state = {
        "unet_up_q.lora_down.weight": torch.randn(4, 20, dtype=torch.float16),
        "unet_up_q.lora_up.weight": torch.randn(30, 4, dtype=torch.float16),
        "unet_up_q.alpha": torch.tensor(2.0),
    }
    save_file(state, tmp_path / "k.safetensors")
    update = read_adapter(tmp_path / "k.safetensors").updates["unet_up_q"]
    assert (update.scale, update.A.shape, update.B.shape) == (0.5, (4, 20), (30, 4))
    assert update.layer is None


def test_an_update_knows_its_place_and_the_adapter_says_what_it_holds(folder):
    found = read_adapter(folder)
    assert found.layers == [0, 1]
    assert found.projections == [
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"
    ]  # fmt: skip
    update = found.at(1, "up_proj")
    assert (update.name, update.layer, update.projection) == (UP, 1, "up_proj")
    assert str(update) == f"{UP}: 48 x 32, rank 3, scale {7 / 3:g}"
    torch.testing.assert_close(
        update.spectrum().values[:3],
        torch.linalg.svdvals(update.scale * update.B.double() @ update.A.double())[:3],
    )
    numbers = sum(u.A.numel() + u.B.numel() for u in found.updates.values())
    assert str(found) == f"plain: 14 updates, rank 3, {numbers:,} numbers"
    with pytest.raises(AdapterError, match=r"plain has no update of q_proj in layer 7: .*\[0, 1\]"):
        found.at(7, "q_proj")


def test_other_tensors_are_left_out_and_counted(folder, tmp_path):
    more = {"base_model.model.lm_head.weight": torch.ones(2, 2)}
    found = read_adapter(changed(folder, tmp_path, lambda state: state | more))
    assert found.left_out == tuple(more)
    assert str(found).endswith("; 1 other tensors left out")


def without(end):
    def change(state):
        return {k: v for k, v in state.items() if not (UP in k and k.endswith(end))}

    return change


def instead(end, make):
    return lambda state: {
        k: make(v) if UP in k and k.endswith(end) else v for k, v in state.items()
    }


def nan(tensor):
    return torch.where(torch.arange(tensor.numel()).view(tensor.shape) == 5, math.nan, tensor)


@pytest.mark.parametrize(
    "change, words",
    [
        (without("lora_A.weight"), f"has B of {UP} but not A: copy it again"),
        (without("lora_B.weight"), f"has A of {UP} but not B: copy it again"),
        (instead("lora_A.weight", lambda A: A.T.contiguous()), "no pair of a linear map"),
        (instead("lora_A.weight", lambda A: A[..., None, None]), "no pair of a linear map"),
        (instead("lora_A.weight", nan), f"A of {UP} .* no finite number"),
        (instead("lora_B.weight", torch.Tensor.int), f"B of {UP} .* no finite number"),
        (lambda _: {"model.norm.weight": torch.ones(3)}, "1 tensors, such as model.norm.weight,"),
        (lambda _: {}, "holds no tensor and no lora_A"),
    ],
)
def test_a_partial_or_broken_or_other_file_is_a_clear_error(folder, tmp_path, change, words):
    with pytest.raises(AdapterError, match=words):
        read_adapter(changed(folder, tmp_path, change))


@pytest.mark.parametrize(
    "config, words",
    [
        ({"r": 4}, "says rank 4 for .*has 3: they are not of one adapter"),
        ({"rank_pattern": {"up_proj": 8}}, "says rank 8 for .*up_proj"),
        ({"peft_type": "VERA"}, "holds VERA, not LORA"),
        (
            {"init_lora_weights": "pissa_niter_4"},
            "began with pissa_niter_4, which",
        ),
        ({"init_lora_weights": "loftq"}, "began with loftq"),
        ({"lora_alpha": None}, "is not readable .TypeError"),
    ],
)
def test_a_config_that_does_not_fit_is_a_clear_error(folder, tmp_path, config, words):
    with pytest.raises(AdapterError, match=words):
        read_adapter(changed(folder, tmp_path, **config))


def test_wrong_magnitudes_are_refused(tmp_path):
    theirs(tmp_path / "dora", use_dora=True)
    cut = instead("lora_magnitude_vector", lambda m: m[:5].clone())
    with pytest.raises(AdapterError, match="5 magnitudes for 48 outputs"):
        read_adapter(changed(tmp_path / "dora", tmp_path, cut))


def test_a_file_that_is_cut_off_or_missing_or_a_pickle_is_a_clear_error(folder, tmp_path):
    path = changed(folder, tmp_path)
    whole = (path / "adapter_model.safetensors").read_bytes()
    (path / "adapter_model.safetensors").write_bytes(whole[:-100])
    with pytest.raises(AdapterError, match="damaged, cut off or no safetensors file"):
        read_adapter(path)
    (path / "adapter_model.safetensors").rename(path / "adapter_model.bin")
    with pytest.raises(AdapterError, match=r"no adapter_model.safetensors in copy; .* is a pickle"):
        read_adapter(path)
    with pytest.raises(AdapterError, match="a pickle, which can run code and is never opened"):
        read_adapter(path / "adapter_model.bin")
    (path / "adapter_config.json").write_text("{")
    (path / "adapter_model.bin").rename(path / "adapter_model.safetensors")
    (path / "adapter_model.safetensors").write_bytes(whole)
    with pytest.raises(AdapterError, match=r"adapter_config.json in copy is not readable"):
        read_adapter(path)


def test_a_model_without_an_adapter_is_refused():
    with pytest.raises(AdapterError, match="the model carries no adapter"):
        adapter_of(llama())
