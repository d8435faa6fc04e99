"""Other formulas for the same question, so that the same rows can judge them.

Each takes a shape and a setup and returns bytes; what its inputs cannot say is left out by it, and
that is the point. The popular lessons' calculators ask for billions of parameters, rank, layers and
width alone; "16 bytes a parameter" asks for nothing else at all.
"""

import math
from collections.abc import Callable

from labkit.memory.parts import adapter_parameters
from labkit.memory.setup import TrainingSetup
from labkit.memory.shapes import ModelShape

MODULES = 7  # what a lesson's calculator takes for the adapted maps of a layer, all hidden x hidden


def sixteen_bytes(shape: ModelShape, setup: TrainingSetup) -> int:
    """16 bytes a parameter that trains, and the frozen ones as they are stored.

    Two for the weight, two for its gradient, twelve for Adam in mixed precision (ZeRO, section 3.1,
    https://arxiv.org/abs/1910.02054). Activations and logits are left out.
    """
    if not setup.adapted:
        return 16 * shape.parameters
    trained = adapter_parameters(shape, setup.rank, setup.targets)
    stored = shape.parameters // 2 if setup.quantized else 2 * shape.parameters
    return stored + 16 * trained


def lesson(shape: ModelShape, setup: TrainingSetup) -> int:
    """A popular lesson's calculator for QLoRA.

    Half a byte a parameter, 3% off it for double quantisation; every adapted map hidden x hidden;
    2 + 2 + 8 bytes an adapter parameter; and the square root of the layers as checkpoints.
    """
    base = shape.parameters / 2 * 0.97
    adapters = shape.layers * MODULES * 2 * setup.rank * shape.hidden
    checkpoints = math.ceil(math.sqrt(shape.layers)) * setup.tokens * shape.hidden * 2
    return round(base + 12 * adapters + checkpoints)


def base_and_a_fifth(shape: ModelShape, setup: TrainingSetup) -> int:
    """Another lesson's: the frozen weights at their bits, and a fifth for everything else."""
    return round(1.2 * shape.parameters * (0.5 if setup.quantized else 2))


def gpu_poor(shape: ModelShape, setup: TrainingSetup) -> int:
    """RahulSChand/gpu_poor, src/App.js at ad2fc0e: its formulas as read, its 650 MB included.

    It counts no grouped heads, no tied embedding and no logits; its LoRA has rank 8 on one pair of
    maps a layer, its scores are quadratic whatever the kernel, its checkpointing keeps 15%.
    """
    h, layers, inner, half = shape.hidden, shape.layers, shape.intermediate, 2
    length = setup.seq_len
    n = 2 * shape.vocab * h + 4 * layers * h * h + 3 * layers * inner * h
    attention = 8 * length * h * half + length**2 * shape.heads * (2 * half + 4)
    rest = 2 * length * h * half + 6 * length * inner * half + 8 * length + 6 * length * h * half
    kept = (attention + rest) * layers * setup.batch * (0.15 if setup.checkpointing else 1)
    overhead = 650 * 10**6
    if not setup.adapted:
        return round(n * half * (1 + 1 + 2) + kept + overhead)
    if not setup.quantized:
        return round(n * half + layers * 8 * h * 2 * 4 * 3 * 2 + kept + overhead)
    fit = 0.75 * (15 * h + 6 * inner) * layers * 50 * math.sqrt(length / 50) * setup.batch
    weights = 2 * n / 4 - 2 * n / 64 + 0.06 * 2 * n
    return round(weights + layers * 8 * h * 0.5 * 4 * 3 + fit + kept + overhead)


RIVALS: dict[str, Callable[[ModelShape, TrainingSetup], int]] = {
    "a lesson's calculator": lesson,
    "a lesson's base x 1.2": base_and_a_fifth,
    "16 bytes a parameter": sixteen_bytes,
    "gpu_poor": gpu_poor,
}
MEANT = {  # the methods that a formula speaks of; the others are asked about every row
    "a lesson's calculator": ("qlora",),
    "a lesson's base x 1.2": ("lora", "qlora"),
    "gpu_poor": ("full", "lora", "qlora"),
}


def asked(name: str, setup: TrainingSetup) -> bool:
    """Whether a formula speaks of this setup's method."""
    return setup.method in MEANT.get(name, (setup.method,))
