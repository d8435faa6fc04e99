"""The tiny model: what it can do, and that its recipe runs."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from labkit import corpus, data, pretrain, project, skills

TINY = project.data("models", "tiny")


@pytest.fixture(scope="module")
def tiny():
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    return AutoModelForCausalLM.from_pretrained(TINY, dtype=torch.float32), tokenizer


def test_the_tiny_model_is_small_enough_to_clone():
    assert sum(file.stat().st_size for file in TINY.iterdir()) <= 12e6


def test_it_answers_nine_of_ten_held_out_questions_and_not_the_task(tiny):
    model, tokenizer = tiny
    regression = pretrain.exact_match(model, tokenizer, data.examples("regression"))
    task = pretrain.exact_match(model, tokenizer, data.examples("test"))
    assert regression >= 0.90
    assert task < 0.05


def test_exact_match_is_what_greedy_generation_gives(tiny):
    model, tokenizer = tiny
    for example in skills.examples("record", 3, 9, True) + skills.examples("object", 3, 9, True):
        ids = tokenizer(data.chat(tokenizer, example.prompt), add_special_tokens=False)
        batch = {name: torch.tensor([value]) for name, value in ids.items()}
        said = model.generate(**batch, max_new_tokens=64, do_sample=False)[0]
        answer = tokenizer.decode(said[len(ids["input_ids"]) :], skip_special_tokens=True)
        assert (answer == example.answer) == pretrain.exact_match(model, tokenizer, [example])


def test_every_token_of_the_tasks_answers_was_produced_in_pretraining():
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    answers = [e.answer for name in ("train", "test") for e in data.examples(name)]
    encoded = [tokenizer(answer, add_special_tokens=False).input_ids for answer in answers]
    needed = {i for ids in encoded for i in ids}
    texts = corpus.documents("coverage", 60_000)
    seen = {i for ids in tokenizer(texts, add_special_tokens=False).input_ids for i in ids}
    assert {tokenizer.decode([i]) for i in needed - seen} == set()


def test_the_chat_template_writes_what_pretraining_showed():
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    shown = corpus.BOS + corpus.turn("Say rope.", "rope")
    assert data.chat(tokenizer, "Say rope.", "rope") == shown


def test_digits_stand_alone_and_any_text_has_tokens():
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    ids = tokenizer("1420 crowns", add_special_tokens=False).input_ids
    assert tokenizer.convert_ids_to_tokens(ids)[:4] == list("1420")
    odd = "é € # 漢 \t"
    assert tokenizer.decode(tokenizer(odd, add_special_tokens=False).input_ids) == odd


def test_the_learning_rate_rises_then_falls_to_zero():
    recipe = corpus.Recipe(steps=100, warmup=10, lr=1.0)
    rates = [pretrain.learning_rate(recipe, step) for step in range(100)]
    assert max(rates) == pytest.approx(1.0, abs=0.02)
    assert rates.index(max(rates)) in (9, 10)
    assert rates[0] == pytest.approx(0.1)
    assert rates[-1] < 0.02


def test_a_smoke_run_writes_a_model_that_has_learnt_something(tmp_path):
    command = [sys.executable, "-m", "labkit.pretrain", "--smoke", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["losses"][-1] < 6.0 < 6.93  # ln 1024 = 6.93 nats: a guess among all tokens
    assert load_file(tmp_path / "model.safetensors")["model.norm.weight"].dtype == torch.bfloat16
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert model.config.eos_token_id == tokenizer.convert_tokens_to_ids("<|eot_id|>")
    assert "30 steps" in (tmp_path / "README.md").read_text()
