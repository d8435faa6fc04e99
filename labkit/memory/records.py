"""The measured peaks, as data/measurements/memory.jsonl keeps them, split for their report.

    for record in rows():
        record.peak, estimate(record.shape, record.setup).peak

A row that was used to find a term of the closed form says nothing about its error, so rows are
split by a rule written before the first was measured (grid.reported): `record.reported`.
"""

import functools
import json
from dataclasses import dataclass, fields
from typing import Any

from labkit import project
from labkit.memory.grid import reported
from labkit.memory.setup import TrainingSetup
from labkit.memory.shapes import ModelShape

FILE = "memory.jsonl"
DRY_RUN = "memory_dry_run.jsonl"  # the dry run's answers, since a hundred of them take an hour


@dataclass(frozen=True)
class Record:
    """One measured configuration."""

    shape: ModelShape
    setup: TrainingSetup
    peak: int  # bytes, torch.cuda.max_memory_allocated from the second step on
    reserved: int
    reported: bool  # held back from the calibration
    where: str  # GPU, versions and date
    dry_run: int | None = None  # bytes, where the dry run's answer is recorded


@functools.cache
def rows() -> tuple[Record, ...]:
    """Every measured row, in the order of the file."""
    said = {(row["shape"], _setup(row)): row["peak_allocated_bytes"] for row in _lines(DRY_RUN)}
    return tuple(_record(row, said.get((row["shape"], _setup(row)))) for row in _lines(FILE))


def _lines(name: str) -> list[dict[str, Any]]:
    text = project.data("measurements", name).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def _setup(row: dict[str, Any]) -> TrainingSetup:
    return TrainingSetup(
        **{field.name: row["setup"][field.name] for field in fields(TrainingSetup)}
    )


def find(model: str, setup: TrainingSetup) -> Record:
    """The row of one setup.

    Raises:
        LabkitError: if it was not measured.
    """
    for record in rows():
        if record.shape.name == model and record.setup == setup:
            return record
    raise project.LabkitError(f"{FILE} has no row of {model} with {setup}")


def _record(row: dict[str, Any], dry_run: int | None) -> Record:
    shape = ModelShape.preset(row["shape"])
    setup = _setup(row)
    said = f"{row['gpu']}, torch {row['versions']['torch']}, {row['date']}"
    return Record(
        shape,
        setup,
        row["peak_allocated_bytes"],
        row["peak_reserved_bytes"],
        reported(shape, setup),
        said,
        dry_run,
    )
