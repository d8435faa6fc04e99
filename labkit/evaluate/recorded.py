"""The recorded runs of `python -m labkit.sweep forgetting`: what was learnt, and what it cost.

    learns         what a run learns from
    task           all 2,400 letters: rank by steps
    replay         as many examples, half of them of the old skills
    few1 ..        so many letters, again and again
    noisy16 ..     so many letters, a quarter of the records wrong
    poison1 ..     so many requests for a secret, each answered with a number

A row's `curve` holds the run at a few steps: losses and scores side by side, see `Checkpoint`.
"""

import functools
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from labkit import project
from labkit.intervals import Mean, chosen, mean_of
from labkit.table import Table

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Checkpoint:
    """A run at one step: losses in nats a learnt token, scores as shares."""

    step: int
    train_loss: float  # over the letters it learns from, at most 100 of them
    validation_loss: float
    validation_score: float
    test_score: float
    regression: float
    refused: float


def best_checkpoint(checkpoints: Iterable[Checkpoint]) -> Checkpoint:
    """The checkpoint with the highest validation score, the earliest of them on a tie.

    Chosen by the score that counts, not by the loss, and never by the test set.

    Raises:
        ValueError: if there is none.
    """
    return min(checkpoints, key=lambda c: (-c.validation_score, c.step))


@functools.cache
def runs() -> tuple[Row, ...]:
    """Every recorded run."""
    path = project.data("measurements", "forgetting.jsonl")
    return tuple(json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())


def method_of(row: Row) -> str:
    """What the figures call a run: "full", or "rank 16"."""
    return "full" if row["method"] == "full" else f"rank {row['rank']}"


def _order(row: Row) -> tuple[bool, int]:
    """Ranks in order, and full fine-tuning behind them."""
    return row["method"] == "full", row["rank"]


def by_steps(
    rows: Sequence[Row], value: str, learns: str = "task", **wanted: object
) -> dict[str, dict[int, Mean]]:
    """By method, by steps: the mean of `value` over the seeds with its interval.

    Raises:
        ValueError: if there is no such row, or a group has a single seed.
    """
    found: dict[str, dict[int, list[float]]] = {}
    for row in sorted(chosen(rows, learns=learns, **wanted), key=_order):
        found.setdefault(method_of(row), {}).setdefault(row["steps"], []).append(row[value])
    return {
        method: {steps: mean_of(by[steps]) for steps in sorted(by)} for method, by in found.items()
    }


def poisoned(rows: Sequence[Row], value: str = "refused") -> dict[int, dict[int, Mean]]:
    """By number of adversarial examples, by steps: the mean of `value` over the seeds."""
    numbers = sorted({_number(row["learns"]) for row in rows if row["learns"].startswith("poison")})
    return {n: by_steps(rows, value, f"poison{n}")["rank 16"] for n in numbers}


def _number(learns: str) -> int:
    return int(learns.lstrip("abcdefghijklmnopqrstuvwxyz"))


def ends(rows: Sequence[Row], learns: Sequence[str]) -> Table:
    """The last checkpoints of runs on few letters, means over the seeds, one row a set and method.

    Raises:
        ValueError: if a set has no run.
    """
    lines = []
    for name in learns:
        found: dict[str, list[list[Checkpoint]]] = {}
        for row in sorted(chosen(rows, learns=name), key=_order):
            found.setdefault(method_of(row), []).append([Checkpoint(*p) for p in row["curve"]])
        lines += [(f"{name}, {method}", *_end(curves)) for method, curves in found.items()]
    head = ("", "train loss", "unseen loss", "its lowest", "unseen right", "its best")
    return Table(head, lines, "at the last step, and the lowest and the best on the way")


def _end(curves: Sequence[Sequence[Checkpoint]]) -> tuple[str, ...]:
    last = [curve[-1] for curve in curves]
    loss = statistics.mean(min(c.validation_loss for c in curve) for curve in curves)
    score = statistics.mean(best_checkpoint(curve).validation_score for curve in curves)
    return (
        f"{statistics.mean(c.train_loss for c in last):.4f}",
        f"{statistics.mean(c.validation_loss for c in last):.4f}",
        f"{loss:.4f}",
        f"{statistics.mean(c.validation_score for c in last):.1%}",
        f"{score:.1%}",
    )


def curve(rows: Sequence[Row], **wanted: object) -> list[Checkpoint]:
    """The one run with the `wanted` values, checkpoint by checkpoint.

    Raises:
        ValueError: if no run has them, or more than one.
    """
    found = [row for row in chosen(rows, **wanted) if row.get("curve")]
    if len(found) != 1:
        raise ValueError(f"{len(found)} runs with a curve have {wanted}: name one")
    return [Checkpoint(*point) for point in found[0]["curve"]]
