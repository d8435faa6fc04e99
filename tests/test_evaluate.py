"""Answers in batches, and grades by exact rules."""

import json
import random

import pytest
import torch
from torch import nn
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from labkit import data, evaluate, models, project, skills
from labkit.data import Example
from labkit.evaluate import answers, grade_skills, grade_task


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(project.data("models", "tiny"))


@pytest.fixture(scope="module")
def random_model(tokenizer):
    """Random weights, scaled so that answers differ and some end early and some do not."""
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, initializer_range=0.4,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    model = LlamaForCausalLM(shape).eval()
    with torch.no_grad():
        model.lm_head.weight[tokenizer.eos_token_id] *= 2.5
    return model


def prompts(n=14):
    draw = random.Random(1)
    words = "the firm owes Ada 420 for seven lamps due on 12 May in Lund".split()
    return [" ".join(draw.choices(words, k=draw.randrange(1, 30))) for _ in range(n)]


@torch.no_grad()
def by_hand(model, tokenizer, prompt, limit):
    """One prompt alone, no cache, no padding: the definition of a greedy answer."""
    ids = tokenizer(data.chat(tokenizer, prompt), add_special_tokens=False).input_ids
    said = []
    while len(said) < limit:
        token = model(torch.tensor([ids + said])).logits[0, -1].argmax().item()
        if token == tokenizer.eos_token_id:
            break
        said.append(token)
    return tokenizer.decode(said, skip_special_tokens=True), len(said)


def test_a_padded_batch_answers_as_one_by_one_does(random_model, tokenizer):
    alone = [by_hand(random_model, tokenizer, p, 12) for p in prompts()]
    lengths = {n for _, n in alone}
    assert min(lengths) < 12 and max(lengths) == 12  # some stop at the end of turn, some do not
    assert len({text for text, _ in alone}) > 5
    for batch in (1, 5, 64):
        said = answers(random_model, tokenizer, prompts(), max_new_tokens=12, batch=batch)
        assert said == [text for text, _ in alone]


def test_the_tiny_model_answers_a_batch_as_one_by_one(tokenizer):
    from transformers import AutoModelForCausalLM

    tiny = AutoModelForCausalLM.from_pretrained(project.data("models", "tiny"), dtype=torch.float32)
    asked = [e.prompt for e in data.examples("regression")[::25]]
    together = answers(tiny, tokenizer, asked)
    assert together == [by_hand(tiny, tokenizer, p, 64)[0] for p in asked]


def test_a_four_bit_model_answers_in_a_batch_as_alone_and_keeps_its_weights(tokenizer):
    loaded = models.load("tiny", dtype=torch.float32)
    codes = {n: p.detach().clone() for n, p in loaded.model.named_parameters()}
    asked = [e.prompt for e in data.examples("regression")[::45]]
    together = answers(loaded.model, tokenizer, asked, max_new_tokens=24)
    assert together == [by_hand(loaded.model, tokenizer, p, 24)[0] for p in asked]
    assert {n: p.dtype for n, p in loaded.model.named_parameters()} == {
        n: p.dtype for n, p in codes.items()
    }
    assert all(torch.equal(p, codes[n]) for n, p in loaded.model.named_parameters())


def test_answering_puts_the_mode_back_even_after_an_error(random_model, tokenizer, monkeypatch):
    random_model.train()
    answers(random_model, tokenizer, prompts(2), max_new_tokens=2)
    assert random_model.training

    def broken(**_):
        assert not random_model.training
        raise RuntimeError("lost")

    monkeypatch.setattr(random_model, "generate", broken)
    with pytest.raises(RuntimeError, match="lost"):
        answers(random_model, tokenizer, prompts(2))
    assert random_model.training
    random_model.eval()


def test_dropout_is_off_in_an_answer(random_model, tokenizer):
    from labkit.train import attach

    adapted = attach(random_model, rank=4, dropout=0.5)
    for name, p in adapted.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(p)
    adapted.train()
    first = answers(adapted, tokenizer, prompts(4), max_new_tokens=8)
    assert first == answers(adapted, tokenizer, prompts(4), max_new_tokens=8)
    adapted.unload()
    random_model.eval()


def test_no_prompts_no_answers(random_model, tokenizer):
    assert answers(random_model, tokenizer, []) == []


# ---- grades

RECORD = {"kind": "invoice", "firm": "Holt", "person": "Ada", "amount": 420, "due": "12 May"}
TRUTH = json.dumps(RECORD)


def one(answer, truth=TRUTH):
    score = grade_task([answer], [Example("letter", truth, "record")])
    return score.valid_json, score.field_accuracy, score.exact_match


