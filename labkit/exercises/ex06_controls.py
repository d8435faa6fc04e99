"""The judges of notebook 06 for intruders (06.6), their control (06.7) and amplification (06.8)."""

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from labkit.exercises.compare import tensor_slip
from labkit.exercises.ex05_judges import NONE, same
from labkit.exercises.ex06_borders import accepted
from labkit.exercises.ex06_judges import number_slip, pair
from labkit.exercises.ex06_subspaces import frame

# --- 06.6 intruder dimensions -----------------------------------------------------------------

SIZE = 12  # singular vectors of W


def _turn() -> Tensor:
    """(SIZE, SIZE) orthonormal: the vectors of W_tuned in those of W, each with a part to play."""
    turn = torch.zeros(SIZE, 6, dtype=torch.float64)
    turn[0, 0] = -1  # the same direction with its sign turned
    turn[3, 1] = 1  # the fourth has become the second
    turn[[1, 2, 4, 5, 6, 7], 2] = 6**-0.5  # an intruder: its largest cosine is 0.41
    turn[4, 3], turn[5, 3], turn[[8, 9], 3] = 0.6, -0.6, 0.14**0.5  # 0.6, squared 0.36
    turn[10, 4] = 1  # a trailing one that has come to the front
    turn[[1, 4, 5], 5], turn[[2, 6, 7], 5] = 6**-0.5, -(6**-0.5)  # an intruder further down
    rest = torch.randn(SIZE, SIZE - 6, generator=torch.Generator().manual_seed(33)).double()
    full = torch.linalg.qr(torch.cat([turn, rest], dim=1)).Q
    return torch.cat([turn, full[:, 6:]], dim=1)


def weights(out: int, into: int) -> SimpleNamespace:
    """W and W_tuned with known vectors; the right ones change in other places than the left."""
    U, V, turn = frame(out, SIZE, 2), frame(into, SIZE, 3), _turn()
    W = (U * torch.linspace(9, 1, SIZE).double()) @ V.T
    order = [1, 2, 0, 4, 3, *range(5, SIZE)]
    tuned = ((U @ turn) * torch.linspace(10, 1.5, SIZE).double()) @ (V @ turn[:, order]).T
    return SimpleNamespace(W=W, tuned=tuned, turn=turn)


INTRUDERS = ((weights(16, SIZE), 5, 0.5), (weights(SIZE, 15), 6, 0.5), (weights(14, SIZE), 6, 0.3))


def _below(nearest: Tensor, threshold: float) -> list[int]:
    return [i for i, cosine in enumerate(nearest.tolist()) if cosine < threshold]


def _intruder_slips(c: SimpleNamespace, k: int, t: float) -> Iterator[tuple[list[int], str]]:
    def svd(M: Tensor) -> tuple[Tensor, Tensor]:
        U, _, Vh = torch.linalg.svd(M, full_matrices=False)
        return U, Vh.T

    (U, V), (T, R), (D, _) = svd(c.W), svd(c.tuned), svd(c.tuned - c.W)
    cosines = U.T @ T
    near = cosines.abs()
    yield _below(near[:, :k].amax(0), 0.5), "0.5 is only the default: use `threshold`"
    yield (
        _below((U.T @ D)[:, :k].abs().amax(0), t),
        "those are vectors of the update alone; the singular vectors of W_tuned count",
    )
    yield (
        _below(near[:k, :k].amax(0), t),
        "a vector may resemble ANY of W's: compare with all of them, not the first top_k",
    )
    yield (
        _below(near.diagonal()[:k], t),
        "that compares the i-th with the i-th; a vector that moved up or down is no intruder",
    )
    yield _below(cosines[:, :k].amax(0), t), "a vector has no sign: take the absolute cosine"
    yield (
        _below((V.T @ R)[:, :k].abs().amax(0), t),
        "those are the right singular vectors; the left ones (outputs) are asked for",
    )
    yield _below(near.amax(0), t), "only the first top_k vectors of W_tuned are looked at"
    yield (
        _below(near[:, -k:].amax(0), t),
        "those are the last vectors of W_tuned; the first top_k are asked for",
    )
    yield (
        _below(near[:k].amax(1), t),
        "the other way round: those are vectors of W that W_tuned has lost",
    )
    yield (
        [i for i in range(k) if near[:, i].max() >= t],
        "the other way round: those resemble one of W's",
    )
    yield (
        _below(near[:, :k].mean(0), t),
        "the LARGEST cosine counts: one likeness is enough, and a mean is always small",
    )
    yield _below(near[:, :k].square().amax(0), t), "the cosine is compared with the threshold, not its square"  # fmt: skip


