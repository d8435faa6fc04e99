"""Serving many adapters on one base: weights, slots and the cache of keys and values.

    weights     the base once, in 16 bits or packed
    slots       slots x L x sum over targets of r_max (in + out), allocated before any adapter comes
    cache       tokens x 2 L k bytes: a key and a value for each key-value head and layer

A slot is as large as the largest rank allowed, whatever the rank of the adapter in it. Adapters
without a slot wait on the host or on disk. Left out: activations of a forward pass, the engine's
own graphs, and tensor parallelism.

Source: vllm/lora/layers/base_linear.py, create_lora_weights; max_loras, max_lora_rank.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from labkit.memory.parts import adapter_parameters, weight_bytes
from labkit.memory.setup import DTYPES
from labkit.memory.shapes import ModelShape, SetupError

BASES = ("bfloat16", "float16", "float32", "nf4")


@dataclass(frozen=True)
class Serving:
    """Bytes on the GPU by kind, and what stands beside it."""

    kinds: dict[str, int]
    adapter: int  # bytes of one adapter, as it is saved in 16 bits
    adapters: int
    merged: int  # bytes of as many merged models as there are adapters

    @property
    def total(self) -> int:
        """Bytes on the GPU."""
        return sum(self.kinds.values())

    @property
    def stored(self) -> int:
        """Bytes of all adapters on disk."""
        return self.adapter * self.adapters


def serving(
    shape: ModelShape,
    adapters: int = 50,
    rank: int = 16,
    *,
    max_rank: int | None = None,
    slots: int | None = None,
    targets: str | Sequence[str] = "all-linear",
    base: str = "bfloat16",
    cache_dtype: str = "bfloat16",
    requests: int = 16,
    tokens: int = 2048,
) -> Serving:
    """Bytes to serve `adapters` adapters of one rank from one base.

    Args:
        max_rank: the rank that a slot is made for; the adapters' own where it is None.
        slots: adapters on the GPU at one time; all of them where it is None.
        base: precision of the frozen weights, "nf4" for 4 bits with double quantisation.
        requests, tokens: sequences at one time, and the longest of them in tokens.

    Raises:
        SetupError: names the field, the value and the range.
    """
    max_rank, slots = max_rank or rank, adapters if slots is None else slots
    numbers = {"adapters": adapters, "rank": rank, "requests": requests, "tokens": tokens}
    for name, value in numbers.items():
        _whole(name, value, 1)
    _whole("slots", slots, 0)
    _whole("max_rank", max_rank, rank)
    if tokens > shape.max_length:
        raise SetupError(f"tokens={tokens}: 1 to {shape.max_length} for {shape.name}")
    if base not in BASES:
        raise SetupError(f"base={base!r}: one of {', '.join(BASES)}")
    if cache_dtype not in DTYPES:
        raise SetupError(f"cache_dtype={cache_dtype!r}: one of {', '.join(DTYPES)}")
    weights = weight_bytes(shape) if base == "nf4" else DTYPES[base] * shape.parameters
    kinds = {
        "base": weights,
        "adapter slots": 2 * slots * adapter_parameters(shape, max_rank, targets),
        "keys and values": requests * tokens * cache_per_token(shape, DTYPES[cache_dtype]),
    }
    one = 2 * adapter_parameters(shape, rank, targets)
    return Serving(kinds, one, adapters, adapters * weights)


def cache_per_token(shape: ModelShape, itemsize: int = 2) -> int:
    """Bytes that one token leaves in the cache: a key and a value in each layer."""
    return 2 * shape.layers * shape.kv_heads * shape.head_dim * itemsize


def _whole(name: str, value: object, least: int) -> None:
    if type(value) is not int or value < least:
        raise SetupError(f"{name}={value!r}: a whole number, at least {least}")
