"""The parts of the total, each a function short enough to be an exercise.

Bytes unless said otherwise; h hidden, i intermediate, q and k the widths of queries and keys,
r rank, V vocabulary, T tokens of a micro-batch. Standard library only.
"""

import math
from collections.abc import Iterable, Sequence

from labkit.memory.shapes import ModelShape


def parameters(shape: ModelShape) -> int:
    """All parameters of a Llama: embedding, layers, last norm, and the head unless it is tied."""
    h, i = shape.hidden, shape.intermediate
    q, k = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    attention = 2 * h * q + 2 * h * k  # q and o, k and v
    mlp = 3 * h * i  # gate, up, down
    norms = 2 * h
    layer = attention + mlp + norms + shape.extras
    tables = 1 if shape.tied else 2
    return shape.layers * layer + h + tables * shape.vocab * h


def weight_bytes(shape: ModelShape, double: bool = True, prepared: bool = False) -> int:
    """Bytes of a frozen base at rest: the projections in 4 bits, all else in 16 bits.

    Args:
        double: quantise the scales: one byte each, and a float32 for every 256 of them.
        prepared: prepare_model_for_kbit_training ran, so all that is not packed is float32.
    """
    packed = 0
    for out, wide in shape.projections.values():
        blocks = math.ceil(out * wide / 64)
        scales = blocks + 4 * math.ceil(blocks / 256) if double else 4 * blocks
        packed += out * wide // 2 + scales
    rest = shape.parameters - shape.linear
    return shape.layers * packed + rest * (4 if prepared else 2)


def adapter_parameters(
    shape: ModelShape, rank: int, targets: str | Sequence[str] = "all-linear", dora: bool = False
) -> int:
    """Trained parameters: A (rank, in) and B (out, rank) for each target of each layer.

    Args:
        targets: "all-linear", all seven projections, or their names.
        dora: one magnitude more for each output.
    """
    names = shape.projections if targets == "all-linear" else targets
    sizes = [shape.projections[name] for name in names]  # (out, in)
    layer = sum(rank * (out + wide) + (out if dora else 0) for out, wide in sizes)
    return shape.layers * layer


def optimizer_bytes(sizes: Iterable[int], optimizer: str, itemsize: int) -> int:
    """Bytes of the optimizer's state that the GPU's allocator holds.

    Args:
        sizes: how many numbers each trained tensor has.
        optimizer: "adamw", "adamw_8bit", "paged_adamw_32bit" or "sgd".
        itemsize: bytes of one trained number; the moments of torch's AdamW are as wide.
    """
    total = 0
    for n in sizes:
        if optimizer == "adamw":
            total += 2 * itemsize * n
        elif optimizer == "adamw_8bit" and n >= 4096:
            total += 2 * (n + 4 * math.ceil(n / 256))  # a float32 scale for each 256 codes
        elif optimizer == "adamw_8bit" or (optimizer == "paged_adamw_32bit" and n < 100_000):
            total += 2 * 4 * n  # small tensors keep float32 moments on the GPU
    return total


def saved_per_token(shape: ModelShape, rank: int) -> int:
    """Bytes that one layer keeps for backward, per token: the leanest case.

    Everything in 16 bits, adapters on all seven maps, fused attention, no dropout, no padding.
    """
    h, i = shape.hidden, shape.intermediate
    q, k = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    norms = 2 * (4 * h + 4) + 2 * (2 * h)  # a float32 copy, 1 / rms, and what the maps read
    attention = 2 * (2 * q + 2 * k) + 4 * shape.heads  # q, k, v, output; log-sum-exp in float32
    mlp = 4 * (2 * i)  # gate, silu(gate), up, their product
    adapters = 7 * (2 * rank)  # A x of every target
    return norms + attention + mlp + adapters


def logits_bytes(tokens: int, vocab: int) -> int:
    """Bytes of the loss at its fullest: log-softmax, its gradient, the gradient of the logits."""
    tables, float32 = 3, 4
    return tables * float32 * tokens * vocab


def dequantised_bytes(shape: ModelShape) -> int:
    """Bytes to unpack the largest 4-bit map: 16-bit weights and their float32 constants.

    Only one map at a time stands unpacked.
    """
    largest = max(out * wide for out, wide in shape.projections.values())
    return 2 * largest + 4 * (largest // 64)


def peak(phases: dict[str, dict[str, int]]) -> tuple[str, int]:
    """The fullest phase and its bytes: the largest sum, not the sum of the largest."""
    name = max(phases, key=lambda phase: sum(phases[phase].values()))
    return name, sum(phases[name].values())
