"""The measured peaks beside what the engines said of them.

    measured()      the rows of data/measurements/memory.jsonl
    accuracy()      errors of each engine and rival over the rows that are kept for the report

The dry run's answers are recorded, since a hundred of them take minutes: python -m
labkit.memory.survey dry writes them, and a test runs some of them again.
"""

import functools
import json
import statistics
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from labkit import project
from labkit.memory import grid
from labkit.memory.closed_form import estimate
from labkit.memory.rivals import RIVALS
from labkit.memory.setup import TrainingSetup
from labkit.memory.shapes import ModelShape
from labkit.table import Table

PEAKS = ("measurements", "memory.jsonl")
DRY = ("measurements", "memory_dry_run.jsonl")


@dataclass(frozen=True)
class Row:
    """One measured configuration, bytes allocated at its peak."""

    shape: ModelShape
    setup: TrainingSetup
    peak_allocated: int
    peak_reserved: int
    dry_run: int | None  # what the dry run said, where it was recorded
    source: dict[str, Any]  # the row as it was written: GPU, versions, date, phases

    @property
    def part(self) -> str:
        """ "report" for rows that no calibration has looked at, else "calibrate"."""
        return "report" if grid.reported(self.shape, self.setup) else "calibrate"

    @property
    def estimate(self) -> int:
        return estimate(self.shape, self.setup).peak

    def error(self, said: float) -> float:
        """How far an answer lies off the measured peak, as a share of it: 0.1 is 10% too much."""
        return said / self.peak_allocated - 1


def setup_of(fields_of: dict[str, Any]) -> TrainingSetup:
    """A setup from a row's fields."""
    return TrainingSetup(**{f.name: fields_of[f.name] for f in fields(TrainingSetup)})


def read(*parts: str) -> list[dict[str, Any]]:
    """The rows of a JSONL file in data/."""
    text = project.data(*parts).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


@functools.cache
def measured() -> tuple[Row, ...]:
    """All measured rows, with the recorded answers of the dry run."""
    dry = {grid.key(*pair(row)): row["peak_bytes"] for row in read(*DRY)}
    return tuple(
        Row(
            *pair(row),
            peak_allocated=row["peak_allocated_bytes"],
            peak_reserved=row["peak_reserved_bytes"],
            dry_run=dry.get(grid.key(*pair(row))),
            source=row,
        )
        for row in read(*PEAKS)
    )


def pair(row: dict[str, Any]) -> grid.Pair:
    """The configuration of a row."""
    return ModelShape.preset(row["shape"]), setup_of(row["setup"])


def answers() -> dict[str, Callable[[Row], int | None]]:
    """Every way to answer, by name: both engines, then the rivals."""

    def rival(formula: Callable[[ModelShape, TrainingSetup], int]) -> Callable[[Row], int]:
        return lambda row: formula(row.shape, row.setup)

    ours = {"closed form": lambda row: row.estimate, "dry run": lambda row: row.dry_run}
    return ours | {name: rival(formula) for name, formula in RIVALS.items()}


@dataclass(frozen=True)
class Accuracy:
    """Errors of one way to answer, as shares of the measured peak, without their sign."""

    name: str
    rows: int
    median: float
    worst: float


def accuracy(part: str = "report") -> tuple[Accuracy, ...]:
    """The errors of all ways to answer over one part of the rows."""
    rows = [row for row in measured() if row.part == part]
    found = []
    for name, answer in answers().items():
        said = [(row, answer(row)) for row in rows]
        errors = [abs(row.error(n)) for row, n in said if n is not None]
        found.append(Accuracy(name, len(errors), statistics.median(errors), max(errors)))
    return tuple(found)


def table(part: str = "report") -> Table:
    """`accuracy` as a table, with where the peaks were measured."""
    first = measured()[0].source
    versions = ", ".join(f"{name} {number}" for name, number in first["versions"].items())
    rows = [(a.name, str(a.rows), f"{a.median:.1%}", f"{a.worst:.1%}") for a in accuracy(part)]
    caption = f"{first['gpu']}, {versions}, {first['date']}"
    return Table(("", "rows", "median error", "worst error"), rows, caption)
