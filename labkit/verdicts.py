"""What the recorded runs about DoRA say: scores with intervals, paired differences, costs.

    data/measurements/dora_sweep.jsonl   python -m labkit.sweep dora     what was learned
    data/measurements/dora_1b.jsonl      python -m labkit.bench dora     what a step costs

Two methods are compared run by run: the same seed draws the same data in the same order, and for
adapters the same A. The interval is that of the mean of these differences.
"""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from labkit import project
from labkit.intervals import Mean, chosen, mean_of
from labkit.table import Table

Row = Mapping[str, Any]
METHODS = {  # what a row calls it: method and base
    "full": ("full", "float32"),
    "LoRA": ("lora", "float32"),
    "DoRA": ("dora", "float32"),
    "QLoRA": ("lora", "nf4"),
    "QDoRA": ("dora", "nf4"),
}


@dataclass(frozen=True)
class Case:
    """What all runs of one comparison have in common."""

    rank: int
    steps: int
    learns: str = "task"

    def __str__(self) -> str:
        what = "letters" if self.learns == "task" else self.learns
        return f"{what}, rank {self.rank}, {self.steps} steps"


CASES = (Case(16, 8), Case(2, 8), Case(4, 200, "codes"))


def _read(name: str) -> list[Row]:
    path = project.data("measurements", name)
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def runs() -> list[Row]:
    """Every run of the sweep, those that tuned a rate included.

    `queries` is the correlation of the changes of length and direction of the query weights.
    """
    return [
        row | {"queries": row.get("movement", {}).get("q_proj")}
        for row in _read("dora_sweep.jsonl")
    ]


def of(rows: Sequence[Row], name: str, case: Case) -> list[Row]:
    """The runs that count of one of METHODS in a case, by seed.

    Raises:
        ValueError: if there is none.
    """
    method, base = METHODS[name]
    wanted = {"method": method, "base": base, "steps": case.steps, "learns": case.learns}
    wanted |= {"rank": 0 if method == "full" else case.rank}
    return sorted(chosen(rows, **wanted), key=lambda row: row["seed"])


def mean(rows: Sequence[Row], name: str, case: Case, value: str) -> Mean:
    """The mean of `value` over the seeds, with its interval."""
    return mean_of([row[value] for row in of(rows, name, case)])


def methods(rows: Sequence[Row], case: Case) -> list[str]:
    """Those of METHODS that have at least two runs which count in a case."""
    keys = [(r["method"], r["base"]) for r in rows if _is_in(r, case) and r["split"] == "test"]
    return [name for name, key in METHODS.items() if keys.count(key) > 1]


def _is_in(row: Row, case: Case) -> bool:
    same = (row["steps"], row["learns"]) == (case.steps, case.learns)
    return same and row["rank"] in (0, case.rank)


def difference(rows: Sequence[Row], one: str, other: str, case: Case, value: str) -> Mean:
    """The mean of one method's value less the other's, over the seeds that both have run."""
    a, b = ({row["seed"]: row[value] for row in of(rows, name, case)} for name in (one, other))
    return mean_of([a[seed] - b[seed] for seed in a if seed in b])


def tuning(rows: Sequence[Row], name: str, case: Case) -> dict[float, tuple[float, float]]:
    """By learning rate, the mean loss and the mean score on the validation set."""
    method, base = METHODS[name]
    found: dict[float, list[Row]] = {}
    for row in rows:
        ours = (row["method"], row["base"], row["split"]) == (method, base, "validation")
        if ours and _is_in(row, case):
            found.setdefault(row["lr"], []).append(row)
    return {
        lr: tuple(statistics.mean(r[value] for r in found[lr]) for value in ("task_loss", "task"))
        for lr in sorted(found)
    }


def said(gap: Mean, one: str, other: str) -> str:
    """Which of two methods has the larger value, if the interval of their difference tells."""
    if gap.low <= 0 <= gap.high:
        return "no difference shown"
    return f"{one if gap.middle > 0 else other} larger"


