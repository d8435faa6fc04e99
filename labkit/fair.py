"""What the recorded runs of LoRA's variants say: each at its own rate, beside LoRA, seed by seed.

    data/measurements/variants.jsonl    python -m labkit.sweep variants
    data/measurements/slower.jsonl      python -m labkit.sweep slower: LoRA at half its best rate

Every method had six learning rates, a factor of two apart, on the validation set; then five seeds
at its best one, scored on the test set. Two methods are compared run by run: the same seed draws
the same letters in the same order. Of many such intervals some miss zero by chance; `gaps` says
how many to expect.
"""

import json
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from labkit import project
from labkit.intervals import Mean, chosen, mean_of
from labkit.table import Table
from labkit.verdicts import Case, said

Row = Mapping[str, Any]
METHODS = {  # what a row calls it
    "LoRA": "lora",
    "DoRA": "dora",
    "rsLoRA": "rslora",
    "LoRA+": "lora_plus",
    "PiSSA": "pissa",
    "OLoRA": "olora",
    "AdaLoRA": "adalora",
    "VeRA": "vera",
    "QLoRA": "qlora",
    "LoftQ": "loftq",
    "full": "full",
}
RANKLESS = ("VeRA", "full")  # one run serves the cases of every rank
PAIRS = {"LoftQ": "QLoRA"}  # beside what a method stands, where it is not LoRA
CASES = (Case(16, 8), Case(2, 8), Case(16, 20))
MISSES = 0.05  # of 95% intervals, where nothing differs
VALUES = {"task_loss": "loss, nats", "task": "exactly right", "regression": "old skills kept"}


def _read(name: str) -> list[Row]:
    path = project.data("measurements", name)
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def runs() -> list[Row]:
    """Every run of the sweep, those that tuned a rate included."""
    return _read("variants.jsonl")


def slower() -> list[Row]:
    """The control: LoRA at its tuned rate, "whole", and at "half" of it."""
    return _read("slower.jsonl")


def halved(control: Sequence[Row], value: str) -> Mean:
    """LoRA at half of its tuned rate less LoRA at the whole of it, over the same seeds."""
    half, whole = (
        {row["seed"]: row[value] for row in chosen(control, method=share)}
        for share in ("half", "whole")
    )
    return mean_of([half[seed] - whole[seed] for seed in half if seed in whole])


def _key(name: str, case: Case) -> dict[str, Any]:
    """What the rows of a method in a case have in common.

    Raises:
        ValueError: if the method is none of METHODS.
    """
    if name not in METHODS:
        raise ValueError(f"{name!r} is none of {', '.join(METHODS)}")
    rank = {} if name in RANKLESS else {"rank": case.rank}
    return {"method": METHODS[name], "steps": case.steps, "learns": case.learns} | rank


def of(rows: Sequence[Row], name: str, case: Case) -> list[Row]:
    """The runs that count of one of METHODS in a case, by seed; one that stopped has no score.

    Raises:
        ValueError: if there is none.
    """
    found = chosen(rows, **_key(name, case))
    return sorted((row for row in found if "task" in row), key=lambda row: row["seed"])


def methods(rows: Sequence[Row], case: Case) -> list[str]:
    """Those of METHODS that have at least two runs which count in a case."""
    counted = [row for row in rows if row["split"] == "test" and "task" in row]
    return [name for name in METHODS if len(_matching(counted, name, case)) > 1]


def _matching(rows: Sequence[Row], name: str, case: Case) -> list[Row]:
    key = _key(name, case)
    return [row for row in rows if all(row[field] == value for field, value in key.items())]


def mean(rows: Sequence[Row], name: str, case: Case, value: str) -> Mean:
    """The mean of `value` over the seeds, with its interval."""
    return mean_of([row[value] for row in of(rows, name, case)])


def differences(rows: Sequence[Row], one: str, other: str, case: Case, value: str) -> list[float]:
    """One method's value less the other's, for every seed that both have run."""
    a, b = ({row["seed"]: row[value] for row in of(rows, name, case)} for name in (one, other))
    return [a[seed] - b[seed] for seed in a if seed in b]


def difference(rows: Sequence[Row], one: str, other: str, case: Case, value: str) -> Mean:
    """The mean of the differences, with its interval."""
    return mean_of(differences(rows, one, other, case, value))