GRADES = {
    "right": (TRUTH, (1, 1, 1)),
    "right, with space around": (f"\n{TRUTH} ", (1, 1, 1)),
    "right, in another order": (json.dumps(dict(reversed(RECORD.items()))), (1, 1, 0)),
    "one field wrong": (json.dumps({**RECORD, "amount": 421}), (1, 0.8, 0)),
    "a number as text": (json.dumps({**RECORD, "amount": "420"}), (1, 0.8, 0)),
    "a float": (json.dumps({**RECORD, "amount": 420.0}), (1, 0.8, 0)),
    "a field missing": (json.dumps({k: RECORD[k] for k in list(RECORD)[:3]}), (1, 0.6, 0)),
    "a field too many": (json.dumps({**RECORD, "vat": 1}), (1, 1, 0)),
    "half an object": (TRUTH[:-3], (0, 0, 0)),
    "an object and more": (f"{TRUTH} Thank you", (0, 0, 0)),
    "a list": ("[1, 2]", (0, 0, 0)),
    "a text": ('"invoice"', (0, 0, 0)),
    "nothing": ("", (0, 0, 0)),
    "too deep to read": ("[" * 100_000, (0, 0, 0)),
}


@pytest.mark.parametrize(("answer", "grade"), GRADES.values(), ids=GRADES)
def test_a_record_is_graded_by_the_rules(answer, grade):
    assert one(answer) == pytest.approx(grade)


def test_true_is_not_one():
    assert one('{"a": true}', '{"a": 1}')[1] == 0


def test_task_scores_are_means_over_answers():
    examples = [Example("letter", TRUTH, "record")] * 4
    score = grade_task([TRUTH, TRUTH[:-3], json.dumps({**RECORD, "due": ""}), "no"], examples)
    assert (score.n, score.valid_json, score.exact_match) == (4, 0.5, 0.25)
    assert score.field_accuracy == pytest.approx((5 + 4) / 20)
    assert str(score) == (
        "task, 4 letters: 25.0% exactly right, 45.0% of the fields, 50.0% valid JSON"
    )


def test_skills_are_scored_over_all_and_one_by_one():
    examples = [Example("q", "yes", skill) for skill in ("sum", "sum", "sum", "sort")]
    score = grade_skills(["yes", " yes\n", "no", "yes"], examples)
    assert (score.n, score.exact_match) == (4, 0.75)
    assert score.by_skill == {"sum": pytest.approx(2 / 3), "sort": 1}
    assert "sum 67%" in str(score) and "sort" not in str(score)


@pytest.mark.parametrize("grade", [grade_task, grade_skills])
@pytest.mark.parametrize(("said", "n"), [(["a"], 2), ([], 0)])
def test_grades_need_one_answer_each(grade, said, n):
    with pytest.raises(ValueError, match=rf"{len(said)} answers for {n} examples: give one each"):
        grade(said, [Example("q", TRUTH, "record")] * n)


def test_every_task_answer_holds_exactly_the_five_fields():
    for name in ("train", "validation", "test"):
        for example in data.examples(name):
            assert tuple(json.loads(example.answer)) == skills.FIELDS


def test_scores_ask_the_model_and_grade_its_answers(monkeypatch):
    examples = [Example("a", TRUTH, "record"), Example("b", TRUTH, "record")]
    monkeypatch.setattr(
        evaluate.scores, "answers", lambda m, t, asked: {"a": [TRUTH, ""]}[asked[0]]
    )
    assert evaluate.score_task(None, None, examples).exact_match == 0.5
    assert evaluate.score_regression(None, None, examples).by_skill == {"record": 0.5}


def written(model, prompt, n):
    """The `n` tokens that greedy decoding writes, one forward pass without padding for each."""
    ids = list(prompt)
    for _ in range(n):
        ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[len(prompt) :]


@torch.no_grad()
def test_a_forced_score_is_that_of_greedy_decoding(random_model, tokenizer):
    """The truths are what the model itself writes, every second one with a word behind it."""
    said = answers(random_model, tokenizer, prompts(), max_new_tokens=12)
    pairs = [(p, a) for p, a in zip(prompts(), said, strict=True) if a]
    truths = [Example(p, a + " not" * (i % 2), "task") for i, (p, a) in enumerate(pairs)]
    right = []
    for example in truths:
        item = data.encode(tokenizer, example)
        learnt = [label for label in item.labels if label != data.IGNORE]
        prompt = item.input_ids[: -len(learnt)]
        right.append(written(random_model, prompt, len(learnt)) == learnt)
    random_model.train()
    found = evaluate.forced_score(random_model, tokenizer, truths, batch=3)
    assert random_model.training
    random_model.eval()
    assert (found.n, found.exact_match) == (len(truths), pytest.approx(sum(right) / len(right)))
    assert 0 < sum(right) < len(right)


def test_the_forced_loss_is_the_models_own(random_model, tokenizer):
    examples = [Example(p, "a record of it", "task") for p in prompts(5)]
    batch = data.collate([data.encode(tokenizer, e) for e in examples], tokenizer.pad_token_id)
    with torch.no_grad():
        want = random_model(**batch).loss.item()
    found = evaluate.forced_score(random_model, tokenizer, examples, batch=2)
    assert found.loss == pytest.approx(want, rel=1e-4)
    assert str(found).startswith("0.0% of 5 exactly right, loss ")


def test_no_examples_give_no_forced_score(random_model, tokenizer):
    with pytest.raises(ValueError, match="0 answers for 0 examples"):
        evaluate.forced_score(random_model, tokenizer, [])
