"""A base whose linear maps hold slots: adapters are read into them and chosen row by row.

    bank = Bank(model, slots=8, rank=16)
    bank.put("ada", read(folder))                  into a free slot, or the one used longest ago
    with bank.chosen(["ada", "bob", None]):        three rows, the last one the base's
        model.generate(...)

    slots x L x sum over targets of rank (in + out) numbers, taken before any adapter comes

One thread at a time: `chosen` says for the whole model whose row is whose.
Left out on purpose: DoRA (its magnitude has no slot: merge it), beams, and adapters of embeddings.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from labkit import lora
from labkit.adapters import AdapterError, check_base, read_card
from labkit.interchange import read_tensors
from labkit.models import Loaded
from labkit.serve.gather import GatherLinear, Rows


@dataclass(frozen=True)
class Factors:
    """One adapter in memory: by the name of each map, A (rank, in) and B (out, rank)."""

    rank: int
    scale: float
    maps: dict[str, tuple[Tensor, Tensor]]

    @property
    def nbytes(self) -> int:
        return sum(t.nbytes for pair in self.maps.values() for t in pair)


def read(folder: Path, base: Loaded | None = None, other_base: bool = False) -> Factors:
    """The adapter in `folder`, on the CPU; with `base`, only if its card names that base.

    Raises:
        AdapterError: no card, another base, a damaged file, or DoRA.
    """
    if base is not None:
        check_base(folder, read_card(folder), base, other_base)
    said, tensors = read_tensors(folder)
    if said.dora:
        raise AdapterError(
            f"{folder.name} is DoRA, whose magnitude has no slot: merge it into a base of its own"
        )
    pairs = {
        name: (found["lora_A.weight"], found["lora_B.weight"]) for name, found in tensors.items()
    }
    return Factors(said.rank, said.alpha / said.rank, pairs)


class Bank:
    """A model with slots in its linear maps, and the names of what is in them.

    Args:
        model: changed in place: each map that `targets` name gets slots.
        rank: the largest rank that it takes; every slot is made for it.

    Raises:
        ValueError: if there is no slot, or a target matches nothing.
    """

    def __init__(
        self, model: nn.Module, slots: int = 8, rank: int = 16, targets: lora.Targets = "all-linear"
    ) -> None:
        if slots < 1 or rank < 1:
            raise ValueError(f"slots={slots}, rank={rank}: each at least 1")
        self.model, self.slots, self.rank, self.rows = model, slots, rank, Rows()
        like = next(p for p in model.parameters() if p.is_floating_point())
        self.maps = {
            name: GatherLinear(model.get_submodule(name), slots, rank, self.rows, like)
            for name in lora.matches(model, targets)
        }
        model.requires_grad_(False)
        for name, layer in self.maps.items():
            model.set_submodule(name, layer.train(model.training))
        self._held: dict[str, int] = {}  # name to slot, the one used longest ago first

    @property
    def held(self) -> list[str]:
        """Names of the adapters in slots, the one used longest ago first."""
        return list(self._held)

    @property
    def nbytes(self) -> int:
        """Bytes of all slots, full or empty."""
        return sum(m.A.nbytes + m.B.nbytes + m.scales.nbytes for m in self.maps.values())

    def put(self, name: str, factors: Factors, keep: Sequence[str | None] = ()) -> int:
        """Write an adapter into its slot, a free one, or that used longest ago; returns the slot.

        Args:
            keep: names whose slots must stay.

        Raises:
            AdapterError: too large a rank, unknown maps, other shapes, or no slot to take.
        """
        self._check(name, factors)
        slot = self._slot(name, keep)
        for key, layer in self.maps.items():
            if key in factors.maps:
                layer.put(slot, *factors.maps[key], factors.scale)
            else:
                layer.scales[slot] = 0
        self._held[name] = slot
        return slot

    def drop(self, name: str) -> None:
        """Free the slot of an adapter."""
        del self._held[name]

    @contextmanager
    def chosen(self, names: Sequence[str | None]) -> Iterator[nn.Module]:
        """Within it, row i of a batch is answered by adapter names[i]; None is the base.

        Raises:
            AdapterError: if an adapter is in no slot.
        """
        if lost := [n for n in names if n is not None and n not in self._held]:
            raise AdapterError(f"{lost[0]!r} is in no slot; there are: {', '.join(self.held)}")
        for name in filter(None, names):
            self._held[name] = self._held.pop(name)  # now the one used last
        slots = [-1 if name is None else self._held[name] for name in names]
        device = next(iter(self.maps.values())).scales.device
        self.rows.which = torch.tensor(slots, device=device)
        try:
            yield self.model
        finally:
            self.rows.which = None

    def _slot(self, name: str, keep: Sequence[str | None]) -> int:
        if name in self._held:
            return self._held.pop(name)
        if free := set(range(self.slots)) - set(self._held.values()):
            return min(free)
        for old in self._held:
            if old not in keep:
                return self._held.pop(old)
        raise AdapterError(f"all {self.slots} slots are in use: take fewer adapters in one batch")

    def _check(self, name: str, factors: Factors) -> None:
        if factors.rank > self.rank:
            raise AdapterError(
                f"{name!r} has rank {factors.rank}, a slot takes {self.rank}: make the bank with "
                f"rank={factors.rank}"
            )
        for key, (A, B) in factors.maps.items():
            if key not in self.maps:
                raise AdapterError(f"{name!r} adapts {key}, which has no slots in this bank")
            layer = self.maps[key]
            found = (B.shape[0], A.shape[1])
            if found != (layer.out_features, layer.in_features):
                raise AdapterError(
                    f"{name!r} has {found} at {key}, the base "
                    f"{(layer.out_features, layer.in_features)}: it belongs to another base"
                )
