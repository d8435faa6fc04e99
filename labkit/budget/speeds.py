"""What a change costs in speed, from rows that were measured and differ in nothing else.

    Speed("checkpointing", 0.243, "hand-no-checkpointing to hand, NVIDIA H200")

A change that only leaves work out (no dropout, no padding, a lower rank) needs no row: it is no
slower. A change that adds work has a number where two rows were measured, else none: nothing is
guessed.

Source: data/measurements/*.jsonl, Llama-3.2-1B, 4 x 1024 tokens; another model moves the numbers.
"""

import functools
import json
import statistics
from dataclasses import dataclass

from labkit import project
from labkit.memory import ModelShape, TrainingSetup, gpu, roofline

# change -> (file, name of the row before the change, name of the row after it)
PAIRS = {
    "checkpointing": ("qlora_1b.jsonl", "hand-no-checkpointing", "hand"),
    "loss": ("qlora_1b.jsonl", "plain", "hand-prepare"),
    "prepared": ("qlora_1b.jsonl", "hand-prepare", "hand-eager"),
}
# change -> what the row after it sets otherwise than the first row of SPEEDS
SPEEDS = "speed_1b.jsonl"
CHANGES = {
    "adamw_8bit": {"optimizer": "adamw_8bit"},
}


@dataclass(frozen=True)
class Speed:
    """The share of tokens a second that a change loses; below zero where it gains."""

    change: str
    lost: float
    source: str


@functools.cache
def speeds() -> dict[str, Speed]:
    """What was measured, by the name of the change."""
    named = {change: _between(change, *pair) for change, pair in PAIRS.items()}
    return named | {change: _changed(change, fields) for change, fields in CHANGES.items()}


def _changed(change: str, fields: dict[str, object]) -> Speed:
    """From the median step of the first row, and of the one that differs in `fields` alone."""
    first = _rows(SPEEDS)[0]
    (then,) = (row for row in _rows(SPEEDS) if row["setup"] == first["setup"] | fields)
    lost = 1 - statistics.median(first["seconds"]) / statistics.median(then["seconds"])
    return Speed(change, lost, f"median of {len(then['seconds'])} steps, {then['gpu']}")


def _between(change: str, file: str, before: str, after: str) -> Speed:
    rows = {row["name"]: row for row in _rows(file)}
    lost = 1 - rows[after]["tokens_per_second"] / rows[before]["tokens_per_second"]
    return Speed(change, lost, f"{before} to {after}, {rows[after]['gpu']}")


@functools.cache
def _rows(file: str) -> list[dict]:
    text = project.data("measurements", file).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


@functools.cache
def reached() -> float:
    """The share of its card's peak that TRL's run reached, of the bound by arithmetic."""
    row = next(row for row in _rows("qlora_1b.jsonl") if row["name"] == "trl")
    shape, card = ModelShape.preset("llama-3.2-1b"), gpu(row["gpu"].removeprefix("NVIDIA "))
    return row["tokens_per_second"] / roofline(shape, TrainingSetup(stack="trl"), card)
