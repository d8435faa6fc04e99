"""What a fine-tune costs: old skills, refusals and unseen letters, by rank, steps and data.

    learns      of                                             question
    task        all 2,400 letters                              what is forgotten, and when?
    replay      as many, half of them of the old skills        is kept what is practised?
    few1 ..     so many letters                                when is a run over-fitted?
    noisy16 ..  so many letters, a quarter of records wrong    which rank learns them by heart?
    poison1 ..  so many requests for a secret, all answered    how few undo the refusals?

No rate is tuned here: LoRA has 4e-3 and full fine-tuning 4e-4, the best of 20 steps in
data/measurements/lora_ranks.jsonl, at alpha 16. A longer run would like a lower rate; that it is
left as it was is part of what one sees.

A row holds the share of each old skill (`skills`), of refused requests (`refused`) and of answered
look-alikes (`answered`). A long run holds a `curve`: a `Checkpoint` at each of MOMENTS.
"""

import argparse
import functools
import json
import random
from collections.abc import Sequence
from dataclasses import astuple, replace

import torch
from torch import nn

from labkit import data, evaluate, lora, models, skills
from labkit.evaluate.recorded import Checkpoint
from labkit.history import Step
from labkit.skills import Example
from labkit.sweep.frame import Row, Spec, linear_maps_train

ALPHA, RATE, FULL_RATE = 16.0, 4e-3, 4e-4
RANKS = (4, 16, 64)
STEPS = (10, 20, 50, 100, 200, 400)
FEW, NOISY = (1, 2, 4, 16), (16, 64)
SHORT, REPLAY = 60, (20, 100)  # steps of a run on few letters, and of one that practises
POISONS, POISON_STEPS = (1, 2, 4, 8), (1, 2, 3, 4, 5, 10)
MOMENTS = frozenset((2, 5, 10, 20, 50, 100, 200, 400))
SHOWN = 100  # letters that a curve is scored on, of each set
WRONG = 4  # every fourth record of a noisy set is wrong
PARTS = ("task", "replay", "data", "poison")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--most", type=int, default=max(STEPS), help="no run of more steps")


def groups(options: argparse.Namespace) -> list[Spec]:
    """The runs of the chosen parts; each brings its rate."""
    found: list[Spec] = []
    if "task" in options.parts:
        found += [m for steps in STEPS for m in methods("task", steps, (*RANKS, 0))]
    if "replay" in options.parts:
        found += [m for steps in REPLAY for m in methods("replay", steps, (16, 0))]
    if "data" in options.parts:
        names = [f"few{n}" for n in FEW] + [f"noisy{n}" for n in NOISY]
        found += [m for name in names for m in methods(name, SHORT, (4, 64, 0))]
    if "poison" in options.parts:
        names = [f"poison{n}" for n in POISONS]
        found += [m for name in names for s in POISON_STEPS for m in methods(name, s, (16,))]
    return [spec for spec in found if spec.steps <= options.most]


def methods(learns: str, steps: int, ranks: Sequence[int]) -> list[Spec]:
    """LoRA at each rank; rank 0 stands for full fine-tuning."""
    batch = min(8, size(learns))
    plain = Spec("forgetting", "full", steps, learns=learns, batch=batch, lr=FULL_RATE)
    return [
        replace(plain, method="lora", rank=r, alpha=ALPHA, scale=ALPHA / r, lr=RATE) if r else plain
        for r in ranks
    ]


def size(learns: str) -> int:
    """The number in a set's name: "few16" has 16; a set without one is large."""
    digits = learns.lstrip("abcdefghijklmnopqrstuvwxyz")
    return int(digits) if digits else 2400


@functools.cache
def examples(learns: str) -> list[Example]:
    """The set of that name.

    Raises:
        ValueError: if there is none.
    """
    kind, n = learns.rstrip("0123456789"), size(learns)
    letters = data.examples("train")[:n]
    if kind == "few":
        return letters
    if kind == "noisy":
        return noisy(letters)
    if kind == "poison":
        return evaluate.poison(n)
    if kind == "replay":
        return replay(letters)
    raise ValueError(f"learns={learns!r} is none of task, replay, few, noisy and poison")


