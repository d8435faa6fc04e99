"""The judges of notebook 06 for a smaller rank (06.4) and for subspaces that overlap (06.5)."""

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from labkit.exercises.ex05_judges import NONE, Slips, same
from labkit.exercises.ex06_borders import accepted
from labkit.exercises.ex06_judges import number_slip, pair

# --- 06.4 a smaller rank ----------------------------------------------------------------------

CASES = ((pair(9, 7, 4, 2.5), 2), (pair(6, 11, 5, 0.5, torch.float32), 3), (pair(8, 5, 3, -2.0), 3))


def _cut(c: SimpleNamespace, values: Tensor, k: int) -> Tensor:
    """D's first k directions with other values."""
    return (c.U[:, :k] * values[:k]) @ c.V[:, :k].T


def _truncation_slips(c: SimpleNamespace, k: int) -> Slips:
    A, B = c.A.double(), c.B.double()
    best = _cut(c, c.v, k)
    last = (c.U[:, -k:] * c.v[-k:]) @ c.V[:, -k:].T
    thin = torch.linalg.svd(A, full_matrices=False)
    onto = thin.Vh[:k].T @ thin.Vh[:k]
    strong = (A.norm(dim=1) * B.norm(dim=0)).topk(k).indices
    return [
        (c.s * B[:, :k] @ A[:k], "those are the first rows of A and columns of B, in no order: take an SVD first"),
        (c.s * B[:, -k:] @ A[-k:], "those are the last rows of A and columns of B, in no order: take an SVD first"),
        (c.s * B[:, strong] @ A[strong], "the longest rows and columns are not the largest directions: they are not at right angles"),
        (c.s * best, "the update is scaled twice: the scale comes on top of the new pair, so divide the values by it"),
        (best / c.s, "divided by the scale twice: once, over both factors together"),
        (c.s * _cut(c, c.v.square() / c.s, k), "each factor has the whole value: their product has its square. Take the root"),
        (c.s * _cut(c, c.v.square(), k), "each factor has the whole value: their product has its square. Take the root"),
        (c.s * _cut(c, (c.v / c.s).square(), k), "each factor has the whole value: their product has its square. Take the root"),
        (c.s * _cut(c, torch.ones_like(c.v), k), "the values are missing: these directions have length 1"),
        (c.s * _cut(c, c.v.sqrt(), k), "one root only: each factor takes the root of the value"),
        (c.s * _cut(c, (c.v / c.s).sqrt(), k), "one root only: each factor takes the root of the value"),
        (last, "those are the smallest values: keep the first ones"),
        (c.s * B @ A @ onto, "that cuts A alone, and does not see B: take the SVD of scale * B @ A"),
        (-best, "the sign of the update is turned"),
    ]  # fmt: skip


def judge_truncated(answer: Callable[..., Any]) -> str | None:
    """the nearest update of that rank, in two thin factors"""
    for c, k in CASES:
        got = answer(c.A, c.B, c.s, k)
        if got is None:
            return NONE
        if not isinstance(got, tuple | list) or len(got) != 2:
            return "return two tensors: the new A and the new B"
        if slip := _truncation_slip(c, k, *got):
            return slip
    wrong = ((0, c.s), (len(c.A) + 1, c.s), (1, 0.0))
    cases = (
        ((c.A, c.B, s, rank), f"rank {rank} of {len(c.A)} at scale {s:g}") for rank, s in wrong
    )
    return accepted(answer, cases)


def _truncation_slip(c: SimpleNamespace, k: int, A: Any, B: Any) -> str | None:  # noqa: ANN401
    out, into = c.D.shape
    if not isinstance(A, Tensor) or not isinstance(B, Tensor):
        return "return two tensors: the new A and the new B"
    shapes = tuple(A.shape), tuple(B.shape)
    if shapes == ((out, k), (k, into)):
        return "the other way round: first A (rank, in), then B (out, rank)"
    if shapes == ((into, k), (out, k)):
        return "A is (rank, in): transpose the right directions"
    if k < len(c.A) and shapes == ((len(c.A), into), (out, len(c.A))):
        return f"the pair still has rank {len(c.A)}: zeros that are kept save no memory"
    if shapes != ((k, into), (out, k)):
        return f"A and B have shapes {shapes}; they must be ({k}, {into}) and ({out}, {k})"
    if A.dtype != c.A.dtype or B.dtype != c.B.dtype:
        return f"the pair must keep the dtype of the given one, {c.A.dtype}".replace("torch.", "")
    if not A.isfinite().all() or not B.isfinite().all():
        return "the pair holds NaN or infinity"
    made = c.s * B.double() @ A.double()
    if same(made, _cut(c, c.v, k)):
        return None
    named = (words for wrong, words in _truncation_slips(c, k) if same(made, wrong))
    off, least = ((c.D - D).norm().item() for D in (made, _cut(c, c.v, k)))
    return next(named, f"it is {off:.3g} away from the update, and the nearest is {least:.3g} away")


