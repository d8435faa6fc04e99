"""What other calculators say, for the same shape and setup: so that an error can be compared.

    name                          source
    "16 bytes a parameter"        a rule of lessons and of DeepSpeed's memory page, for full
                                  fine-tuning: weights, gradients, two moments in float32
    "a lesson: base x 1.2"        weights at their bits, and a fifth for everything else
    "a lesson: QLoRA by parts"    half a byte a parameter, adapters as wide as the hidden size, and
                                  the root of the layers as checkpoints
    "gpu_poor"                    RahulSChand/gpu_poor at ad2fc0e, src/App.js: LoRA and QLoRA

Each is written from its formula, with its own mistakes, and is asked only for the methods that it
speaks of. None has a term for the table of logits; gpu_poor asks for no rank and takes 8.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from labkit.memory.setup import TrainingSetup
from labkit.memory.shapes import ModelShape

MB = 2**20


@dataclass(frozen=True)
class Rival:
    """A way to predict a peak, and the methods for which it is meant."""

    bytes: Callable[[ModelShape, TrainingSetup], float]
    methods: tuple[str, ...]


def sixteen(shape: ModelShape, setup: TrainingSetup) -> float:
    """Weights, gradients and two moments in float32, whatever trains."""
    return 16 * shape.parameters


def base_and_a_fifth(shape: ModelShape, setup: TrainingSetup) -> float:
    """The frozen base at 4 or 16 bits, and 20% for everything else."""
    return shape.parameters * (0.5 if setup.quantized else 2) * 1.2


def by_parts(shape: ModelShape, setup: TrainingSetup) -> float:
    """A lesson's function for QLoRA: base, adapters with moments and gradients, checkpoints."""
    base = shape.parameters * (0.5 if setup.quantized else 2)
    adapters = shape.layers * 7 * 2 * setup.rank * shape.hidden
    checkpoints = math.ceil(math.sqrt(shape.layers))
    return base * 0.97 + adapters * (2 + 8 + 2) + checkpoints * setup.tokens * shape.hidden * 2


def gpu_poor(shape: ModelShape, setup: TrainingSetup) -> float:
    """RahulSChand/gpu_poor, training on Hugging Face with Adam, every term of it."""
    h, i, layers = shape.hidden, shape.intermediate, shape.layers
    n, wide = 2 * shape.vocab * h + 4 * layers * h * h + 3 * layers * h * i, 2
    s, batch = setup.seq_len, setup.batch
    attention = 8 * s * h * wide + s * s * shape.heads * (2 * wide + 4)
    mlp, norms = 2 * s * h * wide + 6 * s * i * wide, 8 * s + 6 * s * h * wide
    activations = (attention + mlp + norms) * layers * batch
    activations *= 0.15 if setup.checkpointing else 1
    if not setup.adapted:
        return n * wide + 3 * n * wide + activations + 650 * MB
    trained = layers * 8 * h
    if not setup.quantized:
        return n * wide + trained * 2 * 4 * 3 * 2 + activations + 650 * MB
    weights = 2 * n / 4 - 2 * n / 64 + 0.06 * 2 * n
    extra = 0.75 * (15 * h + 6 * i) * layers * 50 * math.sqrt(s / 50) * batch
    return weights + trained * 0.5 * 4 * 3 + extra + activations + 650 * MB


RIVALS = {
    "gpu_poor": Rival(gpu_poor, ("full", "lora", "qlora")),
    "a lesson: QLoRA by parts": Rival(by_parts, ("qlora",)),
    "a lesson: base x 1.2": Rival(base_and_a_fifth, ("lora", "qlora")),
    "16 bytes a parameter": Rival(sixteen, ("full",)),
}
