"""The parameter calculator: what a model holds, and what an adapter of a rank adds to it.

counting("llama-3.2-1b", rank=16, targets="all-linear")
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from labkit.budget.bars import bars
from labkit.budget.page import section
from labkit.explore import Explorer, Menu, Whole
from labkit.memory import PROJECTIONS, ModelShape, adapter_parameters
from labkit.table import Table

TARGETS = {
    "all seven": "all-linear",
    "q and v": ("q_proj", "v_proj"),
    "attention": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "MLP": ("gate_proj", "up_proj", "down_proj"),
}


@dataclass(frozen=True)
class Counting:
    """Parameters of a model and of its adapters."""

    shape: ModelShape
    rank: int
    targets: str | Sequence[str]
    dora: bool

    @property
    def trained(self) -> int:
        return adapter_parameters(self.shape, self.rank, self.targets, self.dora)

    @property
    def headline(self) -> str:
        total, trained = self.shape.parameters, self.trained
        return (
            f"{self.shape.name} holds {total:,} parameters; the adapters train {trained:,}, "
            f"{trained / (total + trained):.2%} of all; their file takes {4 * trained / 1e6:,.1f} "
            f"MB in float32, {2 * trained / 1e6:,.1f} MB in 16 bits"
        )

    @property
    def parts(self) -> dict[str, int]:
        """The model's parameters by part."""
        s = self.shape
        each = {name: s.layers * out * wide for name, (out, wide) in s.projections.items()}
        attention = sum(each[name] for name in PROJECTIONS[:4])
        tables = s.vocab * s.hidden * (1 if s.tied else 2)
        rest = s.parameters - s.linear - tables
        return {
            "attention": attention,
            "MLP": s.linear - attention,
            "embedding" if s.tied else "embedding and head": tables,
            "norms and biases": rest,
        }

    @property
    def table(self) -> Table:
        """The seven projections: their shape, their weights and their adapters, in all layers."""
        s = self.shape
        chosen = PROJECTIONS if self.targets == "all-linear" else self.targets
        rows = []
        for name, (out, wide) in s.projections.items():
            pair = adapter_parameters(s, self.rank, (name,), self.dora) if name in chosen else 0
            rows.append((name, f"{out:,}", f"{wide:,}", f"{s.layers * out * wide:,}", f"{pair:,}"))
        rows.append(("all", "", "", f"{s.linear:,}", f"{self.trained:,}"))
        return Table(("map", "out", "in", f"weights in {s.layers} layers", "adapters"), rows)

    def __str__(self) -> str:
        return f"{self.headline}\n{self.table}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        shares = ", ".join(f"{name} {count:,}" for name, count in self.parts.items())
        drawn = bars(
            {self.shape.name: self.parts},
            f"Parameters of {self.shape.name}: {shares}",
            unit=lambda count: f"{count:,.0f}",
        )
        said = f'<p role="status"><strong>{escape(self.headline)}.</strong></p>'
        return f"{said}{drawn}{section('Map by map', self.table)}"


def counting(
    model: str = "llama-3.2-1b",
    rank: int = 16,
    targets: str | Sequence[str] = "all-linear",
    dora: bool = False,
) -> Counting:
    """What a model holds and what its adapters train.

    Raises:
        SetupError: an unknown model.
    """
    return Counting(ModelShape.from_config(model), rank, targets, dora)


def explorer() -> Explorer:
    """The calculator under controls."""
    models = [(name, name) for name in ModelShape.presets()]
    adapters = [("LoRA", False), ("DoRA", True)]
    controls = [
        Menu("model", "model", models, "llama-3.2-1b"),
        Whole("rank", "rank", 1, 256, value=16),
        Menu("targets", "targets", list(TARGETS.items()), "all-linear"),
        Menu("dora", "adapter", adapters, False),
    ]
    return Explorer(controls, counting)
