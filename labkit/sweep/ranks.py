"""LoRA at ranks from 1 to 64 beside full fine-tuning: score, loss, and what full training moves.

    method     scale                 question
    lora       alpha / rank          how do score and loss follow the rank?
    rslora     alpha / sqrt(rank)    where does the best learning rate move?
    full       -                     what does an update without a limit look like?

alpha is 16 at every rank, as the LoRA paper keeps it. "full" trains the linear maps that LoRA
adapts, so the two differ in nothing but the limit on the rank. For "full" a row also holds
`rank90`: by map, how many singular values of its update hold 90% of its energy (sum of squares),
`moved`: the norm of the update over that of the weight, and, for seed 0, `spectra`.
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from labkit import lora
from labkit.history import Step
from labkit.sweep.frame import Row, Spec, linear_maps_train

METHODS = ("full", "lora", "rslora")
RANKS = (1, 2, 4, 8, 16, 32, 64)
STEPS = (20, 100)  # full fine-tuning has the task right by the first; five times that
LONG = 100
ALPHA = 16.0
RATES = tuple(2.5e-4 * 2**k for k in range(7))  # up to 0.016
FULL_RATES = (1e-4, 2e-4, 4e-4, 8e-4, 1.6e-3)
SHOWN = (  # maps whose whole spectrum is kept
    "model.layers.0.self_attn.q_proj",
    "model.layers.2.self_attn.v_proj",
    "model.layers.3.mlp.down_proj",
    "model.layers.5.self_attn.o_proj",
)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ranks", type=int, nargs="+", default=list(RANKS))
    parser.add_argument("--steps", type=int, nargs="+", default=list(STEPS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))


def groups(options: argparse.Namespace) -> list[Spec]:
    """LoRA at every rank and full fine-tuning for every number of steps; rsLoRA for the first."""
    found = []
    for steps in options.steps:
        plain = Spec("ranks", "full", steps)
        scales = {"lora": lambda rank: ALPHA / rank, "rslora": lambda rank: ALPHA / math.sqrt(rank)}
        found.append(plain)
        found += [
            replace(plain, method=method, rank=rank, alpha=ALPHA, scale=scale(rank))
            for method, scale in scales.items()
            for rank in options.ranks
            if method == "lora" or steps == options.steps[0]
        ]
    return [spec for spec in found if spec.method in options.methods]


def rates(spec: Spec) -> Sequence[float]:
    """Where the best rate of such a run is looked for."""
    if spec.method == "full":
        return FULL_RATES
    if spec.method == "rslora":  # the larger scale wants the smaller rate
        return RATES[:6]
    return RATES[1:7] if spec.steps < LONG else RATES[2:6]


def adapt(model: nn.Module, spec: Spec) -> nn.Module:
    """The model with what trains; LoRALinear scales by alpha / rank, so rsLoRA is given its alpha
    times sqrt(rank)."""
    if spec.method == "full":
        return linear_maps_train(model)
    return lora.inject(model, "all-linear", spec.rank, spec.scale * spec.rank)


class Moved:
    """What full fine-tuning did to each map: its update's spectrum, read at the end."""

    def __init__(self, model: nn.Module, spec: Spec) -> None:
        self.model, self.spec = model, spec
        self.before = {n: m.weight.detach().clone() for n, m in lora.linear_maps(model).items()}

    def __call__(self, step: Step) -> None:
        """Nothing to note between the steps."""

    def result(self) -> Row:
        maps = lora.linear_maps(self.model)
        updates = {n: maps[n].weight.detach() - before for n, before in self.before.items()}
        values = {name: torch.linalg.svdvals(update) for name, update in updates.items()}
        row = {
            "rank90": {name: rank_for(S, 0.9) for name, S in values.items()},
            "moved": {
                name: round((update.norm() / self.before[name].norm()).item(), 5)
                for name, update in updates.items()
            },
        }
        if self.spec.seed == 0:
            row["spectra"] = {name: [float(f"{s:.4g}") for s in values[name]] for name in SHOWN}
        return row


def rank_for(values: Tensor, share: float) -> int:
    """How many of the singular values, largest first, hold `share` of the sum of their squares."""
    energy = values.square().cumsum(0) / values.square().sum()
    return int((energy < share).sum()) + 1


def observer(model: nn.Module, spec: Spec) -> Moved | None:
    return Moved(model, spec) if spec.method == "full" else None
