"""Answers held to a form, and the task asked for without training."""

import json
import random
import re

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from labkit import data, evaluate, project, skills
from labkit.evaluate import prompting
from labkit.evaluate.shapes import Number, OneOf, Shape, Words, finished, record_shape, walk

START = (0, "")
RECORD = re.compile(
    r'\{"kind": "(invoice|contract)", "firm": "[ !#-[\]-~]{1,30}", '
    r'"person": "[ !#-[\]-~]{1,30}", "amount": (0|[1-9]\d{0,3}), "due": "[ !#-[\]-~]{1,30}"\}'
)


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(project.data("models", "tiny"))


@pytest.fixture(scope="module")
def random_model(tokenizer):
    """Knows nothing, so whatever is right about its answers is the shape's doing."""
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, initializer_range=0.6,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return LlamaForCausalLM(shape).eval()


def test_every_answer_of_the_task_fits_its_shape_and_ends_it():
    pieces = record_shape()
    for example in [*data.examples("test"), *data.examples("train")[:200]]:
        state = walk(pieces, START, example.answer)
        assert state and finished(pieces, state)
        assert RECORD.fullmatch(example.answer)
        assert not finished(pieces, walk(pieces, START, example.answer[:-1]))


def fits(text):
    return walk(record_shape(), START, text) is not None


@pytest.mark.parametrize(
    "text",
    [
        '{"kind": "n', '{"kind": "inv"', '{"f', ' ', '{"kind": "invoice", "firm": ""',
        '{"kind": "invoice", "firm": "a\\', '{"kind": "invoice", "firm": " ',
        '{"kind": "invoice", "firm": "a\n', '{"kind": "invoice", "firm": "é',
    ],
)  # fmt: skip
def test_what_cannot_become_a_record_is_stopped_at_once(text):
    assert fits(text[:-1])
    assert not fits(text)


def test_a_number_has_no_leading_zero_and_no_more_than_its_digits():
    pieces = ("[", Number(3), "]")
    assert walk(pieces, START, "[0]") and walk(pieces, START, "[120]")
    for wrong in ("[01", "[]", "[1234", "[-1", "[1.", "[²"):
        assert walk(pieces, START, wrong) is None


def test_a_mask_allows_exactly_the_tokens_that_fit(tokenizer):
    """Against the regular expression: a token fits if some ending makes a whole match."""
    shape = Shape(tokenizer, record_shape())
    whole = data.examples("test")[3].answer
    endings = [whole[i:] for i in range(len(whole))]
    endings += [f"{word}{end}" for word in ("voice", "contract", "1", "x") for end in endings]
    for cut in (0, 9, 11, whole.index("firm") + 9, whole.index("amount") + 9, len(whole)):
        allowed = shape.allowed(walk(shape.pieces, START, whole[:cut]))
        for i in random.Random(cut).sample(range(len(tokenizer)), 60):
            text = shape.texts[i]
            possible = text and any(
                RECORD.fullmatch(whole[:cut] + text + e) for e in ["", *endings]
            )
            if possible:
                assert allowed[i], (cut, text)
            elif allowed[i] and i != shape.end:  # then a value goes on with any characters
                assert walk(shape.pieces, START, whole[:cut] + text)
        assert allowed[shape.end] == (cut == len(whole))
        assert allowed.any()


def test_a_model_that_knows_nothing_still_writes_valid_records(random_model, tokenizer):
    texts = [data.chat(tokenizer, e.prompt) for e in data.examples("test")[:5]]
    said = evaluate.filled(random_model, tokenizer, texts)
    free = evaluate.scores.continued(random_model, tokenizer, texts, 40)
    assert len(set(said)) > 1
    for answer in said:
        assert RECORD.fullmatch(answer)
        assert tuple(json.loads(answer)) == skills.FIELDS
    assert not any(evaluate.is_json(answer) for answer in free)


def test_a_shape_of_ones_own_and_its_longest_answer(random_model, tokenizer):
    pieces = ('{"a": ', Number(2), ', "b": "', OneOf(("yes", "no")), '", "c": "', Words(4), '"}')
    longest = '{"a": 10, "b": "yes", "c": "abcd"}'
    assert Shape(tokenizer, pieces).longest == len(longest) + 1
    texts = [data.chat(tokenizer, "Write"), data.chat(tokenizer, "Write a longer one")]
    for answer in evaluate.filled(random_model, tokenizer, texts, pieces):
        said = json.loads(answer)
        assert type(said["a"]) is int and said["b"] in ("yes", "no") and 1 <= len(said["c"]) <= 4


def test_tokens_that_do_not_fit_are_an_error_not_a_guess(tokenizer):
    wrong = tokenizer("hello", add_special_tokens=False).input_ids
    processor = Shape(tokenizer, record_shape()).after(0)
    with pytest.raises(ValueError, match="do not fit the shape"):
        processor(torch.tensor([wrong]), torch.zeros(1, len(tokenizer)))


# ---- without training


def test_examples_stand_before_the_prompt_as_turns_that_were_answered(tokenizer):
    shots, last = data.examples("train")[:2], data.examples("test")[0]
    text = prompting.with_examples(tokenizer, shots, last.prompt)
    whole = [data.chat(tokenizer, e.prompt, e.answer) for e in shots]
    tail = [whole[1], data.chat(tokenizer, last.prompt)]
    assert text == whole[0] + "".join(t.removeprefix(tokenizer.bos_token) for t in tail)


def test_five_answers_become_one_record(monkeypatch):
    letters = data.examples("test")[:3]
    truth = [json.loads(e.answer) for e in letters]
    asked = []

    def answers(model, tokenizer, prompts, max_new_tokens):
        asked.extend(prompts)
        return [f" {record[field]}\n" for record in truth for field in skills.FIELDS]

    monkeypatch.setattr(prompting, "answers", answers)
    said = prompting.by_questions(None, None, [e.prompt for e in letters])
    assert said == [e.answer for e in letters]
    assert len(asked) == 15 and not any(skills.ASK_RECORD in prompt for prompt in asked)
    [letter, _] = letters[0].prompt.split(f"\n\n{skills.ASK_RECORD}")
    assert asked[3] == f"{letter}\n\n{skills.QUESTIONS['amount'][0]}"  # as pretraining had it


def test_an_amount_that_is_no_number_stays_text():
    assert json.loads(prompting.record_of(["invoice", "F", "P", "ten", "1 May"]))["amount"] == "ten"
    with pytest.raises(ValueError):
        prompting.record_of(["invoice"])
