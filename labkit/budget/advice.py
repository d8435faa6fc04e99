"""What to change first when a run does not fit: bytes saved for each percent of speed lost.

    advice(shape, setup)       changes that lower the peak, the best bargain first
    plan(shape, setup, limit)  those to make, one after another, until the run fits

Each change is tried alone: the estimate of the changed setup is compared with the one at hand. So
a change that helps only after another (fewer activations, under a peak that the logits make) does
not appear until the other is made. Changes that keep what is learnt, up to rounding, come first:
those that cost no speed, then those whose loss was measured, by bytes a percent, then the others.
Changes of the run itself (rank, method, length) come last.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from labkit.budget.bars import number
from labkit.budget.speeds import Speed, speeds
from labkit.memory import ModelShape, SetupError, TrainingSetup, estimate
from labkit.table import Table

Changed = dict[str, Any] | None  # fields and their new values, or None where it does not apply


@dataclass(frozen=True)
class Rule:
    """One change: its name in `speeds`, its words, when it applies, and what else it moves."""

    name: str
    words: str
    change: Callable[[TrainingSetup], Changed]
    less_work: bool  # it only leaves work out, so it is no slower
    keeps: bool  # what is learnt stays the same, up to rounding
    price: str  # what it moves besides memory and speed


@dataclass(frozen=True)
class Change:
    """A change that lowers the peak of one setup."""

    rule: Rule
    setup: TrainingSetup  # with the change made
    saved: int  # bytes
    speed: Speed | None  # None where it was not measured

    @property
    def free(self) -> bool:
        """Whether it costs no speed."""
        return self.speed.lost <= 0 if self.speed else self.rule.less_work

    @property
    def per_percent(self) -> float | None:
        """Bytes saved for each percent of speed lost; None where it is free or not measured."""
        return self.saved / (100 * self.speed.lost) if self.speed and not self.free else None

    @property
    def order(self) -> tuple[int, float]:
        """Smallest first."""
        if not self.rule.keeps:
            return 3, -self.saved
        if self.free:
            return 0, -self.saved
        return (1, -self.per_percent) if self.per_percent else (2, -self.saved)


def _set(field: str, value: object, **only: object) -> Callable[[TrainingSetup], Changed]:
    """The change of one field, where it has another value and all of `only` hold."""

    def change(setup: TrainingSetup) -> Changed:
        applies = all(getattr(setup, name) == wanted for name, wanted in only.items())
        return {field: value} if applies and getattr(setup, field) != value else None

    return change


def _half_batch(setup: TrainingSetup) -> Changed:
    if setup.batch % 2:
        return None
    return {"batch": setup.batch // 2, "accumulation": 2 * setup.accumulation}


def _method(**changes: str) -> Callable[[TrainingSetup], Changed]:
    def change(setup: TrainingSetup) -> Changed:
        return {"method": changes[setup.method]} if setup.method in changes else None

    return change


def _half(field: str, least: int) -> Callable[[TrainingSetup], Changed]:
    def change(setup: TrainingSetup) -> Changed:
        value = getattr(setup, field)
        return {field: value // 2} if value >= 2 * least else None

    return change


ROUNDING = "nothing but rounding"
RULES = (
    Rule("prepared", "leave prepare out", _set("prepared", False), True, True,
         "norms and embedding stay in 16 bits"),
    Rule("padded", "rows of one length, without padding", _set("padded", False), True, True,
         "rows are sorted by length or packed"),
    Rule("attention", "fused attention (sdpa)", _set("attention", "sdpa"), True, True, ROUNDING),
    Rule("adapter_dtype", "adapters in bfloat16",
         _set("adapter_dtype", "bfloat16", base_dtype="bfloat16"), True, True,
         "small updates are rounded"),
    Rule("loss", "a loss without the table of logits", _set("loss", "fused"), False, True,
         ROUNDING),
    Rule("checkpointing", "gradient checkpointing", _set("checkpointing", True), False, True,
         ROUNDING),
    Rule("batch", "half the batch, twice the accumulation", _half_batch, False, True, ROUNDING),
    Rule("double_quant", "double quantisation", _set("double_quant", True), False, True,
         "scales are rounded to 8 bits"),
    Rule("adamw_8bit", "moments in 8 bits", _set("optimizer", "adamw_8bit", optimizer="adamw"),
         False, True, "moments are rounded"),
    Rule("paged", "paged moments", _set("optimizer", "paged_adamw_32bit", optimizer="adamw"),
         False, True, "moments move to the host when memory runs out"),
    Rule("dropout", "no dropout", _set("dropout", 0.0), True, False, "one regulariser less"),
    Rule("dora", "LoRA instead of DoRA", _method(dora="lora", qdora="qlora"), True, False,
         "no magnitudes are learnt"),
    Rule("rank", "half the rank", _half("rank", 4), True, False, "less room for the update"),
    Rule("qlora", "the frozen base in 4 bits", _method(lora="qlora", dora="qdora"), False, False,
         "frozen weights are rounded to 16 levels"),
    Rule("lora", "adapters instead of all weights", _method(full="lora"), True, False,
         "another method: compare what it learns"),
    Rule("seq_len", "half the sequence", _half("seq_len", 64), True, False,
         "longer examples are cut"),
)  # fmt: skip


_estimate = functools.lru_cache(maxsize=1024)(estimate)  # a plan meets the same setups again


def advice(shape: ModelShape, setup: TrainingSetup, rules: Sequence[Rule] = RULES) -> list[Change]:
    """Every single change that lowers the peak, the best bargain first.

    Raises:
        SetupError: if the model cannot run the setup.
    """
    peak, measured = _estimate(shape, setup).peak, speeds()
    found = [
        Change(rule, changed, peak - _estimate(shape, changed).peak, measured.get(rule.name))
        for rule, changed in _applicable(setup, rules)
    ]
    return sorted((change for change in found if change.saved > 0), key=lambda c: c.order)


def plan(shape: ModelShape, setup: TrainingSetup, limit: int) -> tuple[list[Change], bool]:
    """Changes that keep what is learnt, each the best one left, until the run fits.

    A change that turns out not to be needed, since later ones save enough, is left out again.

    Args:
        limit: bytes that nvidia-smi may show.

    Returns:
        The changes in the order to make them, and whether the run fits with all of them made.
    """
    keeping = [rule for rule in RULES if rule.keeps]
    made: list[Change] = []
    now = setup
    while _estimate(shape, now).smi > limit:
        left = advice(shape, now, keeping)
        if not left:
            return made, False
        made.append(left[0])
        now = left[0].setup
    for change in list(made):
        fewer = [one for one in made if one is not change]
        if _estimate(shape, _with(setup, fewer)).smi <= limit:
            made = fewer
    return made, True


def _with(setup: TrainingSetup, changes: list[Change]) -> TrainingSetup:
    """The setup after all of the changes."""
    for change in changes:
        setup = replace(setup, **(change.rule.change(setup) or {}))
    return setup


def _applicable(
    setup: TrainingSetup, rules: Sequence[Rule]
) -> Iterator[tuple[Rule, TrainingSetup]]:
    """The rules that apply, each with the setup that it makes; one that cannot be is left out."""
    for rule in rules:
        fields = rule.change(setup)
        if fields is None:
            continue
        try:
            yield rule, replace(setup, **fields)
        except SetupError:  # such as adapters of a dtype that the base rules out
            continue


def advice_table(changes: list[Change]) -> Table:
    """The changes as a table; says so where there is none."""
    rows = [
        (
            change.rule.words,
            number(change.saved),
            _speed(change),
            _bargain(change),
            change.rule.price,
        )
        for change in changes
    ]
    head = ("change", "saves, GiB", "speed", "GiB a percent", "what else it moves")
    return Table(head, rows or [("nothing here lowers the peak", "", "", "", "")])


def _speed(change: Change) -> str:
    if change.speed:
        word = "loses" if change.speed.lost > 0 else "gains"
        return f"{word} {abs(change.speed.lost):.0%}"
    return "no slower" if change.rule.less_work else "not measured"


def _bargain(change: Change) -> str:
    return number(change.per_percent) if change.per_percent else "free" if change.free else ""
