"""The cost calculator: hours and money, from a measured speed or from a share of a card's peak.

price("llama-3.2-1b", "H200", examples=10_000, length=400, epochs=3)
"""

from dataclasses import dataclass
from html import escape

from labkit.budget.page import section
from labkit.budget.speeds import reached
from labkit.explore import Explorer, Menu, Real, Whole
from labkit.memory import (
    Cost,
    Gpu,
    ModelShape,
    SetupError,
    TrainingSetup,
    cost,
    gpu,
    gpus,
    roofline,
)
from labkit.memory.setup import METHODS
from labkit.table import Table


def _said(value: float) -> str:
    """Two decimals, or what is more than nothing and would round to it."""
    return f"{value:,.2f}" if not 0 < value < 0.005 else "less than 0.01"


@dataclass(frozen=True)
class Price:
    """Hours and money of one run."""

    shape: ModelShape
    card: Gpu
    share: float  # of the card's peak
    bound: float  # tokens a second at the whole peak
    run: Cost
    priced: str  # where the price comes from

    @property
    def headline(self) -> str:
        return (
            f"{_said(self.run.hours)} hours and {_said(self.run.dollars)} dollars on one "
            f"{self.card.name}, at {self.run.tokens_per_second:,.0f} tokens a second"
        )

    @property
    def table(self) -> Table:
        """How the numbers come about."""
        rows = [
            ("tokens in all", f"{self.run.tokens:,}"),
            ("bound by arithmetic, tokens/s", f"{self.bound:,.0f}"),
            ("share of it that is reached", f"{self.share:.0%}"),
            ("speed, tokens/s", f"{self.run.tokens_per_second:,.0f}"),
            ("dollars an hour", f"{self.run.dollars_per_hour:,.2f}"),
            ("price from", self.priced),
        ]
        return Table(("", "value"), rows)

    def __str__(self) -> str:
        return f"{self.headline}\n{self.table}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        said = f'<p role="status"><strong>{escape(self.headline)}.</strong></p>'
        return said + section("How it comes about", self.table)


def price(
    model: str = "llama-3.2-1b",
    card: str = "H200",
    method: str = "qlora",
    checkpointing: bool = True,
    examples: int = 10_000,
    length: int = 512,
    epochs: int = 3,
    share: float | None = None,
    dollars: float = 0.0,
) -> Price:
    """Hours and money to train on `examples` of `length` tokens.

    Args:
        share: of the card's peak; None: what TRL reached in the measured row.
        dollars: an hour; 0: the dated price of the catalogue.

    Raises:
        SetupError: names the field, the value and the range; also where no price is known.
    """
    shape, held = ModelShape.from_config(model), gpu(card)
    setup = TrainingSetup(method=method, checkpointing=checkpointing, seq_len=length)
    known = held.dollars is not None
    if not dollars and not known:
        raise SetupError(f"dollars={dollars!r}: set a price; the catalogue has none for {card}")
    share = reached() if share is None else share
    speed = roofline(shape, setup, held, share)
    run = cost(examples * length * epochs, speed, dollars or held.dollars)
    priced = "you" if dollars else held.priced
    return Price(shape, held, share, roofline(shape, setup, held), run, priced)


def explorer() -> Explorer:
    """The calculator under controls."""
    controls = [
        Menu("model", "model", [(name, name) for name in ModelShape.presets()], "llama-3.2-1b"),
        Menu("card", "GPU", [(one.name, one.name) for one in gpus()], "H200"),
        Menu("method", "method", [(name, name) for name in METHODS], "qlora"),
        Menu("checkpointing", "checkpointing", [("on", True), ("off", False)], True),
        Whole("examples", "examples", 100, 100_000, value=10_000, step=100),
        Whole("length", "tokens each", 64, 8192, value=512, step=64),
        Whole("epochs", "epochs", 1, 10, value=3),
        Real("share", "share of peak", 0.01, 0.6, value=round(reached(), 2), step=0.01),
        Real("dollars", "dollars an hour", 0.0, 20.0, value=0.0, step=0.05),
    ]
    return Explorer(controls, price)
