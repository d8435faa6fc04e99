"""The judge of notebook 09 for the batched gather: what it gives, and how much work it is.

The right answer is a loop over the rows. The work is read from the operations that run: their
number must not grow with the batch, no (out, in) matrix may appear, and nothing that holds every
adapter for every row.
"""

from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from labkit.exercises.ex09_judges import told


class Ops(TorchDispatchMode):
    """Counts the tensor operations inside, and keeps the shapes of what they give."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[torch.Size] = []

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        result = func(*args, **(kwargs or {}))
        self.shapes.append(result.shape if isinstance(result, Tensor) else torch.Size())
        return result


def gather_case(
    rows: int,
    out: int = 7,
    into: int = 5,
    dtype: torch.dtype = torch.float32,
    adapters: int = 11,
) -> Any:  # noqa: ANN401
    """A batch in which every adapter occurs, some twice, and some rows ask for the base."""
    draw = torch.Generator().manual_seed(rows)
    rank, length = 3, 4
    x, A, B = (
        torch.randn(*shape, generator=draw, dtype=dtype)
        for shape in ((rows, length, into), (adapters, rank, into), (adapters, out, rank))
    )
    scales = torch.rand(adapters, generator=draw).add(0.5).to(dtype)
    which = torch.arange(rows) * 5 % (adapters + 1) - 1  # starts at -1, then jumps
    return SimpleNamespace(x=x, A=A, B=B, s=scales, which=which)


def parts(c: SimpleNamespace) -> tuple[Tensor, ...]:
    """What an answer is given."""
    return c.x, c.A, c.B, c.s, c.which


def by_loop(c: SimpleNamespace, at: Callable[[int, int], tuple[int, int, float] | None]) -> Tensor:
    """Row by row: `at(row, adapter)` gives whose A, whose B, and the scale; None: no update."""
    rows = []
    for row, one in enumerate(c.which.tolist()):
        own = at(row, one)
        y = torch.zeros(*c.x.shape[1:2], c.B.shape[1], dtype=c.x.dtype)
        rows.append(y if own is None else own[2] * c.x[row] @ (c.B[own[1]] @ c.A[own[0]]).T)
    return torch.stack(rows)


def _gather_slips(c: SimpleNamespace) -> Iterator[tuple[Tensor, str]]:
    s, w, n = c.s.tolist(), c.which.tolist(), len(c.A)
    first = next(one for one in w if one >= 0)

    def own(scale: Callable[[int, int], float], base: bool = True) -> Tensor:
        return by_loop(c, lambda r, a: None if base and a < 0 else (a, a, scale(r, a)))

    right = own(lambda r, a: s[a])
    yield (
        by_loop(c, lambda r, a: None if a < 0 else (first, first, s[first])),
        "every row gets the adapter of one row; each has its own: A[which]",
    )
    yield (
        by_loop(c, lambda r, a: (w[0], w[0], s[w[0]])),
        "every row gets the adapter of the first row; each has its own: A[which]",
    )
    yield (
        by_loop(c, lambda r, a: (r % n, r % n, s[r % n])),
        "row i gets adapter i; `which` says whose it is",
    )
    yield (
        by_loop(c, lambda r, a: (a, a, s[a])),
        "-1 is the base, but as an index it is the last adapter: these rows get no update",
    )
    yield (
        by_loop(c, lambda r, a: (max(a, 0), max(a, 0), s[max(a, 0)])),
        "rows of -1 get adapter 0 here; the base has no update, so they are zero",
    )
    yield own(lambda r, a: 1.0), "the scales are missing: each adapter has one"
    yield own(lambda r, a: s[0]), "every row has the scale of adapter 0: scales[which]"
    yield own(lambda r, a: s[r % n]), "row i has the scale of adapter i: scales[which]"
    yield own(lambda r, a: sum(s) / n), "each adapter has its own scale, not their mean"
    yield own(lambda r, a: s[a] ** 2), "the scale comes once"
    yield (
        own(lambda r, a: s[a] / c.A.shape[1]),
        "a scale is alpha / rank: it is divided by the rank already",
    )
    yield (
        by_loop(c, lambda r, a: None if a < 0 else (a, first, s[a])),
        "A is the row's own and B is not: B[which]",
    )
    yield (
        by_loop(c, lambda r, a: None if a < 0 else (first, a, s[a])),
        "B is the row's own and A is not: A[which]",
    )
    every = [by_loop(c, lambda r, a, k=k: (k, k, s[k])) for k in range(n)]
    yield torch.stack(every).sum(0), "that adds all adapters to every row; a row has one"
    yield torch.stack(every).mean(0), "that averages all adapters; a row has one, by `which`"
    mean = c.s.mean() * c.x @ (c.B.mean(0) @ c.A.mean(0)).T
    yield mean, "that averages the factors of all adapters; a row has one, by `which`"
    yield right[c.which.argsort()], "the rows come back in another order than they went in"
    yield right.mean(1, keepdim=True).expand_as(right), "each token has an update of its own"


def _work_slip(answer: Callable[..., Any]) -> str | None:
    """What the shapes of the intermediate results and their number say; None: nothing."""
    counts = []
    for rows, adapters in ((24, 11), (48, 11), (24, 22)):
        c = gather_case(rows, out=17, into=19, adapters=adapters)
        with Ops() as ops:
            answer(*parts(c))
        counts.append(len(ops.shapes))
        for shape in ops.shapes:
            if tuple(shape[-2:]) in ((17, 19), (19, 17)):
                return "it forms B @ A, (out, in): two thin products, x by A first, are enough"
            if rows in shape and len(c.A) in shape:
                return (
                    "it works through all adapters for each row: pick A[which] and B[which] first"
                )
    if counts[1] > counts[0]:
        return f"{counts[0]} operations for 24 rows, {counts[1]} for 48: no loop over rows"
    if counts[2] > counts[0]:
        return f"{counts[0]} operations for 11 adapters, {counts[2]} for 22: no loop over adapters"
    return None


def judge_gathered(answer: Callable[..., Any]) -> str | None:
    """two thin products for a whole batch, each row with its own adapter"""
    cases = (gather_case(24), gather_case(13, 6, 6), gather_case(12, 4, 9, torch.float64))
    for c in cases:
        kept = [t.clone() for t in parts(c)]
        got = answer(*kept)
        if any(not torch.equal(a, b) for a, b in zip(kept, parts(c), strict=True)):
            return "it changes what it was given: the next batch needs it as it was"
        want = by_loop(c, lambda r, a, c=c: None if a < 0 else (a, a, c.s[a].item()))
        if slip := told(got, want, list(_gather_slips(c)), "the update"):
            return slip
    c = gather_case(6)
    got, zeros = answer(*parts(c)[:-1], torch.full((6,), -1)), torch.zeros(6, 4, 7)
    if not isinstance(got, Tensor) or got.shape != zeros.shape or got.any():
        return "a batch of the base alone gets zeros, (batch, length, out) as ever"
    return _work_slip(answer)
