"""Recorded rows of `python -m labkit.bench serve`, read: tokens a second, and seconds of a change.

data/measurements/serve.jsonl holds them, with the GPU or the CPU, the versions and the date.
"""

import json
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from labkit import project

Row = Mapping[str, Any]


def rows(model: str = "llama-3.2-1b") -> list[Row]:
    """Every row of one model: "tiny" on a CPU, "llama-3.2-1b" on a GPU."""
    text = project.data("measurements", "serve.jsonl").read_text(encoding="utf-8")
    return [row for row in map(json.loads, text.splitlines()) if row["setting"]["model"] == model]


def throughput(found: Sequence[Row], batch: int = 64) -> dict[str, dict[int, float]]:
    """By way, then by number of adapters: tokens a second in batches of so many rows.

    The median over the rounds of one run.
    """
    by: dict[str, dict[int, float]] = {}
    for row in found:
        setting = row["setting"]
        if setting.get("batch") == batch:
            tokens = batch * setting["length"]
            by.setdefault(row["name"], {})
            by[row["name"]][setting["adapters"]] = tokens / statistics.median(row["seconds"])
    return by


def beside_base(found: Sequence[Row], batch: int = 64) -> dict[str, dict[int, float]]:
    """By way, then by number of adapters: the speed, as a share of that of the base alone.

    Way and base are compared within each round, so a busy machine slows both: the median of that.
    """
    rounds: dict[tuple[str, int], list[float]] = {
        (row["name"], row["setting"]["adapters"]): row["seconds"]
        for row in found
        if row["setting"].get("batch") == batch
    }
    by: dict[str, dict[int, float]] = {}
    for (name, n), seconds in rounds.items():
        shares = [b / s for b, s in zip(rounds["base", n], seconds, strict=True)]
        by.setdefault(name, {})[n] = statistics.median(shares)
    return by


def changes(found: Sequence[Row]) -> dict[str, float]:
    """By way: seconds that a change of adapter takes, the median over the rounds."""
    return {
        row["name"]: statistics.median(row["seconds"])
        for row in found
        if "batch" not in row["setting"]
    }
