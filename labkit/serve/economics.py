"""What one tenant costs: a share of the base, and an adapter of its own.

    a tenant = base / tenants + width * numbers            one base, many adapters
    a tenant = base                                        a merged model each

Bytes become money by the cards they need: a card holds its memory times `share`, the rest is left
to keys and values and to the engine. A card is paid for whether requests come or not.
Left out on purpose: traffic. A card that is busy needs a second one before its memory is full.
"""

import math
from dataclasses import dataclass

from labkit.memory import ModelShape, serving
from labkit.memory.gpus import Gpu
from labkit.table import Table

HOURS = 730  # in a month of 365.25 / 12 days, rounded


def tenant_gib(base_bytes: int, numbers: int, tenants: int, width: int = 2) -> float:
    """GiB of one tenant on a base that all of them share.

    Args:
        base_bytes: bytes of the base, held once.
        numbers: trained numbers of one adapter.
        width: bytes of each number; 2 in 16 bits.
    """
    return (base_bytes / tenants + width * numbers) / 2**30


@dataclass(frozen=True)
class Tenancy:
    """So many tenants on one kind of card: bytes, cards and money a month, by the two ways."""

    tenants: int
    adapter: int  # bytes of one adapter in 16 bits
    shared: int  # bytes of the base with all adapters, without keys and values
    merged: int  # bytes of as many merged models
    gpu: Gpu
    dollars_per_hour: float
    share: float

    def cards(self, size: int, one: int = 1) -> int:
        """Cards that hold `size` bytes, made of pieces of `one` byte or more each."""
        room = int(self.gpu.bytes * self.share) // one * one
        return math.ceil(size / room)

    def monthly(self, cards: int) -> float:
        """Dollars of one tenant in a month, on so many cards for all of them."""
        return cards * self.dollars_per_hour * HOURS / self.tenants

    @property
    def base(self) -> int:
        return self.merged // self.tenants

    @property
    def table(self) -> Table:
        rows = []
        for way, size, one in (
            ("one base, adapters", self.shared, 1),
            ("a merged model each", self.merged, self.base),
        ):
            n = self.cards(size, one)
            gib = f"{size / 2**30:,.1f}", f"{size / 2**30 / self.tenants:.3f}"
            rows.append((way, *gib, f"{n}", f"{self.monthly(n):,.2f}"))
        return Table(("way", "GiB", "GiB a tenant", "cards", "dollars a tenant, a month"), rows)

    def __str__(self) -> str:
        return f"{self.tenants} tenants on {self.gpu.name}\n{self.table}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.table._repr_html_()


def tenancy(
    model: str,
    tenants: int,
    gpu: Gpu,
    dollars_per_hour: float,
    *,
    rank: int = 16,
    share: float = 0.8,
) -> Tenancy:
    """What `tenants` adapters of one rank cost on a base in 16 bits.

    Args:
        share: of a card's memory for weights and adapters.

    Raises:
        SetupError: names the field, the value and the range.
    """
    need = serving(ModelShape.from_config(model), tenants, rank)
    shared = need.kinds["base"] + need.kinds["adapter slots"]
    return Tenancy(tenants, need.adapter, shared, need.merged, gpu, dollars_per_hour, share)
