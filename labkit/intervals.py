"""What the runs of a sweep come to: a mean for each group, with its interval over the seeds.

    by_rank(rows, "task", method="lora", steps=20)     {rank: Mean}

The interval is Student's: with 95% it holds the mean that very many seeds would give, as far as
the runs are spread like a normal distribution. It says nothing about other tasks or other models.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# The 97.5% point of Student's t, by degrees of freedom; beyond the table the last one is used.
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179)


@dataclass(frozen=True)
class Mean:
    """The mean of `n` runs, and the ends of its 95% interval."""

    middle: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.middle:.3g} ({self.low:.3g} to {self.high:.3g}, {self.n} seeds)"

    __repr__ = __str__

    def holds(self, value: float, wider: float = 0.0) -> bool:
        """Whether `value` lies in the interval, made wider by so much on either side."""
        return self.low - wider <= value <= self.high + wider


def mean_of(values: Sequence[float]) -> Mean:
    """The mean and its interval.

    Raises:
        ValueError: if there are fewer than two values, too few for an interval.
    """
    n = len(values)
    if n < 2:
        raise ValueError(f"{n} values give no interval: at least 2 seeds")
    middle = statistics.mean(values)
    t = STUDENT[min(n - 1, len(STUDENT)) - 1]
    half = t * statistics.stdev(values) / math.sqrt(n)
    return Mean(middle, middle - half, middle + half, n)


def chosen(rows: Sequence[Mapping[str, Any]], **wanted: object) -> list[Mapping[str, Any]]:
    """The rows that count (scored on the test set) and have the `wanted` values.

    Raises:
        ValueError: if there is none.
    """
    wanted = {"split": "test"} | wanted
    found = [row for row in rows if all(row[key] == value for key, value in wanted.items())]
    if not found:
        raise ValueError(f"no row has {wanted}")
    return found


def by_rank(rows: Sequence[Mapping[str, Any]], value: str, **wanted: object) -> dict[int, Mean]:
    """The mean of `value` by rank, ranks in order, over the rows with the `wanted` values.

    Raises:
        ValueError: if there is no such row, or a rank has a single one.
    """
    found: dict[int, list[float]] = {}
    for row in chosen(rows, **wanted):
        found.setdefault(row["rank"], []).append(row[value])
    return {rank: mean_of(found[rank]) for rank in sorted(found)}
