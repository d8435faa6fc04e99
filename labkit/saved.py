"""Bytes that a forward pass keeps for the backward pass, each storage counted once.

    with saved() as kept:
        y = layer(x)
    kept().activations      bytes beside the parameters

PyTorch hands every tensor it keeps for the backward pass to a hook. Two layers that read the same
input keep one storage, so storages are counted, not tensors; a parameter that is kept costs
nothing more, since it is there anyway. What a custom autograd function puts on `ctx` without
`save_for_backward` never meets the hook and is not counted.

Source: torch.autograd.graph.saved_tensors_hooks.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Saved:
    """Bytes kept for the backward pass, by what holds them."""

    activations: int
    parameters: int  # kept too, but they exist without a backward pass

    def __str__(self) -> str:
        return f"{self.activations / 2**20:.2f} MiB of activations kept for the backward pass"

    __repr__ = __str__


@contextmanager
def saved(model: nn.Module | None = None) -> Iterator[Callable[[], Saved]]:
    """Within it, what autograd keeps is noted; the callable says how much, also after the block.

    Args:
        model: its parameters and buffers are counted apart from the activations.
    """
    held = (
        set() if model is None else {_storage(t) for t in (*model.parameters(), *model.buffers())}
    )
    found: dict[int, int] = {}
    alive: list[torch.UntypedStorage] = []  # else a freed address could be counted as another's

    def note(tensor: Tensor) -> Tensor:
        alive.append(tensor.untyped_storage())
        found[_storage(tensor)] = tensor.untyped_storage().nbytes()
        return tensor.detach()  # the tensor itself would hold the graph that holds it, for ever

    def total() -> Saved:
        inside = sum(n for address, n in found.items() if address in held)
        return Saved(sum(found.values()) - inside, inside)

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        yield total
    alive.clear()


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
