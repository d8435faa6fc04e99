"""Counts the bytes of every tensor that is alive, by kind, as operations run.

A dispatch mode sees each operation after autograd has made it out of the model's code, forward and
backward alike. Each new storage adds its bytes, rounded up to 512 as PyTorch's CUDA allocator does;
a weak reference takes them off when the storage dies. What happens inside one kernel is not seen.

Source of the method: torch.distributed._tools.mem_tracker, MemTracker.
"""

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from labkit.memory.breakdown import KINDS
from labkit.memory.shapes import ModelShape

ROUND = 512  # bytes; c10/core/AllocatorConfig.h, kMinBlockSize


def rounded(size: int) -> int:
    return -(-size // ROUND) * ROUND


class Tracker(TorchDispatchMode):
    """Bytes alive by kind; `peak_kinds` is their copy at the fullest moment since `restart`."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        maps = set(shape.projections.values()) | {(shape.vocab, shape.hidden)}
        self.maps = maps | {(wide, out) for out, wide in maps}
        self.vocab = shape.vocab
        self.kinds = dict.fromkeys(KINDS, 0)
        self.owned: tuple[int, ...] = ()  # shape of a gradient that is added to in place
        self.total = 0
        self.alive: dict[int, tuple[int, str]] = {}  # a storage's number -> bytes and kind
        self.numbers: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
        self.count = 0
        self.restart()

    def restart(self) -> None:
        """Forget the fullest moment; begin anew from what is alive."""
        self.peak, self.peak_kinds = self.total, dict(self.kinds)

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: tuple[type, ...],
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> Any:  # noqa: ANN401
        if self.added_in_place(func, args):
            return args[0]
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self.see(leaf, self.kind_of(leaf))
        return out

    def added_in_place(self, func: torch._ops.OpOverload, args: tuple[Any, ...]) -> bool:
        """Whether autograd adds a second gradient into the first: never for a tensor subclass,
        such as a fake one, but for a table's gradient that a fused loss has handed over."""
        if not self.owned or func is not torch.ops.aten.add.Tensor or torch.is_grad_enabled():
            return False
        return all(getattr(each, "shape", None) == self.owned for each in args[:2])

    def kind_of(self, tensor: torch.Tensor) -> str:
        """What a new tensor is, by its shape: a table over the vocabulary, a weight, or neither."""
        shape = tuple(tensor.shape)
        if shape in self.maps:
            return "dequantisation"
        if shape and shape[-1] in (self.vocab, 32768) and self.vocab > 2:
            return "logits"
        return "activations"

    def see(self, tensor: torch.Tensor, kind: str) -> None:
        """Count a tensor's storage, unless it is counted already."""
        storage = tensor.untyped_storage()
        if storage in self.numbers:
            return
        self.count += 1
        self.numbers[storage] = self.count
        weakref.finalize(storage, self._gone, self.count)
        self._add(rounded(storage.nbytes()), kind)
        self.alive[self.count] = (rounded(storage.nbytes()), kind)

    def name(self, tensors: Iterable[torch.Tensor], kind: str) -> None:
        """Say what kind tensors are that were counted as something else, or not yet."""
        for tensor in tensors:
            self.see(tensor, kind)
            number = self.numbers[tensor.untyped_storage()]
            size, before = self.alive[number]
            self.kinds[before] -= size
            self.kinds[kind] += size
            self.alive[number] = (size, kind)

    def _gone(self, number: int) -> None:
        size, kind = self.alive.pop(number)
        self._add(-size, kind)

    def _add(self, size: int, kind: str) -> None:
        self.total += size
        self.kinds[kind] += size
        if self.total > self.peak:
            self.peak, self.peak_kinds = self.total, dict(self.kinds)