def judge_intruders(answer: Callable[..., Any]) -> str | None:
    """leading vectors of the tuned weight that resemble none of W's"""
    for c, k, threshold in INTRUDERS:
        got = answer(c.W, c.tuned, k, threshold)
        if got is None:
            return NONE
        if isinstance(got, Tensor):
            got = got.tolist()
        if isinstance(got, int | float):
            return "return WHICH ones, a list of their places: len() of it is the number"
        if not isinstance(got, list | tuple) or not all(type(i) is int for i in got):
            return "return a list of whole numbers: the places of the intruders, from 0 on"
        want = _below(c.turn[:, :k].abs().amax(0), threshold)  # known, as the vectors were chosen
        if list(got) != want:
            named = (
                words for wrong, words in _intruder_slips(c, k, threshold) if wrong == list(got)
            )
            return next(named, f"intruders at {list(got)} of the first {k}; they are at {want}")
    wrong = ((c.tuned, 0, "top_k of 0"), (c.tuned, SIZE + 1, "top_k above min(out, in)"), (c.tuned[:-1], 5, "weights of two shapes"))  # fmt: skip
    cases = (((c.W, T, top), words) for T, top, words in wrong)
    return accepted(answer, cases)


# --- 06.7 the control -------------------------------------------------------------------------


def _control_slips(got: Tensor, values: Tensor) -> Iterator[tuple[bool, str]]:
    out, into = got.shape
    norm = got.norm()
    found, k = torch.linalg.svdvals(got), len(values)

    def has(wanted: Tensor) -> bool:
        return same(found[: len(wanted)], wanted.sort(descending=True).values)

    yield not norm, "the control is zero"
    yield (
        found[-1] > 1e-6 * found[0] and torch.isclose(norm, values.norm()),
        "the norm is right, but all directions share it: noise has many small values, and the control needs the SAME values",
    )
    yield has(torch.ones(k).double()), "the values are missing: these directions have length 1"
    yield has(values.square()), "the values are squared: one side alone takes them"
    yield (
        has(values.sqrt()),
        "the roots of the values stand there: their product over both sides is the value",
    )
    yield has(values / values.norm()), "the control has norm 1; it needs the norm of the update"
    yield (
        has(values[:1]) and not has(values),
        "only the largest value is right: all of them belong to the update",
    )
    yield (
        not has(values),
        "its singular values differ from the given ones: are both sets of directions orthonormal?",
    )
    yield (
        got.abs().amax(1).gt(1e-9).sum() <= k,
        "its output directions are those of the axes: draw them at random",
    )
    yield (
        got.abs().amax(0).gt(1e-9).sum() <= k,
        "its input directions are those of the axes: draw them at random",
    )
    yield out == into and torch.allclose(got, got.T), "left and right are the same directions: draw each anew"  # fmt: skip


