"""An adapter folder: its size foretold, its card, and its base checked."""

import dataclasses
import errno
import hashlib
import json
import shutil
import subprocess
import sys
from importlib import metadata

import pytest
import torch
from safetensors import SafetensorError
from transformers import LlamaConfig

from labkit import adapters, data, evaluate, models, project, train
from labkit.adapters import AdapterError
from labkit.train import Settings, attach, fit

ASKED = [e.prompt for e in data.examples("test")[:6]]
SETTINGS = Settings(steps=12, batch=4, lr=1e-2)


@pytest.fixture(scope="module")
def examples():
    return data.examples("train")[:12]


@pytest.fixture(scope="module")
def saved(tmp_path_factory, examples):
    """(folder, base, answers): an adapter of twelve steps on tiny in 4 bits."""
    folder = tmp_path_factory.mktemp("adapter")
    base = models.load("tiny", dtype=torch.float32)
    model = attach(base.model, rank=4, alpha=8)
    fit(model, [data.encode(base.tokenizer, e) for e in examples], SETTINGS)
    said = adapters.card(model, base, examples, SETTINGS, {"task": 0.5})
    adapters.save(model, folder, said)
    return folder, base, evaluate.answers(model, base.tokenizer, ASKED, max_new_tokens=24)


def fresh():
    return models.load("tiny", dtype=torch.float32)


def test_the_file_has_exactly_the_bytes_that_shapes_foretell(saved):
    folder, base, _ = saved
    measured = (folder / "adapter_model.safetensors").stat().st_size
    assert adapters.predicted_bytes(base.model.config, rank=4) == measured


@pytest.mark.parametrize("rank", [1, 16, 100])
def test_other_ranks_and_targets_are_foretold_too(rank, tmp_path):
    config = fresh().model.config
    for targets in ("all-linear", ["q_proj", "v_proj"]):
        model = attach(fresh().model, rank=rank, targets=targets)
        model.save_pretrained(tmp_path)
        measured = (tmp_path / "adapter_model.safetensors").stat().st_size
        assert adapters.predicted_bytes(config, rank, targets) == measured


def test_llama_1b_is_foretold_without_its_weights():
    shape = LlamaConfig(
        vocab_size=128256, hidden_size=2048, intermediate_size=8192, num_hidden_layers=16,
        num_attention_heads=32, num_key_value_heads=8, head_dim=64, tie_word_embeddings=True,
    )  # fmt: skip
    counted = train.count_for_config(shape, rank=16)
    assert (counted.trainable, counted.total) == (11_272_192, 1_247_086_592)
    tensors = 4 * counted.trainable
    header = adapters.predicted_bytes(shape, rank=16) - tensors
    assert 224 * 100 < header < 224 * 200  # 224 entries of name, dtype, shape and offsets


def test_training_holds_four_times_the_file():
    assert adapters.training_bytes(11_272_192) == (45_088_768, 180_355_072)


def test_the_card_says_what_one_must_know(saved, examples):
    folder, _, _ = saved
    card = json.loads((folder / "card.json").read_text())
    weights = project.data("models", "tiny", "model.safetensors").read_bytes()
    assert card["base"] == "tiny"
    assert card["base_sha256"] == hashlib.sha256(weights).hexdigest()
    assert card["data_sha256"] == adapters.data_sha256(examples)
    assert (card["rank"], card["alpha"]) == (4, 8)
    assert len(card["targets"]) == 7
    assert card["settings"]["steps"] == 12
    assert card["settings"]["lr"] == 1e-2
    assert card["scores"] == {"task": 0.5}
    assert card["versions"]["torch"] == metadata.version("torch")
    assert card["date"][:2] == "20"
    assert adapters.read_card(folder) == adapters.Card(**card)


def test_the_hash_of_data_follows_its_text_and_its_order(examples):
    first = adapters.data_sha256(examples)
    assert first == adapters.data_sha256(list(examples))
    assert first != adapters.data_sha256(examples[::-1])
    changed = [dataclasses.replace(examples[0], answer="x"), *examples[1:]]
    assert first != adapters.data_sha256(changed)


