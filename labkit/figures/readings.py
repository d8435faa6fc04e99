"""The recorded adapters of notebook 06, as it shows them: each picture with its words.

    by_layer     effective ranks over layers and projections
    directions   how many hold 90% of the energy: full fine-tuning, LoRA and shuffled answers
    ranks        scores by rank where a small one is enough, and where it is not
    cuts         scores of rank 64, cut after training
    pairs        what two runs share, on either side
    counted      intruders beside their controls
    forgetting   the same against what was forgotten

The numbers come from `labkit.readings`, the drawings from `labkit.figures.spectra`.
"""

import statistics
from collections.abc import Mapping, Sequence

from labkit import readings
from labkit.figures import spectra as draw
from labkit.figures.base import Picture, picture
from labkit.readings import FIRST, Row
from labkit.table import Table

CASES = {  # what is learnt: where rank 4 is enough, and where it is not
    "letters": {"learns": "task", "steps": 100},
    "codes": {"learns": "codes", "steps": 200},
}
LETTERS = CASES["letters"]
RANKS = (4, 16, 64)
KINDS = {
    "full": {"method": "full"},
    "full, shuffled": {"method": "full", "learns": "shuffled"},
    "rank 64": {"method": "lora", "rank": 64},
    "rank 16": {"method": "lora", "rank": 16},
    "rank 4": {"method": "lora", "rank": 4},
}
SIDES = {"left": "written", "right": "read"}
SHOWN = ("seeds", "ranks", "full", "labels")
LINKED = {
    "intruders": "intruders",
    "scrambled": "intruders of the scrambled updates",
    "strength": "largest value of the update over W's",
    "moved": "norm of the update over W's",
}


def by_layer(rows: Sequence[Row], rank: int = 16) -> Picture:
    """The effective rank of the letters' update, by layer and projection."""
    by = readings.grid(rows, "effective", method="lora", rank=rank, **LETTERS)
    told = "; ".join(f"{name}: " + ", ".join(f"{v:.1f}" for v in line) for name, line in by.items())
    words = f"effective rank of {rank}"
    return picture(f"{words}, by layer: {told}", lambda ax: draw.grid(ax, by, words), width=8)


def directions(rows: Sequence[Row], sizes: Mapping[str, tuple[int, int]]) -> Table:
    """How many directions hold 90% of the energy, by projection, as the mean over the layers.

    Args:
        sizes: (out, in) of each projection.
    """
    grids = [readings.grid(rows, "energy90", **LETTERS | kind) for kind in KINDS.values()]
    lines = [
        (name, str(min(sizes[name])), *(f"{statistics.mean(found[name]):.0f}" for found in grids))
        for name in readings.PROJECTIONS
    ]
    told = "directions that hold 90% of the energy, letters, 100 steps; means of the layers"
    return Table(("", "at most", *KINDS), lines, told)


def values(rows: Sequence[Row], at: str) -> Picture:
    """The singular values of one map: full fine-tuning and every rank."""
    shown = {
        name: readings.values(rows, at, **LETTERS | KINDS[name])
        for name in ("full", *(f"rank {rank}" for rank in RANKS))
    }
    return draw.values_picture(shown, True, f"the update of {at}")


def cases(rows: Sequence[Row]) -> dict[str, Mapping[str, object]]:
    """Those of CASES that were recorded."""
    learnt = {row["learns"] for row in rows}
    return {name: case for name, case in CASES.items() if case["learns"] in learnt}


def tables(rows: Sequence[Row]) -> list[Table]:
    """Scores and spectra by rank, one table for each of the recorded CASES."""
    return [readings.by_rank(rows, **case) for case in cases(rows).values()]


def ranks(rows: Sequence[Row]) -> Picture:
    """The score by rank in the recorded CASES, beside full fine-tuning."""
    by = {
        name: {r: readings.mean(rows, "task", method="lora", rank=r, **case) for r in RANKS}
        for name, case in cases(rows).items()
    }
    full = {
        name: readings.mean(rows, "task", method="full", **case)
        for name, case in cases(rows).items()
    }
    told = "; ".join(
        f"{name}: {', '.join(f'rank {r} {m.middle:.1%}' for r, m in found.items())}"
        for name, found in by.items()
    )
    return picture(f"Exactly right, by rank. {told}", lambda ax: draw.scores(ax, by, full))