def judge_scrambled(answer: Callable[..., Any]) -> str | None:
    """the same values in directions that mean nothing"""
    for out, into in ((8, 8), (6, 11)):
        values = torch.tensor([4.0, 1.5, 0.5], dtype=torch.float64)
        want = torch.zeros(out, into, dtype=torch.float64)
        drawn = [
            answer(values, out, into, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
        ]
        for got in drawn:
            if isinstance(got, Tensor) and got.shape == (into, out) and into != out:
                return "a weight is (out, in); that is its transpose"
            if slip := tensor_slip(got, want, "the control", float("inf")):
                return slip
            if slip := next((words for bad, words in _control_slips(got, values) if bad), None):
                return slip
        if torch.allclose(drawn[0], drawn[2]):
            return "two generators give the same control: are the directions drawn from it?"
        if not torch.equal(drawn[0], drawn[1]):
            return "the same generator state gives two controls: draw from `generator`"
        if slip := _one_side(drawn[0], drawn[2]):
            return slip
    return None


def _one_side(one: Tensor, other: Tensor) -> str | None:
    """Whether only one side of a control was drawn."""
    a, b = (torch.linalg.svd(M, full_matrices=False) for M in (one, other))
    if torch.allclose((a.U[:, :3].T @ b.U[:, :3]).abs(), torch.eye(3, dtype=one.dtype), atol=1e-6):
        return "the output directions stay the same from draw to draw: draw both sides"
    if torch.allclose((a.Vh[:3] @ b.Vh[:3].T).abs(), torch.eye(3, dtype=one.dtype), atol=1e-6):
        return "the input directions stay the same from draw to draw: draw both sides"
    return None


# --- 06.8 amplification -----------------------------------------------------------------------


def _amplification_slips(
    W: Tensor, c: SimpleNamespace, k: int | None
) -> Iterator[tuple[float, str]]:
    U, V, v = c.U[:, :k], c.V[:, :k], c.v[:k]
    P, Q = (f(torch.linalg.svd(W, full_matrices=False)) for f in (lambda s: s.U[:, : len(v)], lambda s: s.Vh[: len(v)].T))  # fmt: skip
    top, inside, whole = (float(M.norm()) for M in (v, U.T @ W @ V, W))
    yield (
        top / whole,
        "that divides by the norm of all of W; only W inside the update's directions counts",
    )
    yield inside / top, "upside down: the update stands above, W's part in its directions below"
    yield top / c.s / inside, "the scale is missing: the update is scale * B @ A"
    yield -top / inside, "a norm has no sign: a negative scale turns the update alone"
    yield (top / inside) ** 2, "that is the ratio of energies; the norms are asked for"
    yield (
        top / float((P.T @ W @ Q).norm()),
        "those are W's own leading directions; the update's are asked for",
    )
    yield top / float((U.T @ W).norm()), "both sides count: U^T W V"
    yield top / float((W @ V).norm()), "both sides count: U^T W V"
    yield (
        float(v[0]) / float(torch.linalg.matrix_norm(U.T @ W @ V, 2)),
        "that compares the largest values; the Frobenius norms are asked for",
    )
    yield (
        top / float((U.T @ (W + c.D) @ V).norm()),
        "W is the weight before fine-tuning, without the update",
    )
    yield float(c.v.norm()) / inside, "above, too, only the first k directions count"
    full = float((c.U.T @ W @ c.V).norm())
    yield top / full, "below, too, only the first k directions count"
    yield float(c.v.norm()) / full, "`k` is ignored: take the first k directions"
    yield float((U.T @ W @ V).diagonal().norm()) and top / float((U.T @ W @ V).diagonal().norm()), "the whole of U^T W V counts, not its diagonal"  # fmt: skip


def judge_amplification(answer: Callable[..., Any]) -> str | None:
    """the update's weight in its own directions, over W's"""
    for c, k in ((pair(9, 7, 3, 2.5), None), (pair(6, 11, 4, -0.5), 2)):
        draw = torch.Generator().manual_seed(5)
        W = torch.randn(c.D.shape, generator=draw, dtype=torch.float64)
        n = k or len(c.v)
        # by an independent route: one direction after another
        inside = sum(float(c.U[:, i] @ W @ c.V[:, j]) ** 2 for i in range(n) for j in range(n))
        want = float(c.v[:n].square().sum() / inside) ** 0.5
        got = answer(W, c.A, c.B, c.s, k)
        slips = _amplification_slips(W, c, k)
        if slip := number_slip(got, want, slips, "the factor"):
            return slip
    return None
