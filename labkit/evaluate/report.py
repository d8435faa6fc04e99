"""One report that decides: each gate by the interval of its metric, base beside tuned.

    verdict       the 95% interval
    pass          lies wholly at or above the limit
    fail          lies wholly below it
    undecided     holds it: more examples are needed, not another look

A minimum is held against the tuned model's share. What `may_fall` is held against the difference
tuned less base, drawn in pairs. The whole passes if every gate does; it fails if one does.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from labkit.evaluate.gates import Gate, GateError, Gates
from labkit.evaluate.resampling import Interval, interval, paired
from labkit.table import Table

Hits = Mapping[str, Sequence[float]]  # by metric: one value for each example, in one order
PASS, FAIL, UNDECIDED = "pass", "fail", "undecided"


def verdict(low: float, high: float, limit: float) -> str:
    """What an interval says of a limit: "pass", "fail" or "undecided".

    Passed if all of it reaches the limit, failed if all of it lies below, else undecided.
    """
    if low >= limit:
        return "pass"
    return "fail" if high < limit else "undecided"


@dataclass(frozen=True)
class Line:
    """One gate: both models' shares, their paired difference, and what follows."""

    gate: Gate
    base: Interval
    tuned: Interval
    change: Interval
    verdict: str


@dataclass(frozen=True)
class Report:
    """All gates, decided. `notes` say what spoils the decision, such as gates changed since."""

    lines: tuple[Line, ...]
    fixed: str
    fingerprint: str
    notes: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """Of the whole: "fail" with one gate failed, "pass" with all passed and no note."""
        said = {line.verdict for line in self.lines}
        if FAIL in said:
            return FAIL
        return PASS if said == {PASS} and not self.notes else UNDECIDED

    def table(self, between: str = " ") -> Table:
        """The report as a table, one row a gate; `between` stands before each interval."""
        head = ("gate", "base", "tuned", "tuned less base", "verdict")
        rows = [
            (
                str(line.gate),
                *(_share(found, between) for found in (line.base, line.tuned)),
                _gap(line.change, between),
                line.verdict,
            )
            for line in self.lines
        ]
        said = [
            f"{self.verdict.upper()}: gates {self.fingerprint}, fixed {self.fixed}",
            "95% intervals by bootstrap",
            *self.notes,
        ]
        return Table(head, rows, "; ".join(said))

    def __str__(self) -> str:
        return str(self.table())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.table("\n")._repr_html_()

    def to_json(self) -> str:
        """The report as JSON, for a machine that decides whether to ship."""
        said = {"verdict": self.verdict} | asdict(self)
        return json.dumps(said, indent=1)


def _share(found: Interval, between: str) -> str:
    return f"{found.middle:.1%}{between}({found.low:.1%} to {found.high:.1%})"


def _gap(found: Interval, between: str) -> str:
    low, middle, high = (100 * v for v in (found.low, found.middle, found.high))
    return f"{middle:+.1f} points{between}({low:+.1f} to {high:+.1f})"


def decide(
    gates: Gates, base: Hits, tuned: Hits, promised: str | None = None, seed: int = 0
) -> Report:
    """Hold every gate against what was measured.

    Args:
        base, tuned: by metric, one value for each example, the same examples in the same order.
        promised: the fingerprint of the gates that was noted before training.
        seed: of the resampling.

    Raises:
        GateError: a gate whose metric was not measured.
        ValueError: values that are no shares, or no pairs.
    """
    lines = tuple(_line(gate, base, tuned, seed) for gate in gates.gates)
    notes = ()
    if promised is not None and promised != gates.fingerprint:
        notes = (f"the gates are not those of before training, {promised}: decide by those",)
    return Report(lines, gates.fixed, gates.fingerprint, notes)


def _line(gate: Gate, base: Hits, tuned: Hits, seed: int) -> Line:
    for whose, hits in (("base", base), ("tuned model", tuned)):
        if gate.metric not in hits:
            raise GateError(
                f"the {whose} has no {gate.metric!r}, only {', '.join(sorted(hits)) or 'nothing'}: "
                "measure it, or take it out of the gates before training"
            )
    before, after = base[gate.metric], tuned[gate.metric]
    share, change = interval(after, seed=seed), paired(before, after, seed=seed)
    if gate.minimum is not None:
        said = verdict(share.low, share.high, gate.minimum)
    else:
        said = verdict(change.low, change.high, -(gate.may_fall or 0.0))
    return Line(gate, interval(before, seed=seed), share, change, said)