def cuts(rows: Sequence[Row], rank: int = 64) -> Picture:
    """What adapters of `rank` score when they are cut, in the recorded CASES."""
    found = [readings.cuts(rows, method="lora", rank=rank, **case) for case in cases(rows).values()]
    told = "; ".join(
        f"{name}: {', '.join(f'rank {c.rank} {c.task:.1%}' for c in cut)}"
        for name, cut in zip(cases(rows), found, strict=True)
    )
    panels = (
        lambda ax, name=name, cut=cut: draw.cut(ax, cut).set(xlabel=f"{name}: rank kept")
        for name, cut in zip(cases(rows), found, strict=True)
    )
    return picture(f"Exactly right after a cut from rank {rank}. {told}", *panels)


def _sides(pairs: Sequence[Row]) -> dict[str, dict[str, list[readings.Shared]]]:
    kinds = dict.fromkeys(row["pair"] for row in pairs)
    return {side: {kind: readings.shared(pairs, kind, side) for kind in kinds} for side in SIDES}


def pair_table(pairs: Sequence[Row]) -> Table:
    """What every kind of pair shares in its first FIRST directions."""
    sides = _sides(pairs)
    lines = []
    for kind in sides["left"]:
        found = [next(s for s in by[kind] if s.k == FIRST) for by in sides.values()]
        cells = (f"{s.overlap.middle:.2f} (chance {s.chance:.2f})" for s in found)
        lines.append((kind, *cells))
    return Table(
        ("", *SIDES.values()), lines, f"overlap of the first {FIRST} directions, mean of 42 maps"
    )


def pairs(found: Sequence[Row]) -> Picture:
    """The overlap by the number of directions, for SHOWN kinds of pairs, on either side."""
    table, sides = pair_table(found), _sides(found)
    panels = (
        lambda ax, side=side, by=by: draw.shared(ax, {kind: by[kind] for kind in SHOWN}).set(
            ylabel=f"{SIDES[side]}: overlap, 0 to 1"
        )
        for side, by in sides.items()
    )
    told = "; ".join(f"{kind} {left}, {right}" for kind, left, right in table.rows)
    return picture(f"{table.caption}, written and read: {told}", *panels)


def counted(rows: Sequence[Row]) -> Picture:
    """Intruders of every kind of run on the letters beside their controls, means of the seeds."""
    methods = [(f"{m}{hot}", rank) for hot in ("", "-hot") for m, rank in _methods()]
    by = {}
    for method, rank in methods:
        wanted = {"method": method, "rank": rank} | LETTERS
        means = [readings.mean(rows, count, **wanted).middle for count in readings.COUNTS]
        by[readings.label(wanted)] = tuple(means)
    of = len(readings.MAPS) * readings.TOP_K
    told = ", ".join(f"{name} {a:.0f}, {b:.0f}, {c:.0f}" for name, (a, b, c) in by.items())
    words = f"Intruders of {of} vectors, trained, scrambled and noise: {told}"
    return picture(words, lambda ax: draw.intruders(ax, by, of), width=10)


def _methods() -> list[tuple[str, int]]:
    return [("full", 0), *(("lora", rank) for rank in RANKS)]


def _learnt(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row["learns"] == "task"]


def links(rows: Sequence[Row]) -> Table:
    """Rank correlations with the loss of the old skills, over all runs on the letters."""
    runs = _learnt(rows)
    forgot = [row["regression_loss"] for row in runs]
    found = {
        words: readings.rank_correlation([readings.whole(row, field) for row in runs], forgot)
        for field, words in LINKED.items()
    }
    head = ("", "rank correlation with the loss of old skills")
    return Table(head, [(words, f"{r:+.2f}") for words, r in found.items()], f"{len(runs)} runs")


def forgetting(rows: Sequence[Row]) -> Picture:
    """Every run on the letters: its intruders, and those of its scrambled twin, against the loss of
    the old skills."""
    panels, told = [], []
    for field in ("intruders", "scrambled"):
        points: dict[str, list[tuple[float, float]]] = {}
        for row in _learnt(rows):
            name = readings.label(row).partition(",")[0]
            point = (readings.whole(row, field), row["regression_loss"])
            points.setdefault(name, []).append(point)
        words = LINKED[field]
        panels.append(
            lambda ax, p=points, w=words: draw.against(ax, p, w, "loss of old skills, nats")
        )
    told = "; ".join(f"{words} {r}" for words, r in links(rows).rows[:2])
    return picture(f"Rank correlation with the loss of old skills: {told}", *panels)
