"""The workbook's task without training a weight: three ways to ask the base model for it.

    way             the model writes                      forward passes a letter
    few_shot        the record, after examples of it      one answer
    shaped          the values of a record in its form    one answer
    by_questions    one value to each of five questions   five short answers

`by_questions` lets code build the JSON, so the model does only what it can do already. It is tried
before any fine-tune: if it is good enough, nothing need be trained, stored or served.
"""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from labkit.data import Example
from labkit.evaluate.scores import answers, continued
from labkit.evaluate.shapes import filled
from labkit.skills import ASK_RECORD, FIELDS, QUESTIONS

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def with_examples(
    tokenizer: "PreTrainedTokenizerBase", shots: Sequence[Example], prompt: str
) -> str:
    """A chat in which each of `shots` was asked and answered before `prompt` is asked."""
    turns = [
        {"role": role, "content": text}
        for shot in shots
        for role, text in (("user", shot.prompt), ("assistant", shot.answer))
    ]
    turns.append({"role": "user", "content": prompt})
    return tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)


def few_shot(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    shots: Sequence[Example],
    prompts: Sequence[str],
    shaped: bool = False,
) -> list[str]:
    """The answer to each prompt behind the same examples; `shaped`: held to the record's form."""
    texts = [with_examples(tokenizer, shots, prompt) for prompt in prompts]
    return (filled if shaped else continued)(model, tokenizer, texts)


def questions(prompt: str) -> list[str]:
    """The five questions about the letter of a prompt of the task, one a field."""
    about = prompt.removesuffix(ASK_RECORD).rstrip()
    return [f"{about}\n\n{QUESTIONS[field][0]}" for field in FIELDS]


def record_of(values: Sequence[str]) -> str:
    """Five values as the JSON of a record; an amount of digits becomes a number."""
    said = dict(zip(FIELDS, values, strict=True))
    return json.dumps({k: int(v) if k == "amount" and v.isdigit() else v for k, v in said.items()})


def by_questions(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", prompts: Sequence[str]
) -> list[str]:
    """The record of each letter, put together from the answers to five questions."""
    asked = [question for prompt in prompts for question in questions(prompt)]
    said = [answer.strip() for answer in answers(model, tokenizer, asked, max_new_tokens=24)]
    n = len(FIELDS)
    return [record_of(said[i : i + n]) for i in range(0, len(said), n)]
