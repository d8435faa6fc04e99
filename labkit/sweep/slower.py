"""LoRA at its tuned rate and at half of it: what the rate alone does to the old skills.

    method     learning rate
    whole      that of the lowest validation loss, from the rows of the sweep "variants"
    half       half of it

The control beside the sweep of variants: there each method has a rate of its own, tuned on the task
alone, and the methods differ in the old skills that they keep. Here nothing differs but the rate.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from labkit import fair, lora
from labkit.sweep import variants
from labkit.sweep.frame import Spec

SHARES = {"whole": 1.0, "half": 0.5}
CASE = (16, 8)  # rank and steps


def arguments(parser: argparse.ArgumentParser) -> None:
    """Nothing to choose."""


def groups(options: argparse.Namespace) -> list[Spec]:
    """LoRA once for each share of its rate."""
    del options
    plain = variants.group("lora", *CASE)
    return [replace(plain, sweep="slower", method=name) for name in SHARES]


def rates(spec: Spec) -> Sequence[float]:
    """The one rate of a group."""
    tuned = fair.best_rate(fair.runs(), "LoRA", fair.Case(spec.rank, spec.steps))
    return [SHARES[spec.method] * tuned]


def adapt(model: nn.Module, spec: Spec) -> nn.Module:
    """The model with LoRA on it."""
    return lora.inject(model, "all-linear", spec.rank, spec.alpha)
