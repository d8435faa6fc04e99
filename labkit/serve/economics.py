"""What one tenant costs: a share of the base, and an adapter of its own.

    a tenant = base / tenants + width * numbers            one base, many adapters
    a tenant = base                                        a merged model each

Bytes become money by the cards they need: a card holds its memory times `share`, the rest is left
to keys and values and to the engine. A card is paid for whether requests come or not.
Prices are those of data/gpus.json, with their date and source.
Left out on purpose: traffic. A card that is busy needs a second one before its memory is full.
"""

import math
from dataclasses import dataclass

from labkit.memory import Gpu, ModelShape, SetupError, gpu, serving
from labkit.table import Table

HOURS = 730  # in a month: 365.25 / 12 days, rounded


def tenant_gib(base_bytes: int, numbers: int, tenants: int, width: int = 2) -> float:
    """GiB of one tenant on a base that all of them share.

    Args:
        base_bytes: bytes of the base, held once.
        numbers: trained numbers of one adapter.
        width: bytes of each number; 2 in 16 bits.
    """
    return (base_bytes / tenants + width * numbers) / 2**30


@dataclass(frozen=True)
class Way:
    """One way to hold all tenants."""

    name: str
    bytes: int  # on the GPUs, keys and values left out
    cards: int
    tenants: int
    dollars_per_hour: float

    @property
    def tenant(self) -> float:
        """Bytes of one tenant."""
        return self.bytes / self.tenants

    @property
    def monthly(self) -> float:
        """Dollars of one tenant in a month."""
        return self.cards * self.dollars_per_hour * HOURS / self.tenants


@dataclass(frozen=True)
class Tenancy:
    """So many tenants on one kind of card, by the two ways."""

    tenants: int
    adapter: int  # bytes of one adapter in 16 bits
    gpu: Gpu
    shared: Way
    merged: Way

    @property
    def table(self) -> Table:
        rows = [
            (
                way.name,
                f"{way.bytes / 2**30:,.1f}",
                f"{way.tenant / 2**30:.3f}",
                f"{way.cards:,}",
                f"{way.monthly:,.2f}",
            )
            for way in (self.shared, self.merged)
        ]
        head = ("way", "GiB", "GiB a tenant", f"{self.gpu.name}s", "dollars a tenant, a month")
        return Table(head, rows)

    def __str__(self) -> str:
        return f"{self.tenants:,} tenants\n{self.table}\nprice: {self.gpu.priced}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.table._repr_html_()


def tenancy(
    model: str, tenants: int, card: str = "A100 80GB", rank: int = 16, share: float = 0.8
) -> Tenancy:
    """What `tenants` adapters of one rank cost on a base in 16 bits.

    Args:
        card: a GPU of the catalogue that has a price.
        share: of its memory for weights and adapters; a merged model lies on one card.

    Raises:
        SetupError: names the field, the value and the range.
    """
    chosen = gpu(card)
    if chosen.dollars is None:
        raise SetupError(f"card={card!r} has no dated price: take another of the catalogue")
    if not 0 < share <= 1:
        raise SetupError(f"share={share!r}: above 0, at most 1")
    need = serving(ModelShape.from_config(model), tenants, rank)
    base, slots = need.kinds["base"], need.kinds["adapter slots"]
    room = int(chosen.usable * share)
    if room < base + need.adapter:
        raise SetupError(f"card={card!r} has {room / 2**30:.1f} GiB of room, {model} needs more")
    adapters = (room - base) // need.adapter  # on each card, beside its own copy of the base
    few, many = math.ceil(tenants / adapters), math.ceil(tenants / (room // base))
    return Tenancy(
        tenants,
        need.adapter,
        chosen,
        Way("one base, many adapters", few * base + slots, few, tenants, chosen.dollars),
        Way("a merged model each", tenants * base, many, tenants, chosen.dollars),
    )
