"""The updates that an adapter is made of: a pair of factors for each adapted map.

    Update     scale * B @ A of one linear map, its layer and projection, its spectrum
    Adapter    all of them, by the full name of the map in the base

`labkit.adapter_files` reads them from files and models.
"""

import re
from dataclasses import dataclass

from torch import Tensor

from labkit.adapters import AdapterError
from labkit.spectra import Spectrum, spectrum

SEVEN = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class Update:
    """scale * B @ A of one linear map; with DoRA also the length of each row."""

    name: str
    A: Tensor  # (rank, in)
    B: Tensor  # (out, rank)
    scale: float
    magnitude: Tensor | None = None  # (out,)

    @property
    def rank(self) -> int:
        return len(self.A)

    @property
    def layer(self) -> int | None:
        """The number of its layer, if its name holds one."""
        return layer_of(self.name)

    @property
    def projection(self) -> str:
        """The last part of its name, such as q_proj."""
        return self.name.rpartition(".")[2]

    def spectrum(self) -> Spectrum:
        """Its singular values and directions."""
        return spectrum(self.A, self.B, self.scale)

    def __str__(self) -> str:
        out, into = len(self.B), self.A.shape[1]
        return f"{self.name}: {out} x {into}, rank {self.rank}, scale {self.scale:g}"

    __repr__ = __str__


@dataclass(frozen=True)
class Adapter:
    """Every update of an adapter, by the full name of its map in the base; by layer, and there as
    a layer of Llama uses its maps."""

    source: str
    updates: dict[str, Update]
    left_out: tuple[str, ...] = ()  # tensors that are no part of an update of a linear map

    @property
    def layers(self) -> list[int]:
        return sorted({u.layer for u in self.updates.values() if u.layer is not None})

    @property
    def projections(self) -> list[str]:
        """Their names, in the order of their updates."""
        return list(dict.fromkeys(u.projection for u in self.updates.values()))

    def at(self, layer: int, projection: str) -> Update:
        """The update of one projection in one layer.

        Raises:
            AdapterError: if the adapter has none there.
        """
        for update in self.updates.values():
            if (update.layer, update.projection) == (layer, projection):
                return update
        raise AdapterError(
            f"{self.source} has no update of {projection} in layer {layer}: it has "
            f"{', '.join(self.projections)} in layers {self.layers}"
        )

    def __str__(self) -> str:
        ranks = sorted({u.rank for u in self.updates.values()})
        numbers = sum(u.A.numel() + u.B.numel() for u in self.updates.values())
        more = f"; {len(self.left_out)} other tensors left out" if self.left_out else ""
        dora = ", DoRA" if any(u.magnitude is not None for u in self.updates.values()) else ""
        return (
            f"{self.source}: {len(self.updates)} updates{dora}, rank "
            f"{', '.join(map(str, ranks))}, {numbers:,} numbers{more}"
        )

    __repr__ = __str__


def place(name: str) -> tuple[int, int, str]:
    """Layers in their order, in each of them the projections of Llama in theirs."""
    layer, last = layer_of(name), name.rpartition(".")[2]
    place = SEVEN.index(last) if last in SEVEN else len(SEVEN)
    return -1 if layer is None else layer, place, name


def layer_of(name: str) -> int | None:
    """The number of the layer in the name of a map: the first number there."""
    found = re.search(r"\.(\d+)\.", f".{name}.")
    return int(found[1]) if found else None
