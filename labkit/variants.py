"""Variants of LoRA that change its scale, its rates or its start; each in a few lines.

    function      changes                  to
    rslora        the scale                alpha / sqrt(rank)
    lora_plus     B's learning rate        ratio times A's
    pissa         A, B and the base        A, B: the strongest directions of W; base: the rest
    olora         A, B and the base        of W = Q R, B: Q's first columns, A: R's first rows
    loftq         A, B and the base        base: W rounded; A, B: the strongest part of what it lost
    share         A and B of all layers    one frozen random pair; two vectors a layer train (VeRA)

Each takes a layer that `inject` made, changes it and returns it. One that starts with more than
B = 0 takes scale * B A out of the base, so the layer still computes what it did.

Sources: Kalajdzievski 2023, https://arxiv.org/abs/2312.03732; Hayou et al. 2024 (LoRA+),
https://arxiv.org/abs/2402.12354; Meng et al. 2024 (PiSSA), https://arxiv.org/abs/2404.02948;
Büyükakyüz 2024 (OLoRA), https://arxiv.org/abs/2406.01775; Li et al. 2023 (LoftQ),
https://arxiv.org/abs/2310.08659; Kopiczko et al. 2023 (VeRA), https://arxiv.org/abs/2310.11454.
AdaLoRA, which prunes while it trains, has a module of its own.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from labkit.linears import dense
from labkit.lora import LoRALinear, Targets, adapted, matches

Rounding = Callable[[Tensor], Tensor]


def rslora(layer: LoRALinear) -> LoRALinear:
    """Scale by alpha / sqrt(rank), with an alpha that stays the same over all ranks.

    The trap: with alpha = 2 rank, as for plain LoRA, the scale grows like sqrt(rank).
    """
    layer.scale = layer.alpha / math.sqrt(layer.rank)
    return layer


def lora_plus(model: nn.Module, lr: float, ratio: float = 16.0) -> list[dict[str, Any]]:
    """Two groups for an optimizer: every A at `lr`, then every B at `ratio` times it.

    Raises:
        ValueError: if `ratio` is below 1 (the higher rate is B's), or the model has no adapter.
    """
    if ratio < 1:
        raise ValueError(f"ratio={ratio} must be at least 1: in LoRA+ the higher rate is B's")
    layers = list(adapted(model).values())
    if not layers:
        raise ValueError("the model has no adapter: inject one first")
    return [
        {"params": [layer.A for layer in layers], "lr": lr},
        {"params": [layer.B for layer in layers], "lr": ratio * lr},
    ]


def _start_at(layer: LoRALinear, A: Tensor, B: Tensor, base: Tensor) -> LoRALinear:
    """Put factors and a base weight in; the base keeps its dtype."""
    with torch.no_grad():
        layer.A.copy_(A)
        layer.B.copy_(B)
        layer.base.weight.copy_(base)
    return layer


def _plain(layer: LoRALinear) -> Tensor:
    """The base's weight in float32, where it can be changed.

    Raises:
        TypeError: if the base is in 4 bits: start from the plain weight, quantise afterwards.
    """
    if not isinstance(layer.base, nn.Linear) or not layer.base.weight.is_floating_point():
        raise TypeError(
            f"the base is a {type(layer.base).__name__}: start on the plain weight, then quantise"
        )
    return dense(layer.base).detach().float()


def principal(W: Tensor, rank: int, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    """A (rank, in), B (out, rank) and a rest (out, in) such that scale * B A + rest is W.

    No matrix of that rank is nearer to W than scale * B A; both factors have the same lengths.
    """
    U, S, Vh = torch.linalg.svd(W, full_matrices=False)
    root = (S[:rank] / scale).sqrt()
    A, B = root[:, None] * Vh[:rank], U[:, :rank] * root
    return A, B, W - scale * B @ A


def pissa(layer: LoRALinear) -> LoRALinear:
    """Start A and B at the strongest `rank` directions of W, and freeze what is left of it.

    The trap: the base is another one now. An adapter that is saved alone fits the residual only.

    Raises:
        TypeError: if the base is in 4 bits already.
    """
    return _start_at(layer, *principal(_plain(layer), layer.rank, layer.scale))


def olora(layer: LoRALinear) -> LoRALinear:
    """Start B at the first orthonormal columns of W = Q R and A at the first rows of R.

    Raises:
        TypeError: if the base is in 4 bits already.
    """
    W = _plain(layer)
    Q, R = torch.linalg.qr(W)
    A, B = R[: layer.rank], Q[:, : layer.rank]
    return _start_at(layer, A, B, W - layer.scale * B @ A)


def alternate(
    W: Tensor, rounded: Rounding, rank: int, scale: float, steps: int = 1
) -> tuple[Tensor, Tensor, Tensor]:
    """A rounded base, and the pair that makes up for what its rounding loses, in turns.

    Each step rounds W - scale * B A, then takes the best pair for what W less that base is. Returns
    A (rank, in), B (out, rank) and the base (out, in), which is rounded; W stays as it is.
    """
    low = torch.zeros_like(W)
    for _ in range(steps):
        base = rounded(W - low)
        A, B, _rest = principal(W - base, rank, scale)
        low = scale * B @ A
    return A, B, base


def loftq(layer: LoRALinear, rounded: Rounding, steps: int = 1) -> LoRALinear:
    """Let A and B make up for what rounding the base loses; the base becomes the rounded weight.

    The trap: what NF4 loses is nearly white noise, so a small rank catches a small share of it.
    PEFT's own leaves the scale out of A and B, so there alpha must equal the rank.

    Args:
        rounded: a weight (out, in) to the same weight as a few bits store it, in float32.
        steps: how often to alternate.

    Raises:
        TypeError: if the base is in 4 bits already: its loss cannot be seen any more.
        ValueError: if `steps` is below 1.
    """
    if steps < 1:
        raise ValueError(f"steps={steps} must be at least 1")
    return _start_at(layer, *alternate(_plain(layer), rounded, layer.rank, layer.scale, steps))


def shared_update(x: Tensor, A: Tensor, B: Tensor, b: Tensor, d: Tensor) -> Tensor:
    """b * (B (d * (A x))), the update of VeRA, for x (..., in): shape (..., out), dtype of x.

    Of A (rank, at least in) the first columns serve, of B (at least out, rank) the first rows.
    """
    A, B = A[:, : x.shape[-1]].to(x.dtype), B[: len(b)].to(x.dtype)
    return b.to(x.dtype) * F.linear(d.to(x.dtype) * F.linear(x, A), B)


class VeRALinear(nn.Module):
    """y = W x + b * (B (d * (A x))): A and B frozen and shared, the vectors b and d train.

    Args:
        A: (rank, at least in), shared by all layers; the first `in` columns are used.
        B: (at least out, rank), likewise by its first `out` rows.
        start: of each entry of d; b starts at zero, so the layer starts as its base.
    """

    def __init__(self, base: nn.Module, A: Tensor, B: Tensor, start: float = 0.1) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.in_features, self.out_features = base.in_features, base.out_features
        self.register_buffer("A", A, persistent=False)  # a reference: one pair for the whole model
        self.register_buffer("B", B, persistent=False)
        self.d = nn.Parameter(torch.full((len(A),), start, device=A.device))
        self.b = nn.Parameter(torch.zeros(base.out_features, device=A.device))

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        return self.base(x) + shared_update(x, self.A, self.B, self.b, self.d)

    def delta(self) -> Tensor:
        """What this adds to the weight, shape (out, in)."""
        A, B = self.A[:, : self.in_features], self.B[: self.out_features]
        return (self.b[:, None] * B) @ (self.d[:, None] * A)


def share(
    model: nn.Module, targets: Targets = "all-linear", rank: int = 256, seed: int = 0
) -> nn.Module:
    """Freeze `model` and put a VeRALinear over each map that `targets` name; returns `model`.

    One random pair, as large as the largest map, serves all layers. It is drawn from `seed`, so an
    adapter holds two vectors a layer and this number. Kaiming uniform, as in PEFT.

    Raises:
        ValueError: as `labkit.lora.matches` does, or if `rank` is below 1.
    """
    if rank < 1:
        raise ValueError(f"rank={rank} must be at least 1")
    maps = {name: model.get_submodule(name) for name in matches(model, targets)}
    into = max(base.in_features for base in maps.values())
    out = max(base.out_features for base in maps.values())
    draw = torch.Generator().manual_seed(seed)
    A, B = (
        torch.empty(shape).uniform_(-bound, bound, generator=draw)
        for shape, bound in (
            ((rank, into), math.sqrt(6 / into)),
            ((out, rank), math.sqrt(6 / rank)),
        )
    )
    device = next(model.parameters()).device
    A, B = A.to(device), B.to(device)
    model.requires_grad_(False)
    for name, base in maps.items():
        model.set_submodule(name, VeRALinear(base, A, B))
    return model
