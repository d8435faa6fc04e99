"""Answers and scores: greedy answers in batches, graded by exact rules.

task         the record as JSON: valid at all, share of right fields, exactly right
regression   what the base model could do before: exact match, by skill
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from labkit.data import Example, chat
from labkit.models import dense_on_cpu

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Processor = Callable[[int], Callable[[torch.Tensor, torch.Tensor], torch.Tensor]]


@dataclass(frozen=True)
class TaskScore:
    """Shares from 0 to 1 over `n` answers."""

    n: int
    valid_json: float
    field_accuracy: float
    exact_match: float

    def __str__(self) -> str:
        return (
            f"task, {self.n} letters: {self.exact_match:.1%} exactly right, "
            f"{self.field_accuracy:.1%} of the fields, {self.valid_json:.1%} valid JSON"
        )

    __repr__ = __str__


@dataclass(frozen=True)
class SkillScore:
    """Exact match from 0 to 1: over `n` answers, and by skill."""

    n: int
    exact_match: float
    by_skill: dict[str, float]

    def __str__(self) -> str:
        lost = sorted((score, skill) for skill, score in self.by_skill.items() if score < 1)
        parts = ", ".join(f"{skill} {score:.0%}" for score, skill in lost) or "no skill lost"
        return f"regression, {self.n} questions: {self.exact_match:.1%} exactly right ({parts})"

    __repr__ = __str__


def _ids_of_ends(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    ends = model.generation_config.eos_token_id
    listed = [ends] if isinstance(ends, int) else list(ends or [])
    return sorted({*listed, tokenizer.eos_token_id})


def _generate(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    texts: list[str],
    max_new_tokens: int,
    processor: Processor | None,
) -> list[str]:
    encoded = tokenizer(
        texts, add_special_tokens=False, padding=True, padding_side="left", return_tensors="pt"
    ).to(model.device)
    tokens = model.generate(
        input_ids=encoded.input_ids,
        attention_mask=encoded.attention_mask,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        eos_token_id=_ids_of_ends(model, tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        logits_processor=[processor(encoded.input_ids.shape[1])] if processor else None,
    )
    return tokenizer.batch_decode(tokens[:, encoded.input_ids.shape[1] :], skip_special_tokens=True)


def answers(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[str],
    max_new_tokens: int = 64,
    batch: int = 64,
) -> list[str]:
    """The greedy answer to each prompt, in their order, without special tokens.

    Prompts of like length share a batch, padded on the left. A model in training mode is put into
    evaluation mode for it, and back.
    """
    texts = [chat(tokenizer, prompt) for prompt in prompts]
    return continued(model, tokenizer, texts, max_new_tokens, batch)


@torch.no_grad()
def continued(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    texts: Sequence[str],
    max_new_tokens: int = 64,
    batch: int = 64,
    processor: Processor | None = None,
) -> list[str]:
    """What greedy decoding writes behind each text; `answers`, for chats that are ready.

    Args:
        processor: given the tokens of a batch's prompts, makes its logits processor.
    """
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    found: dict[int, str] = {}
    was_training = model.training
    model.eval()
    try:
        with dense_on_cpu(model):
            for start in range(0, len(order), batch):
                chosen = order[start : start + batch]
                parts = [texts[i] for i in chosen]
                said = _generate(model, tokenizer, parts, max_new_tokens, processor)
                found |= dict(zip(chosen, said, strict=True))
    finally:
        model.train(was_training)
    return [found[i] for i in range(len(texts))]


def fields_right(answer: str, truth: str) -> int:
    """How many fields of the JSON object `truth` the answer gives unchanged; 0 if it is none."""
    try:
        said = json.loads(answer)
    except json.JSONDecodeError:
        return 0
    if not isinstance(said, dict):
        return 0
    wanted = json.loads(truth)
    return sum(
        field in said and type(said[field]) is type(value) and said[field] == value
        for field, value in wanted.items()
    )


def is_json(answer: str) -> bool:
    """Whether `answer` is one JSON object."""
    try:
        return isinstance(json.loads(answer), dict)
    except (json.JSONDecodeError, RecursionError):  # a model can repeat "[" without end
        return False


def grade_task(said: Sequence[str], examples: Sequence[Example]) -> TaskScore:
    """Grade answers against the examples they belong to.

    Raises:
        ValueError: if their numbers differ, or there is none.
    """
    _same_number(said, examples)
    n = len(examples)
    fields = sum(len(json.loads(e.answer)) for e in examples)
    pairs = list(zip(said, examples, strict=True))
    return TaskScore(
        n,
        sum(is_json(a) for a in said) / n,
        sum(fields_right(a, e.answer) for a, e in pairs if is_json(a)) / fields,
        sum(a.strip() == e.answer for a, e in pairs) / n,
    )


def grade_skills(said: Sequence[str], examples: Sequence[Example]) -> SkillScore:
    """Exact match of answers, over all and by skill.

    Raises:
        ValueError: if their numbers differ, or there is none.
    """
    _same_number(said, examples)
    right: dict[str, list[bool]] = {}
    for answer, example in zip(said, examples, strict=True):
        right.setdefault(example.skill, []).append(answer.strip() == example.answer)
    by_skill = {skill: sum(hits) / len(hits) for skill, hits in right.items()}
    return SkillScore(len(examples), sum(map(sum, right.values())) / len(examples), by_skill)


def _same_number(said: Sequence[str], examples: Sequence[Example]) -> None:
    if len(said) != len(examples) or not examples:
        raise ValueError(f"{len(said)} answers for {len(examples)} examples: give one each")


def score_task(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", examples: Sequence[Example]
) -> TaskScore:
    """Answer and grade the fine-tuning task."""
    return grade_task(answers(model, tokenizer, [e.prompt for e in examples]), examples)


def score_regression(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", examples: Sequence[Example]
) -> SkillScore:
    """Answer and grade the skills of the base model."""
    return grade_skills(answers(model, tokenizer, [e.prompt for e in examples]), examples)
