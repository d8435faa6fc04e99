"""The serving calculator: many adapters on one base, against as many merged models.

many("llama-3-8b", adapters=50, rank=16)
"""

from dataclasses import dataclass
from html import escape

from labkit.budget.bars import bars, gib, number
from labkit.budget.page import section
from labkit.explore import Explorer, Menu, Whole
from labkit.memory import ModelShape, Serving, fits, serving
from labkit.memory.serving import BASES
from labkit.table import Table


@dataclass(frozen=True)
class Many:
    """What one endpoint holds for many customers."""

    shape: ModelShape
    need: Serving

    @property
    def headline(self) -> str:
        need, base = self.need, self.need.kinds["base"]
        share = need.kinds["adapter slots"] / base
        n, s = need.adapters, "" if need.adapters == 1 else "s"
        return (
            f"{gib(need.total)} for {n} adapter{s} on one {self.shape.name}: the slots "
            f"add {share:.0%} to the base; {n} merged model{s} take{'' if s else 's'} "
            f"{gib(need.merged)}"
        )

    @property
    def picture(self) -> str:
        """One base with adapters, over as many merged models."""
        kinds = self.need.kinds
        shared = {"keys and values": kinds["keys and values"]}
        rows = {
            "one base, many adapters": kinds,
            "a merged model each": {"base": self.need.merged, "adapter slots": 0} | shared,
        }
        return bars(rows, f"{self.headline}.", marked="one base, many adapters")

    @property
    def table(self) -> Table:
        need = self.need
        rows = [(kind, number(n)) for kind, n in need.kinds.items()]
        rows += [
            ("together, on the GPU", number(need.total)),
            ("one adapter on disk", number(need.adapter)),
            ("all adapters on disk", number(need.stored)),
            ("a merged model each", number(need.merged)),
        ]
        return Table(("what", "GiB"), rows)

    @property
    def cards(self) -> Table:
        """Every GPU of the catalogue, and whether it holds the endpoint."""
        rows = [(f.gpu.name, number(f.gpu.bytes), f.verdict) for f in fits(self.need.total)]
        return Table(("GPU", "GiB", "this endpoint"), rows)

    def __str__(self) -> str:
        return "\n".join((self.headline, str(self.table), str(self.cards)))

    __repr__ = __str__

    def _repr_html_(self) -> str:
        said = f'<p role="status"><strong>{escape(self.headline)}.</strong></p>'
        tables = section("Part by part", self.table) + section("Will it fit?", self.cards)
        return f"{said}{self.picture}{tables}"


def many(model: str = "llama-3-8b", adapters: int = 50, rank: int = 16, **options: object) -> Many:
    """What one endpoint holds; `options` as `labkit.memory.serving` takes them.

    Raises:
        SetupError: names the field, the value and the range.
    """
    shape = ModelShape.from_config(model)
    return Many(shape, serving(shape, adapters, rank, **options))


def explorer() -> Explorer:
    """The calculator under controls."""
    models = [(name, name) for name in ModelShape.presets()]
    ranks = [("the adapters' own", None), *((f"{r}", r) for r in (16, 32, 64, 128, 256))]
    controls = [
        Menu("model", "model", models, "llama-3-8b"),
        Whole("adapters", "adapters", 1, 1000, value=50),
        Whole("rank", "rank", 1, 256, value=16),
        Menu("max_rank", "rank of a slot", ranks, None),
        Menu("base", "base weights", [(name, name) for name in BASES], "bfloat16"),
        Whole("requests", "requests at once", 1, 256, value=16),
        Whole("tokens", "tokens a request", 128, 32768, value=2048, step=128),
    ]
    return Explorer(controls, many)
