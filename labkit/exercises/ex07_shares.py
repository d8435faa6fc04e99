"""The judges of notebook 07 for LoftQ's turns, AdaLoRA's choice and VeRA's shared pair."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from labkit.exercises.ex05_judges import NONE, Slips, told
from labkit.exercises.ex07_judges import changed, split_slip, strongest, weight_like

# --- 07.4 LoftQ's turns -----------------------------------------------------------------------


TURNS = (  # (out, in, rank, scale) and the steps, the last time left to the default
    ((8, 8, 2, 3.0), (1,)),
    ((30, 40, 6, 0.5), (3,)),
    ((12, 12, 3, 2.0), ()),
)


def halves(W: Tensor) -> Tensor:
    """A coarse rounding, to multiples of a half."""
    return (2 * W).round() / 2


def turns(W: Tensor, rank: int, steps: int) -> tuple[Tensor, Tensor]:
    """The base and scale * B A after so many turns."""
    low = torch.zeros_like(W)
    for _ in range(steps):
        base = halves(W - low)
        low = strongest(W - base, rank)
    return base, low


def _turn_slips(W: Tensor, rank: int, scale: float, steps: int) -> Slips:
    """What base + scale * B A comes to by known mistakes; the parts add up to another sum each."""
    once = turns(W, rank, 1)
    found = [(sum(once), "that is one turn: go on from W - scale * B A, `steps` times")]
    found += [
        (sum(turns(W, rank, n)), f"that is {n} turns instead of {steps}")
        for n in (steps - 1, steps + 1, 5)
        if n > 1
    ]
    low = torch.zeros_like(W)
    for _ in range(steps):
        base = halves(W - low)
        low = strongest(W - low - base, rank)
    found.append((base + low, "the pair stands for W less the base, not for what was rounded"))
    low = torch.zeros_like(W)
    for _ in range(steps):
        base = halves(W - low)
        low = strongest(W - base, rank) / scale
    found.append((base + scale * low, "low is scale * B A: the scale is missing in it"))
    base, low = turns(W, rank, steps)
    found.append((halves(W - low) + low, "the base was rounded once more after the last pair"))
    low = strongest(W, rank)
    base = halves(W - low)
    found.append((base + low, "that starts from W itself, as PiSSA does: the pair is for the loss"))
    found.append((halves(W) + strongest(W, rank), "the pair is for what rounding loses, not for W"))
    found.append((halves(W), "A and B hold nothing: that is plain rounding"))
    return found


def judge_alternate(answer: Callable[..., Any]) -> str | None:
    """a rounded base, and the best pair for what its rounding lost, in turns"""
    for (out, into, rank, scale), asked in TURNS:
        W, steps = weight_like(out, into), asked[0] if asked else 1
        given = W.clone()
        got = answer(given, halves, rank, scale, *asked)
        if got is None:
            return NONE
        if not isinstance(got, tuple | list) or len(got) != 3:
            return "return three tensors: A, B, base"
        if slip := split_slip(got, W, rank, scale):
            return slip
        if changed([given], [W]):
            return "W was written into: it stays as it is, so that every turn starts from it"
        A, B, base = got
        want, low = turns(W, rank, steps)
        if slip := _base_slip(base, W, low):
            return slip
        found = base + scale * B @ A
        slips = [
            (
                want + scale * low,
                "scale * B A is `scale` times too large: `principal` takes it out",
            ),
            (want - low, "the pair is subtracted; base + scale * B A must come near W"),
            *_turn_slips(W, rank, scale, steps),
        ]
        if slip := told(found, want + low, slips, "base + scale * B A"):
            return slip
    return None


def _base_slip(base: Tensor, W: Tensor, low: Tensor) -> str | None:
    if base.shape != W.shape:
        return f"the base has shape {tuple(base.shape)}; it must be {tuple(W.shape)}"
    if torch.allclose(base, W):
        return "the base is W itself: return what `rounded` gives, as 4 bits will hold it"
    if not torch.allclose(halves(base), base):
        return "the base is not rounded: 4 bits cannot hold it, and would lose something anew"
    return None


# --- 07.5 which triplets to switch off --------------------------------------------------------

SCORES = (  # of layers with unlike ranks; one loses all its triplets
    ((26.0, 28.0, 8.0), (30.0, 39.0, 35.0, 31.0, 25.0), (10.0, 7.0, 37.0, 29.0)),
    ((0.8, 0.05, 0.65, 0.7), (0.5, 0.85, 0.95, 0.9), (0.4, 0.25, 0.2, 0.1)),
)


def _masks(scores: Sequence[Tensor], stay: Callable[[int, Tensor], Tensor]) -> list[list[bool]]:
    return [(~stay(i, score)).tolist() for i, score in enumerate(scores)]


def _first(score: Tensor, n: int) -> Tensor:
    """Which are among the n largest."""
    ranks = score.argsort(descending=True).argsort()
    return ranks < n


def _mask_slips(scores: Sequence[Tensor], budget: int) -> list[tuple[list[list[bool]], str]]:
    flat = torch.cat(list(scores))
    order = flat.sort(descending=True).values

    def above(n: int) -> list[list[bool]]:
        least = order[n - 1] if n else float("inf")
        return _masks(scores, lambda i, s: s >= least)

    n, share = len(flat), budget // len(scores)
    shares = torch.cat([score / score.sum() for score in scores])
    limit = shares.sort(descending=True).values[budget - 1]
    return [
        ([[not off for off in mask] for mask in above(budget)], "that marks those that stay: True is switched off"),
        (_masks(scores, lambda i, s: s <= order[n - budget]), "the strongest are switched off; the weakest go"),
        (above(n - budget), "`budget` is how many stay, not how many go"),
        (_masks(scores, lambda i, s: _first(s, share)), "each layer keeps the same number: that is one rank for all; compare over all layers"),
        (above(budget + 1), "one too many stays: the limit itself goes, too"),
        (above(budget - 1), "one too few stays: count from the limit"),
        (_masks(scores, lambda i, s: (s > order[budget]) | (s == s.max())), "every layer keeps one: a layer may lose all its triplets"),
        (_masks(scores, lambda i, s: s > flat.mean()), "the limit is set by the budget, not by the mean score"),
        (_masks(scores, lambda i, s: s > s.median()), "the limit is set by the budget over all layers, not by each layer's median"),
        (_masks(scores, lambda i, s: s / s.sum() >= limit), "scores are compared as they are, not as shares of their layer"),
        (_masks(scores, lambda i, s: torch.arange(len(s)) < share), "that goes by place: nothing is sorted in a layer, so go by the score"),
    ]  # fmt: skip


def judge_weakest(answer: Callable[..., Any]) -> str | None:
    """the lowest scores of all layers together, and none more"""
    for rows, budget in ((SCORES[0], 5), (SCORES[1], 5), (SCORES[0], 12)):
        scores = [torch.tensor(row) for row in rows]
        given = [score.clone() for score in scores]
        got = answer(given, budget)
        if got is None:
            return NONE
        if not isinstance(got, list | tuple) or len(got) != len(scores):
            return f"return a list of {len(scores)} masks, one for each layer"
        for mask, score in zip(got, scores, strict=True):
            if not isinstance(mask, Tensor) or mask.dtype is not torch.bool:
                return "each mask is a tensor of bool; numbers or places of triplets are none"
            if mask.shape != score.shape:
                return f"a mask has shape {tuple(mask.shape)}; it must be {tuple(score.shape)}"
        if len(given) != len(scores) or changed(given, scores):
            return "the scores were written into: they go on to the next step; return masks alone"
        said = [mask.tolist() for mask in got]
        ordered = sorted((value for row in rows for value in row), reverse=True)[:budget]
        want = [[value not in ordered for value in row] for row in rows]
        if said != want:
            if budget == len(torch.cat(scores)):
                return "the budget holds all of them: nothing is switched off"
            named = (words for masks, words in _mask_slips(scores, budget) if masks == said)
            stay = sum(not off for mask in said for off in mask)
            return next(named, f"{stay} stay, and {budget} must: those that score highest")
    return None


# --- 07.6 VeRA's shared pair ------------------------------------------------------------------

MAPS = (  # out, in, rank, what stands before `in` in x; all of the pair first, then a part
    (6, 6, 6, (2, 3)),
    (6, 6, 3, (1,)),
    (4, 5, 3, (2, 3)),
)
PAIR = (6, 6)  # the largest out and in


def _named(x: Tensor, A: Tensor, B: Tensor, b: Tensor, d: Tensor) -> Slips:
    into, out = x.shape[-1], len(b)
    a, w = A[:, :into], B[:out]
    right = x @ (b[:, None] * w @ (d[:, None] * a)).T
    slips = [
        (x @ (b[:, None] * w @ a).T, "d is missing: it stretches what A reads"),
        (x @ (w @ (d[:, None] * a)).T, "b is missing: without it the update starts above zero"),
        (x @ (w @ a).T, "b and d are missing: A and B are frozen, so nothing would train"),
        (x @ (b[:, None] * w @ (d.square()[:, None] * a)).T, "d comes once"),
        (x @ (b.square()[:, None] * w @ (d[:, None] * a)).T, "b comes once"),
        (right + b, "b is no bias: it multiplies the output of B"),
        (right / len(d), "VeRA has no scale: d and b are its scales"),
        (x @ (b[:, None] * B[-out:] @ (d[:, None] * a)).T, "the first `out` rows of B serve this map, not the last"),
        (x @ (b[:, None] * w @ (d[:, None] * A[:, -into:])).T, "the first `in` columns of A serve this map, not the last"),
        (x @ (b[:, None] * w @ a).T + d.sum(), "d multiplies what A reads; it is not added"),
        (torch.relu(x @ (d[:, None] * a).T) @ (b[:, None] * w).T, "there is no activation between A and B: the update must merge"),
    ]  # fmt: skip
    if into == out:
        slips.append((x + right, "the update alone is asked: the base adds its own output"))
    if len(d) == out:
        slips.append((x @ (d[:, None] * w @ (b[:, None] * a)).T, "b and d are exchanged: b is (out,), d is (rank,)"))  # fmt: skip
        slips.append((x @ (b[:, None] * w.T @ (d[:, None] * a)).T, "B is (out, rank): F.linear(thin, B) takes it as it is"))  # fmt: skip
        slips.append((x @ (b[:, None] * w @ (d[:, None] * a.T)).T, "A is (rank, in): F.linear(x, A) takes it as it is"))  # fmt: skip
    return slips


def judge_shared_update(answer: Callable[..., Any]) -> str | None:
    """one frozen pair for maps of every size, stretched by two vectors"""
    for out, into, rank, lead in MAPS:
        A, B, b, d, x = _inputs(out, into, rank, lead)
        for dtype in (torch.float32, torch.float64):
            given = [t.clone() for t in (x.to(dtype), A, B, b, d)]
            try:
                got = answer(*given)
            except RuntimeError as error:
                if (out, into) != PAIR and "shape" in str(error):
                    return "it fails on a map smaller than the pair: use A's first `in` columns and B's first `out` rows"
                if dtype is torch.float64 and "dtype" in str(error):
                    return "it fails on x in another dtype: bring A and B to that of x"
                raise
            wide = [t.double() for t in (x, A, B, b, d)]
            want = torch.einsum("...i,ri,r,or,o->...o", wide[0], wide[1][:, :into], wide[4], wide[2][:out], wide[3])  # fmt: skip
            slips = [(t.to(dtype), words) for t, words in _named(*wide)]
            if slip := told(got, want.to(dtype), slips, "the update"):
                return slip
            if changed(given, (x.to(dtype), A, B, b, d)):
                return "an input was written into: A and B serve the next layer, too"
    return _gradient_slip(answer)


def _inputs(out: int, into: int, rank: int, lead: tuple[int, ...]) -> list[Tensor]:
    """A, B, b, d and x."""
    draw = torch.Generator().manual_seed(rank)
    shapes = ((rank, PAIR[1]), (PAIR[0], rank), (out,), (rank,), (*lead, into))
    return [torch.randn(shape, generator=draw) for shape in shapes]


def _gradient_slip(answer: Callable[..., Any]) -> str | None:
    A, B, b, d, x = _inputs(*MAPS[0])
    asked = {"b": b, "d": d, "x": x}
    for leaf in asked.values():
        leaf.requires_grad_()
    got = answer(x, A, B, b, d)
    if not got.requires_grad:
        return "no gradient passes: nothing would train; leave out no_grad and detach"
    if A.requires_grad or B.requires_grad:
        return "A and B are set to train: the pair is frozen"
    found = torch.autograd.grad(got.sum(), list(asked.values()), allow_unused=True)
    cut = [name for name, grad in zip(asked, found, strict=True) if grad is None]
    return f"no gradient reaches {cut[0]}: it must not be detached" if cut else None
