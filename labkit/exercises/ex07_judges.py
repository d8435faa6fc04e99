"""The judges of notebook 07 for what changes a scale, a rate or a start.

Those of AdaLoRA and VeRA are in ex07_shares. Each finds the right answer by another route than the
solution (eigenvectors where the solution has an SVD), and then names the slip by simulation: what
would the known mistake give on this very input?
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from labkit.exercises.ex05_judges import NONE, Slips, told
from labkit.lora import LoRALinear, inject


def changed(given: Sequence[Tensor], before: Sequence[Tensor]) -> bool:
    """Whether an answer wrote into the tensors that it was given."""
    return not all(map(torch.equal, given, before))


# --- 07.1 rsLoRA's scale ----------------------------------------------------------------------

LAYERS = ((5, 12.0), (9, 2.0), (16, 20.0))  # rank and alpha; no alpha is a multiple of its rank


def _layer(rank: int, alpha: float) -> LoRALinear:
    """A layer whose B has moved."""
    layer = LoRALinear(nn.Linear(20, 18), rank, alpha)
    nn.init.normal_(layer.B)
    return layer


def _scales(rank: int, alpha: float) -> list[tuple[float, str]]:
    root = math.sqrt(rank)
    return [
        (alpha / rank, "that is LoRA's own scale: divide by the root of the rank"),
        (2 * root, "that puts alpha = 2 rank on top: alpha stays as it is given, at every rank"),
        (root, "that puts alpha = rank on top: alpha stays as it is given, at every rank"),
        (alpha / rank / root, "divided twice: `layer.scale` is alpha / rank already"),
        (math.sqrt(alpha / rank), "the root is that of the rank alone; alpha stays outside"),
        (math.sqrt(alpha) / rank, "the root is that of the rank, not that of alpha"),
        (alpha * root, "that multiplies by the root; divide by it"),
        (alpha, "nothing is divided: the sum of rank directions grows with the rank"),
        (1 / root, "alpha is missing"),
        (alpha / rank**2, "that is the square of the rank; take its root"),
        (root / alpha, "upside down: alpha stands above, the root below"),
        (alpha / math.log2(rank), "that is a logarithm of the rank; take its root"),
    ]


def judge_rslora(answer: Callable[[LoRALinear], Any]) -> str | None:
    """alpha over the root of the rank, and nothing else is changed"""
    torch.manual_seed(0)
    for rank, alpha in LAYERS:
        given = _layer(rank, alpha)
        A, B = given.A.detach().clone(), given.B.detach().clone()
        got = answer(given)
        if got is None:
            return NONE
        if not isinstance(got, LoRALinear):
            return f"return the layer, not {type(got).__name__}"
        if (got.alpha, got.rank) != (alpha, rank):
            return "alpha and rank stay as they are: write `layer.scale` alone"
        if got is not given:
            return (
                "that is another layer: the one in the model keeps LoRA's scale; change it itself"
            )
        if changed((got.A, got.B), (A, B)):
            return "A and B stay as they are: the scale alone changes"
        if isinstance(got.scale, Tensor):
            return "the scale is a number, as it was, and no tensor: math.sqrt gives one"
        want, scale = alpha / math.sqrt(rank), float(got.scale)
        if not math.isclose(scale, want, rel_tol=1e-6):
            named = (words for s, words in _scales(rank, alpha) if math.isclose(s, scale))
            return next(named, f"the scale is {scale:.4g} at rank {rank}, alpha {alpha:g}")
    return None


# --- 07.2 LoRA+'s parameter groups ------------------------------------------------------------


def _small() -> nn.Module:
    """Two adapted layers; neither their names nor the shapes of A and B tell one from the other."""
    maps = {"Above": nn.Linear(6, 7), "Below": nn.Linear(7, 2), "head": nn.Linear(2, 4)}
    return inject(nn.Sequential(OrderedDict(maps)), ["Above", "Below"], rank=3, alpha=6.0)


def _rates(groups: Any) -> dict[nn.Parameter, float]:  # noqa: ANN401
    """The learning rate that an optimizer would give each parameter."""
    optimizer = torch.optim.SGD(groups, lr=99.0)
    return {p: group["lr"] for group in optimizer.param_groups for p in group["params"]}


def _rate_slip(a: set[float], b: set[float], lr: float, ratio: float) -> str | None:
    """What the rates of all A and of all B say."""
    if 99.0 in a | b:
        return 'a group has no rate of its own: each needs its "lr"'
    if len(a) > 1 or len(b) > 1:
        return "the layers differ: every A has one rate, every B another"
    (a,), (b,) = a, b
    cases = [
        (lr, lr * ratio, None),
        (lr * ratio, lr, "the other way round: the higher rate is B's"),
        (lr / ratio, lr, "`lr` is that of A; B's is ratio times as high, A's is not divided"),
        (lr, lr / ratio, "that makes B slower: multiply by the ratio"),
        (lr, lr, "both have the same rate: that is LoRA"),
        (lr * ratio, lr * ratio, "both are raised: A keeps `lr`"),
        (lr, lr + ratio, "the ratio is a factor; it is not added"),
        (lr, ratio, "the ratio is no rate: multiply it with `lr`"),
        (lr / math.sqrt(ratio), lr * math.sqrt(ratio), "`lr` is that of A, not the middle of both"),
    ]
    close = (w for x, y, w in cases if math.isclose(a, x) and math.isclose(b, y))
    return next(close, f"A has the rate {a:g} and B {b:g}, for lr={lr:g} and ratio={ratio:g}")


def _refusal_slip(answer: Callable[..., Any]) -> str | None:
    cases = (
        (_small(), 0.25, "a ratio below 1 passes: it would give A the higher rate; ValueError"),
        (_small(), 0.99, "a ratio of 0.99 passes: it is below 1; ValueError"),
        (nn.Linear(3, 2), 8.0, "a model without adapters passes: raise ValueError"),
    )
    for model, ratio, words in cases:
        try:
            answer(model, 0.01, ratio)
        except ValueError:
            continue
        return words
    return None


def judge_lora_plus(answer: Callable[..., Any]) -> str | None:
    """`lr` for every A, ratio times it for every B, and nothing else trains"""
    torch.manual_seed(0)
    for lr, *given in ((0.01, 8.0), (0.03, 1.5), (0.02,), (0.02, 1.0)):
        model, ratio = _small(), given[0] if given else 16.0
        try:
            got = answer(model, lr, *given)
        except ValueError:
            if ratio > 1:
                raise
            return "a ratio of 1 is refused: it gives both one rate, and is not below 1"
        if got is None:
            return NONE
        if not isinstance(got, list | tuple) or not all(isinstance(g, dict) for g in got):
            return 'return a list of groups, each {"params": [...], "lr": ...}'
        rates = _rates(got)
        layers = [model.Above, model.Below]
        if set(rates) - {p for layer in layers for p in (layer.A, layer.B)}:
            return "frozen weights are in a group: A and B alone train"
        a, b = ([layer.A for layer in layers], [layer.B for layer in layers])
        for name, factor in (("A", a), ("B", b)):
            if not all(p in rates for p in factor):
                return f"no group holds every {name}: the others never move; take every layer's"
        if slip := _rate_slip({rates[p] for p in a}, {rates[p] for p in b}, lr, ratio):
            return slip
        if len(got) != 2:
            return f"that is {len(got)} groups: all A share one, all B the other"
        if not any(p is a[0] for p in got[0]["params"]):
            return "the groups change places: the group of every A comes first"
    return _refusal_slip(answer)


# --- 07.3 the strongest directions and the rest -----------------------------------------------

Split = tuple[Tensor, Tensor, Tensor]
WEIGHTS = (  # out, in, rank, scale, dtype; square first
    (6, 6, 2, 3.0, torch.float64),
    (5, 8, 3, 0.5, torch.float64),
    (9, 4, 2, 2.0, torch.float32),
)


def weight_like(out: int, into: int, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(10 * out + into + seed)
    return torch.randn(out, into, generator=draw, dtype=torch.float64)


def strongest(W: Tensor, rank: int) -> Tensor:
    """The nearest matrix of that rank, through the eigenvectors of W^T W."""
    V = torch.linalg.eigh(W.T @ W).eigenvectors[:, -rank:]
    return W @ V @ V.T


def _update_slips(W: Tensor, rank: int, scale: float) -> Slips:
    """What scale * B A comes to by known mistakes."""
    low = strongest(W, rank)
    U, S, Vh = torch.linalg.svd(W, full_matrices=False)
    u, s, v = U[:, :rank], S[:rank], Vh[:rank]
    slips = [
        (scale * low, "scale * B A is `scale` times too large: divide S by the scale, then the root"),
        (low / scale, "the scale is taken out of both factors whole: divide S by it once"),
        (W - strongest(W, len(S) - rank), "those are the weakest directions: S falls, take the first"),
        (scale * u @ v, "the lengths S are missing: U and Vh are of length one"),
        (u @ v, "the lengths S are missing: U and Vh are of length one"),
        (u * s.square() @ v / scale, "each factor takes the root of S; whole in both it is squared"),
        (u * s.sqrt() @ v, "one factor took the root of S and the other nothing of it"),
        (u * (s / scale).sqrt() @ v * scale, "one factor took the root and the other nothing of it"),
        (W, "that is all of W: keep the first `rank` directions"),
        (torch.zeros_like(W), "scale * B A is zero, LoRA's start: begin at the strongest directions"),
        (-low, "the sign is turned: scale * B A is added to the rest"),
    ]  # fmt: skip
    if W.shape[0] == W.shape[1]:
        words = "torch.linalg.svd returns the transpose, Vh: its rows are the directions"
        slips.append((u * s @ Vh.T[:rank], words))
        slips.append((u * s @ Vh[:, :rank].T, words))
    return slips


def _rest_slips(W: Tensor, low: Tensor, scale: float) -> Slips:
    return [
        (W, "the rest still holds these directions: the sum would count them twice"),
        (W - low / scale, "the rest is W - scale * B A, and the scale is missing"),
        (W + low, "they are added once more; take them out of W"),
        (low, "that is what A and B hold; the rest is what they do not"),
        (low - W, "the sign of the rest is turned: the sum must be W"),
        (torch.zeros_like(W), "A and B do not hold all of W: the rest is not zero"),
    ]


def judge_principal(answer: Callable[[Tensor, int, float], Any]) -> str | None:
    """A and B at the strongest directions, and a rest that makes the sum W"""
    for out, into, rank, scale, dtype in WEIGHTS:
        W = weight_like(out, into).to(dtype)
        given = W.clone()
        got = answer(given, rank, scale)
        if got is None:
            return NONE
        if not isinstance(got, tuple | list) or len(got) != 3:
            return "return three tensors: A, B, rest"
        if slip := split_slip(got, W, rank, scale):
            return slip
        A, B, rest = got
        if changed([given], [W]):
            return "W itself was changed: it is the model's weight; the rest is a new tensor"
        low = strongest(W.double(), rank).to(dtype)
        if slip := told(scale * B @ A, low, _update_slips(W, rank, scale), "scale * B A"):
            return slip
        if slip := told(rest, W - low, _rest_slips(W, low, scale), "the rest"):
            return slip
        if not torch.allclose(A.norm(dim=1), B.norm(dim=0)):
            return (
                "the product is right, the shares are not: A and B each take the root of S / scale"
            )
    return None


def split_slip(got: Split, W: Tensor, rank: int, scale: float) -> str | None:
    """Why A and B cannot be factors of an update of W."""
    out, into = W.shape
    A, B, _ = got
    if not all(isinstance(t, Tensor) for t in got):
        return "return three tensors: A, B, and what is left"
    swapped = A.shape == (out, rank) and B.shape == (rank, into)
    if swapped and out != into:
        return "the other way round: A (rank, in) comes first, then B (out, rank)"
    for name, factor, want in (("A", A, (rank, into)), ("B", B, (out, rank))):
        if factor.shape != want:
            return f"{name} has shape {tuple(factor.shape)}; it must be {want}"
        if factor.dtype != W.dtype:
            return f"{name} has dtype {factor.dtype}; it must be that of W, {W.dtype}"
    return None
