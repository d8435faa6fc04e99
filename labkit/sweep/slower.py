"""LoRA at its tuned rate and below it: what the rate alone does to what the model could before.

    method     learning rate
    whole      that of the lowest validation loss, from the rows of the sweep "variants"
    half       half of it
    quarter    a quarter of it

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

SHARES = {"whole": 1.0, "half": 0.5, "quarter": 0.25}
CASES = ((16, 8), (16, 20))  # rank and steps


def arguments(parser: argparse.ArgumentParser) -> None:
    """Nothing to choose."""


def groups(options: argparse.Namespace) -> list[Spec]:
    """LoRA in both cases, once for each share of its rate."""
    del options
    plain = [variants.group("lora", *case) for case in CASES]
    return [replace(spec, sweep="slower", method=name) for spec in plain for name in SHARES]


def rates(spec: Spec) -> Sequence[float]:
    """The one rate of a group."""
    tuned = fair.best_rate(fair.runs(), "LoRA", fair.Case(spec.rank, spec.steps))
    return [SHARES[spec.method] * tuned]


def adapt(model: nn.Module, spec: Spec) -> nn.Module:
    """The model with LoRA on it."""
    return lora.inject(model, "all-linear", spec.rank, spec.alpha)
