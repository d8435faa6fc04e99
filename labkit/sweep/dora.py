"""LoRA, DoRA, QLoRA, QDoRA and full fine-tuning on the workbook's task, each at its best rate.

    method    what trains                        base
    full      the linear maps themselves         float32
    lora      A and B                            float32, or NF4: QLoRA
    dora      A, B and the row lengths           float32, or NF4: QDoRA

alpha is twice the rank, so the scale is 2 everywhere. "full" trains the maps that the others adapt.
Beside the task stand 500 codes of firms, learnt by heart at a rank too low to hold them:
the DoRA paper sees its largest gains where the rank is low.

A run's row also says how the rows of the weights went: `movement` holds, for each projection, the
correlation of the change of length with the change of direction, over layers and MOMENTS (section
3.2 of the paper, which looks at the queries); and for seed 0 the points themselves.

Source: Liu et al. 2024, https://arxiv.org/abs/2402.09353
"""

import argparse
import functools
import random
import statistics
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from labkit import directions, dora, lora, world
from labkit.history import Step
from labkit.linears import dense
from labkit.skills import Example
from labkit.sweep.frame import Row, Spec, linear_maps_train

SCALE = 2.0
CASES = ((16, 100), (16, 8), (2, 8))  # rank and steps: more than the task needs, and too few
CODE_RANK, CODE_STEPS, CODE_BATCH = 4, 200, 32
CODES, DIGITS = 500, 6
RATES = (5e-4, 1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2)
SHARE_OF_FULL = 0.1  # full fine-tuning wants about a tenth of the rate
FEW = 20  # below so many steps the best rate is higher
MOMENTS = 4  # looks at the weights in a run, evenly spaced


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--steps", type=int, nargs="*", help="only cases with these steps")


def groups(options: argparse.Namespace) -> list[Spec]:
    """Four adapters in every case; full fine-tuning, which has no rank, once a number of steps."""
    plain = Spec("dora", "full", 0)
    cases = [replace(plain, rank=rank, steps=steps) for rank, steps in CASES]
    codes = {"steps": CODE_STEPS, "learns": "codes", "batch": CODE_BATCH}
    cases.append(replace(plain, rank=CODE_RANK, **codes))
    cases = [case for case in cases if not options.steps or case.steps in options.steps]
    full = dict.fromkeys(replace(case, rank=0) for case in cases)
    adapters = [
        replace(case, method=method, alpha=SCALE * case.rank, scale=SCALE, base=base)
        for case in cases
        for base in ("float32", "nf4")
        for method in ("lora", "dora")
    ]
    return [*full, *adapters]


@functools.cache
def examples(learns: str) -> list[Example]:
    """The set of that name: codes of invented firms, drawn by a seed, no two firms alike."""
    if learns != "codes":
        raise ValueError(f"learns={learns!r} is no set of this sweep: codes")
    rng = random.Random("codes")
    firms = list(dict.fromkeys(world.firm(rng) for _ in range(2 * CODES)))[:CODES]
    first, last = 10 ** (DIGITS - 1), 10**DIGITS
    return [
        Example(f"What is the code of {firm}?", str(rng.randrange(first, last)), "code")
        for firm in firms
    ]


def rates(spec: Spec) -> Sequence[float]:
    """Six rates, a factor of two apart; twice as high for a run of few steps."""
    factor = (SHARE_OF_FULL if spec.method == "full" else 1) * (2 if spec.steps < FEW else 1)
    return [float(f"{factor * rate:.6g}") for rate in RATES]


def adapt(model: nn.Module, spec: Spec) -> nn.Module:
    """The model with what trains."""
    if spec.method == "full":
        return linear_maps_train(model)
    put = dora.inject_dora if spec.method == "dora" else lora.inject
    return put(model, "all-linear", spec.rank, spec.alpha)


def applied(module: nn.Module) -> Tensor:
    """The weight that a map applies now, (out, in)."""
    base = getattr(module, "base", module)
    weight = dense(base).detach()
    return weight + module.delta().detach() if hasattr(module, "delta") else weight


class Watched:
    """How far the rows of each map have gone, in length and direction, at MOMENTS of a run."""

    def __init__(self, model: nn.Module, steps: int) -> None:
        self.maps = lora.linear_maps(model)
        self.before = {name: applied(module).clone() for name, module in self.maps.items()}
        self.at = {round(steps * (i + 1) / MOMENTS) for i in range(MOMENTS)}
        self.points: dict[str, list[tuple[int, float, float]]] = {}

    @torch.no_grad()
    def __call__(self, step: Step) -> None:
        if step.number not in self.at:
            return
        for name, module in self.maps.items():
            moved = directions.movement(self.before[name], applied(module))
            kind = name.rpartition(".")[2]
            self.points.setdefault(kind, []).append((step.number, *moved))


def correlation(points: Sequence[tuple[int, float, float]]) -> float:
    """Of the change of length with the change of direction."""
    _, lengths, directions = zip(*points, strict=True)
    return statistics.correlation(lengths, directions)


class Observer(Watched):
    """A `Watched` whose result goes into a row."""

    def __init__(self, model: nn.Module, spec: Spec) -> None:
        super().__init__(model, spec.steps)
        self.spec = spec

    def result(self) -> Row:
        row: Row = {"movement": {kind: round(correlation(p), 4) for kind, p in self.points.items()}}
        if self.spec.seed == 0:
            row["points"] = {
                kind: [(number, float(f"{m:.4g}"), float(f"{d:.4g}")) for number, m, d in points]
                for kind, points in self.points.items()
            }
        return row


def observer(model: nn.Module, spec: Spec) -> Observer | None:
    return Observer(model, spec) if spec.split == "test" else None
