"""What the recorded adapters say of themselves: directions, intruders, overlaps and cuts.

    data/measurements/spectra.jsonl    python -m labkit.sweep spectra     one run a row
    data/measurements/overlaps.jsonl   python -m labkit.sweep.overlaps    one pair of runs a row

A row holds each of FIELDS as a list over MAPS, the linear maps of tiny. A number for a whole run is
the median over the maps, and for intruders the sum: out of TOP_K vectors in each of 42 maps.
"""

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from labkit import project
from labkit.intervals import Mean, chosen, mean_of
from labkit.table import Table

Row = Mapping[str, Any]
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
LAYERS = 6
MAPS = tuple(f"{layer}.{name}" for layer in range(LAYERS) for name in PROJECTIONS)
TOP_K, THRESHOLD = 10, 0.5  # of the intruders
FIRST = 4  # directions, of `first` and `amplified`
FIELDS = (
    "moved",  # |D|_F / |W|_F
    "strength",  # |D|_2 / |W|_2
    "effective",  # effective rank, by entropy
    "energy90",  # directions that hold 90% of the squares
    "first",  # share of the squares in the first FIRST directions
    "intruders",  # among the TOP_K first left vectors of W + D
    "scrambled",  # the same of D's values on random directions
    "noise",  # the same of dense noise of D's Frobenius norm
    "amplified",  # |D| / |U^T W V| over the first FIRST directions
    "amplified_all",  # the same over all of them
)
COUNTS = ("intruders", "scrambled", "noise")
SCORES = ("task", "task_loss", "regression", "regression_loss")


def _read(name: str) -> list[Row]:
    path = project.data("measurements", name)
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def runs() -> list[Row]:
    """The rows of the runs that count; one that stopped is left out."""
    return [r for r in _read("spectra.jsonl") if r["split"] == "test" and "stopped" not in r]


def pairs() -> list[Row]:
    """The rows of the overlaps."""
    return _read("overlaps.jsonl")


def label(row: Row) -> str:
    """What a picture calls a run: full, rank 16, rank 16 at 4 times the rate."""
    name = f"rank {row['rank']}" if row["rank"] else "full"
    return f"{name}, hot" if row["method"].endswith("-hot") else name


def whole(row: Row, field: str) -> float:
    """One number of a run: the median of a field over the maps, of a count the sum; or a score."""
    if field in SCORES:
        return row[field]
    return float(sum(row[field])) if field in COUNTS else statistics.median(row[field])


def mean(rows: Sequence[Row], field: str, **wanted: object) -> Mean:
    """`whole` of the runs with the `wanted` values, with its interval over the seeds.

    Raises:
        ValueError: if there are fewer than two such runs.
    """
    return mean_of([whole(row, field) for row in chosen(rows, **wanted)])


def grid(rows: Sequence[Row], field: str, **wanted: object) -> dict[str, list[float]]:
    """By projection, a field in every layer; the mean of the runs with the `wanted` values.

    Raises:
        ValueError: if there is no such run.
    """
    found = chosen(rows, **wanted)
    means = [statistics.mean(values) for values in zip(*(r[field] for r in found), strict=True)]
    return {name: means[place :: len(PROJECTIONS)] for place, name in enumerate(PROJECTIONS)}


def values(rows: Sequence[Row], at: str, **wanted: object) -> list[float]:
    """The singular values that seed 0 kept of one map, such as "2.v_proj".

    Raises:
        ValueError: if no such run kept them, or `at` is none of MAPS.
    """
    if at not in MAPS:
        raise ValueError(f"at={at!r} is none of the maps of tiny: LAYER.PROJECTION, as {MAPS[0]}")
    found = [row["values"] for row in chosen(rows, **wanted) if "values" in row]
    if not found:
        raise ValueError(f"no run with {wanted} kept its singular values")
    return found[0][at]