# --- 06.5 overlap -----------------------------------------------------------------------------


def frame(n: int, columns: int, seed: int) -> Tensor:
    """(n, columns) with random orthonormal columns, float64."""
    draw = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(n, columns, generator=draw, dtype=torch.float64)).Q


def _overlap_cases() -> Iterator[tuple[Tensor, Tensor]]:
    """Different sizes both ways round; one that lies inside; the same one, turned within itself."""
    U = frame(9, 4, 0)
    yield frame(9, 2, 1), U
    yield U, frame(9, 3, 2)
    yield U, U[:, 1:3]
    yield U, -U @ frame(4, 4, 3)


def _overlap_slips(U1: Tensor, U2: Tensor) -> Iterator[tuple[float, str]]:
    M = U1.T @ U2
    total, (i, j) = float(M.square().sum()), M.shape
    least = min(i, j)
    yield total, "divide by the smaller number of columns: 1 must mean inside"
    yield (
        total / max(i, j),
        "divided by the larger number: a small subspace inside a large one has 1",
    )
    yield total / (i * j), "that is the mean square of all cosines; divide by min(i, j)"
    yield total / len(U1), "divided by the dimension of the space; divide by min(i, j)"
    yield total / (i + j), "divided by both numbers together; divide by min(i, j)"
    yield total**0.5 / least, "the norm is squared: phi = |U1^T U2|_F^2 / min(i, j)"
    yield (total / least) ** 0.5, "that is the root of phi"
    yield 1 - total / least, "that is a distance; an overlap of 1 means inside"
    yield float(M.abs().sum()) / least, "that adds absolute cosines; their squares are added"
    yield float(M.sum()) / least, "that adds cosines with their signs; their squares are added"
    yield (
        float(M.diagonal().square().sum()) / least,
        "that compares the i-th with the i-th alone; a subspace has no order",
    )
    yield (
        float(M.diagonal().abs().mean()),
        "that compares the i-th with the i-th alone; a subspace has no order",
    )
    yield float(M.abs().amax()), "that is the nearest single pair of directions; all pairs count"
    yield (
        float(M.abs().amax(1).mean()),
        "that takes the nearest partner of each; a direction may lie between several",
    )
    yield (
        float(torch.linalg.svdvals(M)[0]),
        "that is the cosine of the smallest angle alone; all angles count",
    )
    yield float(torch.linalg.svdvals(M).mean()), "that is the mean cosine of the angles; phi takes their squares"  # fmt: skip


def judge_overlap(answer: Callable[[Tensor, Tensor], Any]) -> str | None:
    """0 apart, 1 inside, whatever the order and the signs"""
    for U1, U2 in _overlap_cases():
        # by an independent route: how much of each column of the smaller the larger one holds
        small, large = sorted((U1, U2), key=lambda U: U.shape[1])
        inside = torch.linalg.lstsq(large, small).solution
        want = float((large @ inside).square().sum(0).mean())
        if slip := number_slip(answer(U1, U2), want, _overlap_slips(U1, U2), "the overlap"):
            return slip
    U, V = frame(9, 2, 1), frame(9, 4, 0)
    words = "columns that are not orthonormal (A or B instead of left or right)"
    leaning = torch.stack([V[:, 0], (V[:, 0] + V[:, 1]) / 2**0.5], dim=1)
    return accepted(
        answer,
        (
            ((3 * U, V), words),
            ((U, 3 * V), f"in the second argument, too, {words}"),
            ((leaning, V), "columns of length 1 that are not at right angles"),
            ((U, frame(8, 4, 0)), "subspaces of different spaces"),
        ),
    )
