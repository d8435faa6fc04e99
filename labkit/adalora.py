"""AdaLoRA: a rank for each layer, found by pruning while it trains.

    y = W x + (alpha / rank) P (e * (Q x))

    symbol   shape        in code   meaning
    Q        (rank, in)   Q         reads the input; small and random at the start
    e        (rank,)      e         stands where singular values would; zero at the start
    P        (out, rank)  P         writes the output; small and random at the start

A triplet is (P[:, i], e[i], Q[i]). Nothing is decomposed: P and Q are pushed towards orthonormal by
a penalty, every entry earns a score of how much the loss hangs on it, and the triplets that score
least, over all layers together, get e[i] = 0. How many stay falls over the steps:

    step      to warmup     to steps - final      to steps
    budget    all           falls, as a cube      target; the choice is made

Source: Zhang et al. 2023, https://arxiv.org/abs/2303.10512. PEFT 0.21, tuners/adalora, does the
same; it needs `total_step` in its config, and `update_and_allocate(step)` called after each step.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from labkit.lora import Targets, matches

SPREAD = 0.02  # of P and Q at the start, as in PEFT


class SVDLinear(nn.Module):
    """A frozen linear map and an update of three factors, whose triplets can be switched off.

    Args:
        base: any module that maps (..., in) to (..., out).
        alpha: the update is scaled by alpha / rank, with the rank at the start.

    Raises:
        ValueError: if `rank` is below 1.
    """

    def __init__(self, base: nn.Module, rank: int, alpha: float) -> None:
        super().__init__()
        if rank < 1:
            raise ValueError(f"rank={rank} must be at least 1")
        self.base = base.requires_grad_(False)
        self.in_features, self.out_features = base.in_features, base.out_features
        self.scale = alpha / rank
        like = {"device": next(base.parameters()).device}
        self.Q = nn.Parameter(torch.empty(rank, base.in_features, **like).normal_(std=SPREAD))
        self.P = nn.Parameter(torch.empty(base.out_features, rank, **like).normal_(std=SPREAD))
        self.e = nn.Parameter(torch.zeros(rank, **like))

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        thin = F.linear(x, self.Q.to(x.dtype)) * (self.scale * self.e).to(x.dtype)
        return self.base(x) + F.linear(thin, self.P.to(x.dtype))

    def delta(self) -> Tensor:
        """What the update adds to the weight, shape (out, in)."""
        return self.scale * (self.P * self.e) @ self.Q


def inject_svd(
    model: nn.Module, targets: Targets = "all-linear", rank: int = 12, alpha: float = 32
) -> nn.Module:
    """Freeze `model` and put an SVDLinear over each map that `targets` name; returns `model`.

    Raises:
        ValueError: as `labkit.lora.matches` does.
    """
    names = matches(model, targets)
    model.requires_grad_(False)
    for name in names:
        model.set_submodule(name, SVDLinear(model.get_submodule(name), rank, alpha))
    return model


def triplets(model: nn.Module) -> dict[str, SVDLinear]:
    """The layers of a model that have triplets, by name."""
    return {name: m for name, m in model.named_modules() if isinstance(m, SVDLinear)}


def orthogonality(layers: Sequence[SVDLinear]) -> Tensor:
    """How far P and Q are from orthonormal: the mean of |P^T P - 1|_F and |Q Q^T - 1|_F."""
    grams = [gram for layer in layers for gram in (layer.P.T @ layer.P, layer.Q @ layer.Q.T)]
    far = [torch.linalg.matrix_norm(g - torch.eye(len(g), device=g.device)) for g in grams]
    return torch.stack(far).mean()


@dataclass(frozen=True)
class Schedule:
    """How many triplets may stay at each step.

    Raises:
        ValueError: if warm-up and final phase leave no step to prune in.
    """

    start: int  # triplets in all
    target: int  # triplets that stay
    steps: int
    warmup: int  # steps before the first pruning
    final: int  # steps after the last: a length, not the number of a step
    every: int = 1  # steps between two prunings

    def __post_init__(self) -> None:
        if self.warmup + self.final >= self.steps:
            raise ValueError(
                f"warmup={self.warmup} and final={self.final} leave none of {self.steps} steps to "
                "prune in: `final` is how many steps follow the last pruning"
            )
        if not 0 < self.target < self.start:
            raise ValueError(f"target={self.target} must lie between 0 and start={self.start}")

    def budget(self, step: int) -> int:
        """Triplets that may stay after step 1, 2, ..; between the phases it falls as a cube."""
        if step <= self.warmup:
            return self.start
        last = self.steps - self.final
        left = max(0.0, 1 - (step - self.warmup) / (last - self.warmup))
        return int((self.start - self.target) * left**3 + self.target)

    def prunes(self, step: int) -> bool:
        """Whether triplets are chosen anew after this step."""
        last = self.steps - self.final
        return step == last or (self.warmup < step < last and step % self.every == 0)


def weakest(scores: Sequence[Tensor], budget: int) -> list[Tensor]:
    """Which triplets to switch off, so that `budget` of them stay in all layers together.

    Args:
        scores: of each layer, one for each of its triplets, shape (rank,).

    Returns, for each layer, a mask (rank,): True where the triplet is switched off.
    """
    together = torch.cat(list(scores))
    if budget >= len(together):
        return [torch.zeros_like(score, dtype=torch.bool) for score in scores]
    limit = together.kthvalue(len(together) - budget).values
    return [score <= limit for score in scores]


class Pruner:
    """Keeps every entry's score and switches off the triplets that score least.

    The sensitivity |p * dp| of an entry is a first guess at what the loss would lose without it. It
    jumps from batch to batch; so it is smoothed, and multiplied by how much it jumps.

    Args:
        smooth: share of the past in both running means, beta1 and beta2 of the paper.
    """

    def __init__(self, model: nn.Module, schedule: Schedule, smooth: float = 0.85) -> None:
        self.layers, self.schedule, self.smooth = list(triplets(model).values()), schedule, smooth
        self.mean = {
            p: torch.zeros_like(p) for layer in self.layers for p in layer.parameters(False)
        }
        self.jump = {p: torch.zeros_like(p) for p in self.mean}
        self.off: list[Tensor] = []  # per layer: the triplets that are switched off

    @torch.no_grad()
    def watch(self) -> None:
        """Read the gradients of this step into the scores; call it before they are cleared."""
        for p, mean in self.mean.items():
            now = (p * p.grad).abs()
            mean.lerp_(now, 1 - self.smooth)
            self.jump[p].lerp_((now - mean).abs(), 1 - self.smooth)

    def scores(self, layer: SVDLinear) -> Tensor:
        """Score of each triplet of a layer: of its e, and the means over P's column and Q's row."""
        e, P, Q = (self.mean[p] * self.jump[p] for p in (layer.e, layer.P, layer.Q))
        return e + P.mean(dim=0) + Q.mean(dim=1)

    @torch.no_grad()
    def after_step(self, step: int) -> int:
        """Call after the optimizer's step 1, 2, ..; returns how many triplets may stay.

        A triplet that is switched off may come back while pruning goes on: its P and Q keep their
        values, and e receives a gradient. After the last choice it stays off.
        """
        last = self.schedule.steps - self.schedule.final
        if step < last:
            self.watch()
        budget = self.schedule.budget(step)
        if self.schedule.prunes(step):
            self.off = weakest([self.scores(layer) for layer in self.layers], budget)
        if self.schedule.prunes(step) or step > last:
            for layer, off in zip(self.layers, self.off, strict=True):
                layer.e[off] = 0.0
        return budget

    def ranks(self) -> list[int]:
        """Triplets that are in use, layer by layer."""
        return [int(layer.e.count_nonzero()) for layer in self.layers]
