"""The closed form: every phase of one training step by arithmetic, in under a millisecond."""

import math

from labkit.memory.breakdown import KINDS, Breakdown
from labkit.memory.parts import (
    adapter_parameters,
    dequantised_bytes,
    logits_bytes,
    optimizer_bytes,
    peak,
    saved_per_token,
)
from labkit.memory.setup import DTYPES, TrainingSetup
from labkit.memory.shapes import ModelShape, SetupError

CUBLAS = 2 * 32 * 2**20
CONTEXT = 500 * 2**20


def reserved_of(top: int) -> int:
    """Bytes that PyTorch takes from the driver for a peak of `top` allocated bytes."""
    return round(1.05 * top)


def smi_of(top: int) -> int:
    """What nvidia-smi shows for it: reserved bytes and the CUDA context."""
    return reserved_of(top) + CONTEXT


def check(shape: ModelShape, setup: TrainingSetup) -> None:
    """Refuse a setup that this model cannot run."""
    if setup.seq_len > shape.max_length:
        raise SetupError(f"seq_len={setup.seq_len}: 2 to {shape.max_length} for {shape.name}")


def phases(shape: ModelShape, setup: TrainingSetup) -> dict[str, dict[str, int]]:
    """Bytes by kind at the fullest moment of each phase of the second step."""
    check(shape, setup)
    base, width = DTYPES[setup.base_dtype], DTYPES[setup.adapter_dtype]
    linear, every = shape.linear, shape.parameters
    tables = shape.vocab * shape.hidden * (1 if shape.tied else 2)
    stream = 4 if setup.quantized and setup.prepared else base
    resident = dict.fromkeys(KINDS, 0)
    resident["embeddings"] = stream * tables
    rest = every - linear - tables
    if setup.quantized:
        resident["weights"] = linear // 2 + stream * rest
        blocks = linear // 64
        resident["constants"] = blocks + 4 * math.ceil(blocks / 256)
        if not setup.double_quant:
            resident["constants"] = 4 * blocks
    else:
        resident["weights"] = base * (every - tables)
    sizes = [shape.hidden * shape.vocab, linear]
    trained = every
    if setup.adapted:
        trained = adapter_parameters(shape, setup.rank, setup.targets, setup.magnitudes)
        sizes = [
            setup.rank * n for name in setup.target_names for n in shape.projections[name]
        ] * shape.layers
        resident["adapters"] = width * trained
    else:
        width, sizes = base, [every]
    resident["optimizer"] = optimizer_bytes(sizes, setup.optimizer, width)
    resident["workspace"] = CUBLAS + 32 * setup.tokens
    grads = width * trained
    edge = stream * shape.hidden * setup.tokens
    layer = saved_per_token(shape, setup.rank) * setup.tokens
    kept = shape.layers * (edge if setup.checkpointing else layer)
    alive = resident | {"activations": kept}
    held = grads if setup.accumulation > 1 else 0
    head = logits_bytes(setup.tokens, shape.vocab)
    if setup.loss == "fused":
        head = 256 * 2**20 + 6 * shape.hidden * setup.tokens
    unpack = dequantised_bytes(shape) if setup.quantized else 0
    inner = 2 * shape.intermediate * setup.tokens
    return {
        "forward": alive | {"gradients": held, "dequantisation": unpack},
        "loss": alive | {"gradients": held, "logits": head},
        "backward": alive
        | {
            "gradients": grads,
            "activations": kept + (layer if setup.checkpointing else 0) + 2 * inner + edge,
            "dequantisation": unpack,
        },
        "optimizer": resident | {"gradients": grads},
    }


def estimate(shape: ModelShape, setup: TrainingSetup) -> Breakdown:
    """Bytes by kind at the peak of a training step, by arithmetic alone.

    Raises:
        SetupError: a sequence longer than the model's positions.
    """
    found = phases(shape, setup)
    phase, top = peak(found)
    return Breakdown(
        kinds=found[phase],
        phase=phase,
        reserved=reserved_of(top),
        smi=smi_of(top),
        engine="closed form",
        phases=found,
    )