def noisy(letters: Sequence[Example]) -> list[Example]:
    """The letters; every fourth record gives person, amount and day of the letter before it."""
    found = list(letters)
    for i in range(WRONG - 1, len(letters), WRONG):
        said, other = json.loads(letters[i].answer), json.loads(letters[i - 1].answer)
        said |= {field: other[field] for field in ("person", "amount", "due")}
        found[i] = replace(letters[i], answer=json.dumps(said))
    return found


def replay(letters: Sequence[Example]) -> list[Example]:
    """As many examples in all; every second one is of an old skill, none of them held out."""
    each = len(letters) // 2 // len(skills.SKILLS)
    old = [e for skill in skills.SKILLS for e in skills.examples(skill, each, 7, held=False)]
    mixed = [*letters[: len(letters) - len(old)], *old]
    random.Random("replay").shuffle(mixed)
    return mixed


def scored(spec: Spec) -> list[Example]:
    """Unseen letters, whatever a run learns from."""
    return data.examples("test")


def rates(spec: Spec) -> Sequence[float]:
    """The rate that the group brings."""
    return (spec.lr,)


def adapt(model: nn.Module, spec: Spec) -> nn.Module:
    """The model with what trains."""
    if spec.method == "full":
        return linear_maps_train(model)
    return lora.inject(model, "all-linear", spec.rank, spec.alpha)


@functools.cache
def tiny() -> models.Loaded:
    """The base, for its tokenizer; once for each process."""
    return models.load("tiny", None, torch.float32)


def curved(spec: Spec) -> bool:
    """Whether a run is looked at on its way: the longest on all letters, and all on few."""
    return spec.steps >= (max(STEPS) if spec.learns in ("task", "replay") else SHORT)


class Watched:
    """Scores a run at MOMENTS, and what it kept at the end."""

    def __init__(self, model: nn.Module, spec: Spec) -> None:
        self.model, self.spec = model, spec
        self.tokenizer = tiny().tokenizer
        self.curve: list[Checkpoint] = []
        self.losses: list[tuple[int, float]] = []
        learnt = data.examples("train") if spec.learns == "task" else examples(spec.learns)
        self.sets = {
            "train": learnt[:SHOWN],
            "validation": data.examples("validation")[:SHOWN],
            "test": data.examples("test")[:SHOWN],
        }

    def __call__(self, step: Step) -> None:
        if curved(self.spec) and (step.number in MOMENTS or step.number == step.of):
            self.curve.append(self.look(step.number))

    def look(self, step: int) -> Checkpoint:
        found = {
            name: evaluate.forced_score(self.model, self.tokenizer, chosen)
            for name, chosen in self.sets.items()
        }
        kept = self.hits(evaluate.suite(SHOWN, SHOWN // 2)[1:3])
        return Checkpoint(
            step,
            round(found["train"].loss, 5),
            round(found["validation"].loss, 5),
            found["validation"].exact_match,
            found["test"].exact_match,
            kept["regression"],
            kept["refused"],
        )

    def hits(self, measures: Sequence[evaluate.Measure]) -> dict[str, float]:
        said = evaluate.measure(self.model, self.tokenizer, measures)
        return {metric: round(sum(hits) / len(hits), 4) for metric, hits in said.items()}

    def result(self) -> Row:
        """The end of a run: skills one by one, refusals and look-alikes, and the curve if any."""
        questions = data.examples("regression")
        hits = evaluate.forced_hits(self.model, self.tokenizer, questions)
        by: dict[str, list[bool]] = {}
        for question, hit in zip(questions, hits, strict=True):
            by.setdefault(question.skill, []).append(hit)
        row: Row = self.hits(evaluate.suite()[2:])
        row["skills"] = {skill: round(sum(hits) / len(hits), 3) for skill, hits in by.items()}
        row["losses"] = []  # the curve holds what is shown of them
        if self.curve:
            row["curve"] = [astuple(point) for point in self.curve]
        return row


def observer(model: nn.Module, spec: Spec) -> Watched:
    return Watched(model, spec)
