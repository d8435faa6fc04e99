"""The judges of notebook 05 for the norm: held constant (05.4), and without the matrix (05.5).

The first compares values and then gradients, which tell where the graph was cut. The second also
watches the size of what is made on the way.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from labkit.exercises.ex05_judges import (
    AXIS,
    BROADCAST,
    CASES,
    Slips,
    case,
    row_lengths,
    same,
    told,
)

# --- 05.4 the detached norm -------------------------------------------------------------------


def _slopes(weight: Tensor, turned: Tensor, m: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of turned and m; zeros where there is none."""
    found = torch.autograd.grad((weight * up).sum(), (turned, m), allow_unused=True)
    return tuple(torch.zeros_like(t) if g is None else g for g, t in zip(found, (turned, m), strict=True))  # fmt: skip


def judge_detached_weight(answer: Callable[[Tensor, Tensor], Any]) -> str | None:
    """the same rows, the magnitude's gradient whole, and none through the norm"""
    for c in CASES:
        turned, m = (c.W + c.s * c.B @ c.A).requires_grad_(), c.m.clone().requires_grad_()
        lengths = row_lengths(turned)
        want = torch.diag(m) @ turned / lengths
        got = answer(turned, m)
        if slip := told(
            got, want.detach(), _value_slips(turned.detach(), m.detach()), "the weight"
        ):
            return slip
        if not got.requires_grad:
            return (
                "nothing can learn: the result hangs on no gradient. Hold the norm alone constant"
            )
        up = torch.linspace(-1, 2, turned.numel(), dtype=turned.dtype).reshape(turned.shape)
        right = _slopes(torch.diag(m) @ turned / lengths.detach(), turned, m, up)
        if slip := _slope_slip(_slopes(got, turned, m, up), right, _slopes(want, turned, m, up)):
            return slip
    return None


def _value_slips(turned: Tensor, m: Tensor) -> Slips:
    lined = turned.shape[0] == turned.shape[1]  # only there does lining up wrong raise nothing
    return [
        *([(m * turned / turned.norm(dim=1), BROADCAST)] if lined else []),
        (m[:, None] * turned / turned.norm(), "that divides by the length of the whole matrix; each row has its own"),
        (m[:, None] * turned / turned.norm(dim=0), AXIS),
        (m[:, None] * turned, "the rows keep their lengths: divide by their norms"),
        (turned / row_lengths(turned), "the magnitude is missing"),
        (m[:, None] * turned / row_lengths(turned).square(), "the length is the root of the sum of squares"),
    ]  # fmt: skip


def _slope_slip(got: tuple, right: tuple, exact: tuple) -> str | None:
    """What the gradients of turned and m say of where the graph was cut."""
    if all(same(a, b) for a, b in zip(got, right, strict=True)):
        return None
    turned, m = got
    if not turned.any():
        return "the direction cannot learn: the gradient of `turned` is cut. Detach the norm alone"
    if not m.any():
        return "the magnitude cannot learn: it was detached too, with the norm it is divided by"
    if same(turned, exact[0]):
        return "the gradient still flows through the norm: detach the norm"
    return "the gradients are off although the weight is right: which tensor is detached?"


# --- 05.5 the factored norm -------------------------------------------------------------------


class Sizes(TorchDispatchMode):
    """Remembers the largest matrix that is made within it."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.largest = max(self.largest, result.numel())
        return result


def _norm_slips(c: SimpleNamespace) -> Slips:
    squares, P = c.W.square().sum(1), c.W @ c.A.T
    cross, own = (c.B * P).sum(1), (c.B @ (c.A @ c.A.T) * c.B).sum(1)
    s = c.s
    right = squares + 2 * s * cross + s * s * own
    rows = [
        (squares + s * s * own, "the middle term is missing: W and the update are not at right angles"),
        (squares + s * cross + s * s * own, "the middle term comes twice: (a + b)^2 = a^2 + 2ab + b^2"),
        (squares + 2 * s * cross + s * own, "the last term takes the square of the scale"),
        (squares + 2 * cross + own, "the scale is missing: the update is scale * B @ A"),
        (squares + 2 * s * cross, "the last term is missing: the update has a length of its own"),
        (squares + 2 * cross + s * s * own, "the scale is missing in the middle term"),
        (squares - 2 * s * cross + s * s * own, "the middle term has the wrong sign: W and the update are added"),
        (squares.square() + 2 * s * cross + s * s * own, "`squares` are squared already"),
        (squares.sqrt() + 2 * s * cross + s * s * own, "`squares` are squared lengths: take one root, at the end"),
        (squares + 2 * s * cross + s * s * (c.B * c.B).sum(1), "the last term needs A A^T between B and B"),
        (squares + 2 * s * cross + s * s * (c.B * c.B) @ (c.A * c.A).sum(1), "rows of A are not at right angles: the last term needs all of A A^T, not its diagonal"),
        ((squares.sqrt() + s * own.sqrt()).square(), "lengths do not add: the middle term is 2 s B (W A^T)"),
        (squares + 2 * s * P.sum(1) + s * s * own, "each row of products meets its own row of B"),
    ]  # fmt: skip
    roots = [(value.clamp(min=0).sqrt(), words) for value, words in rows]
    root = "take the root at the end: that is the squared length"
    return [(right, root), *roots]


def judge_factored_norms(answer: Callable[..., Any]) -> str | None:
    """the row lengths of W + scale B A from thin products alone"""
    for c in (case(40, 200, 2, 1.5), case(120, 60, 3, 0.5, torch.float64)):
        given = c.W.square().sum(1), c.W @ c.A.T, c.A, c.B, c.s
        with Sizes() as made:
            got = answer(*given)
        want = torch.stack([row.dot(row) ** 0.5 for row in c.W + c.s * c.B @ c.A])
        if isinstance(got, Tensor) and got.shape == (len(want), len(want)):
            return "that is a matrix (out, out); only its diagonal is wanted: multiply by B and sum"
        if slip := told(got, want, _norm_slips(c), "the result"):
            return slip
        if made.largest >= c.W.numel():
            return "right, but it forms a matrix as large as W: A A^T is only (rank, rank)"
    return None