def tuning(rows: Sequence[Row], name: str, case: Case) -> dict[float, tuple[float, float]]:
    """By learning rate, the mean loss and the mean score on the validation set.

    A rate at which a run stopped is left out: it was not chosen.
    """
    found: dict[float, list[Row]] = {}
    for row in _matching(rows, name, case):
        if row["split"] == "validation":
            found.setdefault(row["lr"], []).append(row)
    return {
        lr: tuple(statistics.mean(r[value] for r in found[lr]) for value in ("task_loss", "task"))
        for lr in sorted(found)
        if all("task_loss" in row for row in found[lr])
    }


def best_rate(rows: Sequence[Row], name: str, case: Case) -> float:
    """The rate with the lowest mean validation loss."""
    tried = tuning(rows, name, case)
    return min(tried, key=lambda lr: tried[lr][0])


def at_edge(rows: Sequence[Row], name: str, case: Case) -> bool:
    """Whether the best rate is the lowest or the highest tried: a better one may lie outside."""
    tried = tuning(rows, name, case)
    return best_rate(rows, name, case) in (min(tried), max(tried))


def table(rows: Sequence[Row], case: Case) -> Table:
    """Every method in a case: what trains, its tuned rate, its scores over the seeds."""
    lines = []
    for name in methods(rows, case):
        loss, task, kept = (mean(rows, name, case, value) for value in VALUES)
        edge = " (edge)" if at_edge(rows, name, case) else ""
        lines.append(
            (
                name,
                f"{of(rows, name, case)[0]['trainable']:,}",
                f"{best_rate(rows, name, case):g}{edge}",
                f"{loss.middle:.4f} ± {loss.high - loss.middle:.4f}",
                f"{task.middle:.1%} ± {task.high - task.middle:.1%}",
                f"{kept.middle:.1%} ± {kept.high - kept.middle:.1%}",
            )
        )
    head = ("", "trains", "rate", *VALUES.values())
    return Table(head, lines, f"{case}; ± is half of the 95% interval of the mean over the seeds")


def compared(rows: Sequence[Row], case: Case) -> dict[str, str]:
    """Each method that has an other beside it, and which: LoRA, or QLoRA for a rounded base."""
    there = methods(rows, case)
    pairs = {name: PAIRS.get(name, "LoRA") for name in there if name != "LoRA"}
    return {one: other for one, other in pairs.items() if other in there}


def gaps(rows: Sequence[Row], case: Case) -> Table:
    """Every method less what stands beside it, over the same seeds, and what the interval says."""
    lines = []
    for one, other in compared(rows, case).items():
        cells = []
        for value, form in zip(VALUES, ("+.4f", "+.1%", "+.1%"), strict=True):
            gap = difference(rows, one, other, case, value)
            words = said(gap, one, other)
            cells.append(f"{gap.middle:{form}} ({gap.low:{form}} to {gap.high:{form}}) {words}")
        lines.append((f"{one} less {other}", *cells))
    n = len(lines) * len(VALUES)
    caption = f"{case}: {n} intervals of 95%; {MISSES * n:.1f} would miss zero if nothing differed"
    return Table(("", *VALUES.values()), lines, caption)


def ahead(rows: Sequence[Row], case: Case, value: str = "task_loss") -> list[str]:
    """The methods whose interval shows them better than what they are compared with."""
    return [name for name, sign in _signs(rows, case, value).items() if sign > 0]


def behind(rows: Sequence[Row], case: Case, value: str = "task_loss") -> list[str]:
    """The methods whose interval shows them worse than what they are compared with."""
    return [name for name, sign in _signs(rows, case, value).items() if sign < 0]


def _signs(rows: Sequence[Row], case: Case, value: str) -> dict[str, int]:
    """By method: 1 where its interval shows it better, -1 worse, 0 neither; a loss is to be low."""
    found = {}
    rows = [row for row in rows if row["split"] == "test" and row["steps"] == case.steps]
    for one, other in compared(rows, case).items():
        gap = difference(rows, one, other, case, value)
        sign = (gap.low > 0) - (gap.high < 0)
        found[one] = -sign if value == "task_loss" else sign
    return found


def allocation(rows: Sequence[Row], name: str, case: Case, what: str) -> dict[str, list[float]]:
    """Of the run with seed 0, by projection and layer: "moved", or "ranks" of AdaLoRA.

    Raises:
        ValueError: if that run does not say it.
    """
    for row in of(rows, name, case):
        if what in row:
            return row[what]
    raise ValueError(f"no run of {name} in {case} says {what!r}")
