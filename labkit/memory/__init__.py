"""Where fine-tuning memory goes: three engines, one answer.

    shape = ModelShape.preset("llama-3.2-1b")
    setup = TrainingSetup(method="qlora", rank=16, batch=4, seq_len=1024)
    estimate(shape, setup)       closed form, under a millisecond, standard library only
    dry_run(shape, setup)        the real code on fake tensors, on any CPU
    measure(shape, setup)        on the GPU at hand

All three return a Breakdown: bytes by kind at the fullest moment of a step.
"""

from labkit.memory.breakdown import GIB, KINDS, Breakdown
from labkit.memory.closed_form import estimate, phases
from labkit.memory.engines import EngineError, dry_run, measure
from labkit.memory.gpus import Fit, Gpu, fits, gpu, gpus
from labkit.memory.parts import (
    adapter_parameters,
    dequantised_bytes,
    logits_bytes,
    optimizer_bytes,
    parameters,
    peak,
    saved_per_token,
    weight_bytes,
)
from labkit.memory.pricing import Cost, cost, roofline
from labkit.memory.serving import Serving, cache_per_token, serving
from labkit.memory.setup import STACKS, TrainingSetup
from labkit.memory.shapes import PROJECTIONS, ModelShape, SetupError

__all__ = [
    "GIB",
    "KINDS",
    "PROJECTIONS",
    "STACKS",
    "Breakdown",
    "Cost",
    "EngineError",
    "Fit",
    "Gpu",
    "ModelShape",
    "Serving",
    "SetupError",
    "TrainingSetup",
    "adapter_parameters",
    "cache_per_token",
    "cost",
    "dequantised_bytes",
    "dry_run",
    "estimate",
    "fits",
    "gpu",
    "gpus",
    "logits_bytes",
    "measure",
    "optimizer_bytes",
    "parameters",
    "peak",
    "phases",
    "roofline",
    "saved_per_token",
    "serving",
    "weight_bytes",
]