def scores(rows: Sequence[Row], case: Case) -> Table:
    """Every method in a case: its tuned rate and its scores, means over the seeds."""
    lines = []
    for name in methods(rows, case):
        found = of(rows, name, case)
        loss, task, kept = (
            mean(rows, name, case, value) for value in ("task_loss", "task", "regression")
        )
        lines.append(
            (
                name,
                f"{found[0]['trainable']:,}",
                f"{found[0]['lr']:g}",
                f"{loss.middle:.4f} ± {loss.high - loss.middle:.4f}",
                f"{task.middle:.1%} ± {task.high - task.middle:.1%}",
                f"{kept.middle:.1%} ± {kept.high - kept.middle:.1%}",
            )
        )
    head = ("", "trains", "rate", "loss, nats", "exactly right", "old skills kept")
    return Table(head, lines, f"{case}; ± is half of the 95% interval of the mean over the seeds")


def gaps(rows: Sequence[Row], one: str, other: str) -> Table:
    """One method less another, in every case: loss, score and old skills."""
    lines = []
    for case in CASES:
        if not {one, other} <= set(methods(rows, case)):
            continue
        parts = []
        for value, form in (("task_loss", "+.4f"), ("task", "+.1%"), ("regression", "+.1%")):
            gap = difference(rows, one, other, case, value)
            verdict = said(gap, one, other)
            parts.append(f"{gap.middle:{form}} ({gap.low:{form}} to {gap.high:{form}}) {verdict}")
        lines.append((str(case), *parts))
    return Table((f"{one} less {other}", "loss, nats", "exactly right", "old skills kept"), lines)


def costs() -> dict[str, Row]:
    """The rows of the benchmark by their names; a row that failed is left out."""
    return {row["name"]: row for row in _read("dora_1b.jsonl") if "error" not in row}


WAYS = tuple(
    f"{base} {kept} {how}"
    for how in ("eager", "graph", "fused", "compiled")
    for base in ("bf16", "nf4")
    for kept in ("kept", "checkpointed")
)


@dataclass(frozen=True)
class Cost:
    """DoRA beside LoRA of the same owner, in one way to run a step."""

    whose: str
    way: str
    seconds: tuple[float, float]  # LoRA, DoRA
    peak: tuple[int, int]  # bytes at most, LoRA and DoRA: allocated; reserved, of a graph

    @property
    def time(self) -> float:
        """How many of LoRA's steps one of DoRA's takes."""
        return self.seconds[1] / self.seconds[0]

    @property
    def memory(self) -> float:
        """DoRA's peak over LoRA's."""
        return self.peak[1] / self.peak[0]


def cost(rows: Mapping[str, Row], whose: str, way: str) -> Cost | None:
    """The cost of DoRA in one of WAYS; None where it was not measured.

    "fused" is a way for DoRA alone: LoRA's step is then a graph as well, with nothing to fuse.
    """
    pair = [rows.get(f"{whose} lora {way.replace('fused', 'graph')}")]
    pair += [rows.get(f"{whose} dora {way}")]
    if None in pair:
        return None
    # A recorded graph owns its memory for good: it is reserved, and no step allocates it again.
    kind = "reserved" if way.endswith(("graph", "fused")) else "allocated"
    seconds, peak = (tuple(r[key] for r in pair) for key in ("seconds", f"peak_{kind}_bytes"))
    return Cost(whose, way, seconds, peak)


def cost_table(rows: Mapping[str, Row]) -> Table:
    """Every pair that was measured: the step and the peak, LoRA and DoRA."""
    found = [c for way in WAYS for whose in ("ours", "peft") if (c := cost(rows, whose, way))]
    lines = [
        (
            f"{c.whose}, {c.way}",
            *(f"{1e3 * s:.1f}" for s in c.seconds),
            f"{c.time:.2f}",
            *(f"{b / 2**30:.2f}" for b in c.peak),
            f"{c.memory:.2f}",
        )
        for c in found
    ]
    head = ("", "LoRA, ms", "DoRA, ms", "ratio", "LoRA, GiB", "DoRA, GiB", "ratio")
    first = next(iter(rows.values()))
    commits = " and ".join(dict.fromkeys(row["commit"] for row in rows.values()))
    where = f"{first['gpu']}, {first['date']}, the layers of {commits}"
    return Table(head, lines, f"one step of 4 x 1024 tokens, {where}")
