"""Bytes of a model's parameters by kind, and the bytes that training holds for them.

bytes_of      linear maps, embeddings, norms of a model at hand
held_bytes    weights, gradients and Adam's moments, from two counts
"""

from dataclasses import dataclass

import torch

from labkit.table import Table


@dataclass(frozen=True)
class Bytes:
    """Bytes of a model's parameters by kind; in 4 bits `linear` holds codes and constants."""

    linear: int
    embeddings: int
    other: int

    @property
    def total(self) -> int:
        return self.linear + self.embeddings + self.other

    def __str__(self) -> str:
        parts = (f"{name} {n / 2**20:.2f}" for name, n in vars(self).items() if n)
        return f"{self.total / 2**20:.2f} MiB ({', '.join(parts)})"


def bytes_of(model: torch.nn.Module) -> Bytes:
    """Bytes that the parameters hold; a tied embedding counts once."""
    maps = [m for m in model.modules() if isinstance(m, torch.nn.Linear)]
    linear = {id(p) for m in maps for p in m.parameters()}
    kinds = {"linear": 0, "embeddings": 0, "other": 0}
    for name, p in model.named_parameters():
        kind = "embeddings" if "embed" in name else "linear" if id(p) in linear else "other"
        kinds[kind] += p.numel() * p.element_size()
        state = getattr(p, "quant_state", None)
        while state is not None:  # double quantisation: the constants have constants
            kinds[kind] += state.absmax.numel() * state.absmax.element_size()
            state = state.state2
    return Bytes(**kinds)


def compared(before: Bytes, after: Bytes) -> Table:
    """Two models' bytes side by side, in MiB."""
    names = {"linear": "linear maps", "embeddings": "embeddings", "other": "norms", "total": "all"}
    rows = [
        (said, f"{getattr(before, kind) / 2**20:.2f}", f"{getattr(after, kind) / 2**20:.2f}")
        for kind, said in names.items()
    ]
    return Table(("parameters", "as it is, MiB", "NF4, MiB"), rows)


def held_bytes(frozen: int, trained: int) -> tuple[int, int, int]:
    """Bytes of weights, of gradients and of Adam's moments, in this order.

    Frozen numbers rest in bfloat16; trained ones are float32, with their gradients and moments.
    """
    return 2 * frozen + 4 * trained, 4 * trained, 2 * 4 * trained