def by_rank(rows: Sequence[Row], learns: str, steps: int) -> Table:
    """Every rank and full fine-tuning: the scores, and what their spectra say."""
    fields = ("task", "task_loss", "effective", "energy90", "first")
    forms = ("{:.1%}", "{:.4f}", "{:.1f}", "{:.0f}", "{:.0%}")
    lines = []
    for rank in sorted({row["rank"] for row in rows}, key=lambda rank: rank or 10**6):
        wanted = {"method": "lora" if rank else "full", "rank": rank}
        found = [mean(rows, f, learns=learns, steps=steps, **wanted) for f in fields]
        cells = (
            f"{form.format(m.middle)} ± {form.format(m.high - m.middle)}"
            for form, m in zip(forms, found, strict=True)
        )
        lines.append((f"rank {rank}" if rank else "full", str(found[0].n), *cells))
    head = ("", "seeds", "exactly right", "loss, nats", "effective rank", "rank for 90%", "first 4")
    told = f"{learns}, {steps} steps; medians over {len(MAPS)} maps; ± is half of the 95% interval"
    return Table(head, lines, told)


@dataclass(frozen=True)
class Cut:
    """What an adapter scores when only `rank` of its directions are kept; means over the seeds."""

    rank: int
    task: float
    loss: float
    regression: float
    naive_task: float  # of the first rows of A and columns of B
    naive_loss: float


def cuts(rows: Sequence[Row], **wanted: object) -> list[Cut]:
    """By rank, from small to large; the last one is the whole adapter.

    Raises:
        ValueError: if there is no such run, or they differ in rank.
    """
    found = chosen(rows, **wanted)
    ranks = {row["rank"] for row in found}
    if len(ranks) > 1 or not all("cut" in row for row in found):
        raise ValueError(f"cuts are of one rank above 4 at a time, and these have {sorted(ranks)}")
    means = {
        int(k): list(map(statistics.mean, zip(*(r["cut"][k] for r in found), strict=True)))
        for k in found[0]["cut"]
    }
    task, loss, kept = (
        statistics.mean(row[f] for row in found) for f in ("task", "task_loss", "regression")
    )
    whole_one = Cut(ranks.pop(), task, loss, kept, task, loss)
    return [*(Cut(k, *means[k]) for k in sorted(means)), whole_one]


def rank_correlation(one: Sequence[float], other: Sequence[float]) -> float:
    """Spearman's: the correlation of the ranks, equal values sharing theirs; -1 to 1."""
    return statistics.correlation(_ranked(one), _ranked(other))


def _ranked(values: Sequence[float]) -> list[float]:
    order = sorted(values)
    return [order.index(v) + (order.count(v) - 1) / 2 for v in values]


@dataclass(frozen=True)
class Shared:
    """The mean overlap of the first k directions of two updates, over the maps."""

    k: int
    overlap: Mean  # over the pairs of seeds
    chance: float  # of two random subspaces


def shared(rows: Iterable[Row], pair: str, side: str) -> list[Shared]:
    """One kind of pair, by the number of directions.

    Raises:
        ValueError: if there is no such pair.
    """
    found = [row for row in rows if (row["pair"], row["side"]) == (pair, side)]
    if not found:
        raise ValueError(f"no pair {pair!r} on the {side} side")
    n = next(row["n"] for row in found if "n" in row)
    means = [
        [statistics.mean(at) for at in zip(*row["phi"].values(), strict=True)] for row in found
    ]
    chances = [statistics.mean(2**i / size for size in n.values()) for i in range(len(means[0]))]
    return [
        Shared(2**i, mean_of([m[i] for m in means]), chance) for i, chance in enumerate(chances)
    ]


def overlap_of(rows: Iterable[Row], pair: str, side: str, at: str) -> list[list[float]]:
    """phi of the first i and the first j directions of one map, at place (i - 1, j - 1).

    Raises:
        ValueError: if it was not kept for this pair and map.
    """
    for row in rows:
        if (row["pair"], row["side"]) == (pair, side) and at in row.get("whole", {}):
            return row["whole"][at]
    raise ValueError(f"no whole map of {pair!r}, {side}, {at} was kept")
