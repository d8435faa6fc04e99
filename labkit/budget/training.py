"""The training calculator: a setup in, the peak with its parts out.

    training("llama-3.2-1b", method="qlora", batch=4, seq_len=1024)

Shows the phases of one step as stacked bars, the kinds at the peak, which GPUs hold it, what to
change first, and the setup as code to copy. All numbers come from `labkit.memory.estimate`.
"""

from collections import Counter
from dataclasses import dataclass
from html import escape

from labkit.budget.advice import Change, advice, advice_table, plan
from labkit.budget.bars import GIB, bars, gib, number
from labkit.budget.code import as_code
from labkit.budget.groups import grouped
from labkit.budget.page import listing, section
from labkit.explore import Explorer, Menu, Whole
from labkit.memory import (
    KINDS,
    STACKS,
    Breakdown,
    Fit,
    Gpu,
    ModelShape,
    TrainingSetup,
    estimate,
    fits,
    gpu,
    gpus,
    records,
)
from labkit.memory.setup import METHODS, OPTIMIZERS
from labkit.table import Table


@dataclass(frozen=True)
class Training:
    """What the calculator answers for one model and one setup."""

    shape: ModelShape
    setup: TrainingSetup
    breakdown: Breakdown
    gpu: Gpu
    changes: tuple[Change, ...]
    steps: tuple[Change, ...]  # from this setup to one that fits the GPU
    reached: bool  # whether it fits after the steps

    @property
    def headline(self) -> str:
        b = self.breakdown
        return (
            f"{gib(b.peak)} allocated at the peak, which falls into {b.phase}; about "
            f"{gib(b.reserved)} reserved, {gib(b.smi)} in nvidia-smi"
        )

    @property
    def verdict(self) -> str:
        """Whether it fits the chosen GPU, and what would make it fit."""
        fit = Fit(self.gpu, self.gpu.usable - self.breakdown.smi)
        if fit.fits:
            error = "; that is within the estimate's error" if fit.verdict == "tight" else ""
            return f"It fits {self.gpu.name} with {gib(fit.free)} to spare{error}."
        short = f"It does not fit {self.gpu.name}: {gib(-fit.free)} too much."
        if not self.reached:
            return f"{short} No change that keeps what is learnt makes it fit."
        times = Counter(change.rule.words for change in self.steps)
        words = ", then ".join(f"{w} ({n} times)" if n > 1 else w for w, n in times.items())
        return f"{short} What to change: {words}."

    @property
    def measured(self) -> str:
        """What a GPU held in this very setup, where it is one of the measured rows."""
        for record in records.rows():
            if (record.shape, record.setup) == (self.shape, self.setup):
                off = self.breakdown.peak / record.peak - 1
                return (
                    f"Measured: {gib(record.peak)} allocated, {gib(record.reserved)} reserved "
                    f"({record.where}); the estimate is off by {off:+.2%}."
                )
        return "This setup is none of the measured rows; the dry run below answers for it."

    @property
    def picture(self) -> str:
        """The phases of a step as stacked bars."""
        rows = {name: grouped(kinds) for name, kinds in self.breakdown.phases.items()}
        totals = ", ".join(f"{name} {gib(sum(parts.values()))}" for name, parts in rows.items())
        alt = f"Bytes alive in each phase of a step: {totals}. {self.headline}."
        return bars(rows, alt, marked=self.breakdown.phase)

    @property
    def kinds(self) -> Table:
        """The kinds at the peak."""
        peak, held = self.breakdown.peak, self.breakdown.kinds
        rows = [(kind, number(n), f"{n / peak:.0%}", KINDS[kind]) for kind, n in held.items() if n]
        return Table(("kind", "GiB", "share", "what it is"), rows)

    @property
    def cards(self) -> Table:
        """Every GPU of the catalogue, and whether it holds the run."""
        needs_bf16 = self.setup.autocast or self.setup.base_dtype == "bfloat16"
        rows = []
        for fit in fits(self.breakdown.smi):
            note = "no bfloat16: compute in float16" if needs_bf16 and not fit.gpu.bf16 else ""
            rows.append((fit.gpu.name, number(fit.gpu.bytes), fit.verdict, number(fit.free), note))
        return Table(("GPU", "GiB", "this run", "left, GiB", "note"), rows)

    @property
    def code(self) -> str:
        """Lines to copy: the setup, and the two dicts that notebook 04 takes."""
        return as_code(self.shape, self.setup)

    def __str__(self) -> str:
        return "\n".join(
            (self.headline, self.verdict, self.measured, str(self.kinds), str(self.cards))
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        said = f"<strong>{escape(self.headline)}.</strong> {escape(self.verdict)}"
        changes = advice_table(list(self.changes))
        return (
            f'<p role="status">{said}</p><p>{escape(self.measured)}</p>{self.picture}'
            + section("Kind by kind", self.kinds)
            + section("Will it fit?", self.cards)
            + section("What to change first", changes)
            + listing("Copy this setup", self.code)
        )


def training(
    model: str = "llama-3.2-1b", card: str = "T4", stack: str | None = None, **setup: object
) -> Training:
    """The calculator's answer.

    Args:
        model: a preset, a hub id or a folder with a config.json.
        card: a GPU of the catalogue, for the verdict.
        stack, setup: the fields of TrainingSetup.

    Raises:
        SetupError: names the field, the value and the range.
    """
    shape = ModelShape.from_config(model)
    run = TrainingSetup(stack=stack, **setup)
    found, held = estimate(shape, run), gpu(card)
    steps, reached = plan(shape, run, held.usable)
    return Training(shape, run, found, held, tuple(advice(shape, run)), tuple(steps), reached)


USUALLY = ("as the stack does", None)


def explorer() -> Explorer:
    """The calculator under controls; what a stack decides on its own is a menu with that choice."""
    models = [(name, name) for name in ModelShape.presets()]
    cards = [(f"{one.name}, {one.bytes / GIB:.0f} GiB", one.name) for one in gpus()]
    dtypes = [(name, name) for name in ("float32", "bfloat16")]
    on_off = [("on", True), ("off", False)]
    controls = [
        Menu("model", "model", models, "llama-3.2-1b"),
        Menu("card", "GPU", cards, "T4"),
        Menu("stack", "stack", [("by hand", None), *((name, name) for name in STACKS)], None),
        Menu("method", "method", [(name, name) for name in METHODS], "qlora"),
        Whole("rank", "rank", 1, 256, value=16),
        Whole("batch", "batch, rows", 1, 64, value=4),
        Whole("seq_len", "sequence, tokens", 128, 32768, value=1024, step=128),
        Whole("accumulation", "accumulation", 1, 64, value=1),
        Menu("checkpointing", "checkpointing", [USUALLY, *on_off], None),
        Menu("loss", "loss", [USUALLY, ("full logits", "full_logits"), ("fused", "fused")], None),
        Menu("prepared", "prepare", [USUALLY, *on_off], None),
        Menu("adapter_dtype", "adapter dtype", [USUALLY, *dtypes], None),
        Menu("dropout", "dropout", [USUALLY, ("0", 0.0), ("0.05", 0.05)], None),
        Menu("optimizer", "optimizer", [(name, name) for name in OPTIMIZERS], "adamw"),
        Menu("attention", "attention", [("fused (sdpa)", "sdpa"), ("eager", "eager")], "sdpa"),
        Menu("padded", "padding", [("none", False), ("some rows are shorter", True)], False),
    ]
    return Explorer(controls, training)