def test_a_loaded_adapter_answers_as_the_trained_one_did(saved):
    folder, _, said = saved
    base = fresh()
    plain = evaluate.answers(base.model, base.tokenizer, ASKED, max_new_tokens=24)
    assert plain != said  # else the adapter could be missing and nothing would show it
    model = adapters.load(folder, base)
    assert evaluate.answers(model, base.tokenizer, ASKED, max_new_tokens=24) == said


@pytest.mark.slow
def test_plain_peft_in_a_new_process_gives_the_same_answers(saved, tmp_path):
    folder, _, said = saved
    script = tmp_path / "plain.py"
    script.write_text(f"""
import json, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
nf4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4",
    bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.float32)
where = {str(project.data("models", "tiny"))!r}
model = AutoModelForCausalLM.from_pretrained(where, quantization_config=nf4, dtype=torch.float32)
for m in model.modules():
    if hasattr(m, "support_avx512bf16_for_cpu"):
        m.support_avx512bf16_for_cpu = False
model = PeftModel.from_pretrained(model, {str(folder)!r}).eval()
tokenizer = AutoTokenizer.from_pretrained(where)
said = []
for prompt in {ASKED!r}:
    text = tokenizer.apply_chat_template([dict(role="user", content=prompt)], tokenize=False,
        add_generation_prompt=True)
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
    out = model.generate(input_ids=ids, max_new_tokens=24, do_sample=False)
    said.append(tokenizer.decode(out[0, ids.shape[1]:], skip_special_tokens=True))
print(json.dumps(said))
""")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == said


def another(base):
    base.__dict__["weights_sha256"] = "0" * 64  # as if its weights were others
    return base


def test_another_base_is_refused_with_the_way_out(saved):
    folder, _, _ = saved
    with pytest.raises(AdapterError) as refused:
        adapters.load(folder, another(fresh()))
    said = str(refused.value)
    assert "was trained on tiny with weights" in said
    assert "000000000000" in said
    assert "other_base=True" in said
    assert adapters.load(folder, another(fresh()), other_base=True).peft_config["default"].r == 4


def copied(saved, tmp_path):
    return shutil.copytree(saved[0], tmp_path / "copy")


DAMAGE = {
    "no card": ("card.json", None, r"copy has no readable card.json"),
    "half a card": ("card.json", b'{"base": "ti', r"copy has no readable card.json"),
    "a card in another encoding": ("card.json", b"\xff\xfe{", r"copy has no readable card.json"),
    "another card": ("card.json", b'{"name": "x"}', r"copy has no readable card.json"),
    "no weights": ("adapter_model.safetensors", None, r"adapter in copy cannot be read"),
    "half the weights": ("adapter_model.safetensors", b"\x10", r"adapter in copy cannot be read"),
    "no config": ("adapter_config.json", None, r"adapter in copy cannot be read"),
    "a broken config": ("adapter_config.json", b"{", r"adapter in copy cannot be read"),
}


@pytest.mark.parametrize(("name", "content", "message"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_folder_is_one_sentence(saved, tmp_path, monkeypatch, name, content, message):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = copied(saved, tmp_path)
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    with pytest.raises(AdapterError, match=message):
        adapters.load(folder, fresh())


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        SafetensorError("Error while serializing: I/O error: No space left on device"),
    ],
)
def test_a_full_disk_says_how_much_to_free_and_keeps_the_adapter_before(
    saved, tmp_path, monkeypatch, error
):
    folder = copied(saved, tmp_path)
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    model = adapters.load(folder, fresh())

    def full(where, **_):
        (tmp_path / "seen").write_text(str(where))
        (adapters.Path(where) / "adapter_model.safetensors").write_bytes(b"half")
        raise error

    monkeypatch.setattr(model, "save_pretrained", full)
    with pytest.raises(AdapterError, match=r"could not be written to copy .*free 1 MiB"):
        adapters.save(model, folder, adapters.read_card(folder))
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
