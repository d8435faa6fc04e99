"""The judges of notebook 09 for its functions of tensors: merging and rounding.

That of the batched gather is in ex09_gather, those of names, exports and costs in ex09_doors.

Each finds the right answer by another route than the solution's, and names the slip by simulation:
what would the published mistake give on this very input? B is never zero, alpha / rank is not 1, and
one map is square, where a transpose raises nothing.
"""

import copy
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from labkit.exercises.compare import tensor_slip
from labkit.nf4 import NF4Linear

Slips = list[tuple[Tensor, str]]
NONE = "your code returned None: is a `return` missing?"


def same(got: Tensor, want: Tensor, tolerance: float = 1e-5) -> bool:
    """Equal to rounding, whatever the dtypes."""
    return got.shape == want.shape and torch.allclose(
        got.double(), want.double(), rtol=tolerance, atol=tolerance * want.abs().max().item()
    )


def told(got: Any, want: Tensor, slips: Slips, what: str) -> str | None:  # noqa: ANN401
    """How a tensor differs from `want`: by the mistake that gives it, else plainly. None: not."""
    if isinstance(got, Tensor) and got.is_floating_point():
        if got.dtype == want.dtype and same(got.detach(), want):
            return None
        for wrong, words in slips:
            if same(got.detach(), wrong):
                return words
    return tensor_slip(got, want, what, 1e-5)


def number(got: Any, want: float, slips: list[tuple[float, str]], what: str) -> str | None:  # noqa: ANN401
    """How a number differs from `want`: by the mistake that gives it, else plainly. None: not."""
    if got is None:
        return NONE
    if isinstance(got, bool) or not isinstance(got, float | int):
        return f"{what} must be a float, not {type(got).__name__}: is .item() missing?"
    if math.isclose(got, want, rel_tol=1e-4):
        return None
    near = (words for wrong, words in slips if math.isclose(got, wrong, rel_tol=1e-4))
    return next(near, f"{what} is {got:.4g}; it must be {want:.4g}")


# --- 09.1 merge a QLoRA adapter ---------------------------------------------------------------


def merge_case(out: int, into: int, rank: int, scale: float) -> SimpleNamespace:
    """A checkpoint's map, its NF4 twin, and an adapter that was trained beside the twin."""
    torch.manual_seed(out)
    linear = nn.Linear(into, out, bias=False).requires_grad_(False)
    A, B = 0.1 * torch.randn(rank, into), 0.1 * torch.randn(out, rank)
    return SimpleNamespace(W=linear.weight, packed=NF4Linear(linear), A=A, B=B, s=scale)


MERGES = (merge_case(64, 64, 2, 1.5), merge_case(48, 96, 3, 0.75))


def again_in_4_bits(weight: Tensor) -> Tensor:
    """`weight` in NF4 and back."""
    linear = nn.Linear(*weight.T.shape, bias=False)
    linear.weight = nn.Parameter(weight.detach(), requires_grad=False)
    return NF4Linear(linear).dense()


def _merge_slips(c: SimpleNamespace) -> Slips:
    W4, D = c.packed.dense(), c.B @ c.A
    right = W4 + c.s * D
    slips = [
        (c.W + c.s * D, "that is the checkpoint's weight; A and B were trained beside the 4-bit one, so they answer its errors: dense(packed)"),
        (again_in_4_bits(right), "that went back to 4 bits, which rounds the update away: keep the sum as it is"),
        (again_in_4_bits(c.W + c.s * D), "the checkpoint's weight, and quantised after the merge: neither was trained"),
        (W4 + again_in_4_bits(c.s * D), "the update itself is not quantised: it stays as it was trained"),
        (W4 + D, "the scale is forgotten: the update is scale * B @ A"),
        (W4 + c.s * c.s * D, "the scale comes once: scale * B @ A"),
        (W4 + c.s / len(c.A) * D, "`scale` is alpha / rank: it is divided by the rank already"),
        (W4 + 2 * c.s * D, "the update is added twice"),
        (W4 - c.s * D, "the update is added, not taken away"),
        (c.s * (W4 + D), "the scale belongs to the update alone"),
        (W4, "the update is missing: add scale * B @ A"),
        (c.s * D, "that is the update alone; add it to the weight it was trained beside"),
        (right - c.W, "that is the change from the checkpoint; return the whole weight"),
        (right.T, "the merged weight is (out, in), as the map applies it"),
        (right.bfloat16(), "that is rounded to 16 bits; keep float32 here, the next exercise rounds"),
    ]  # fmt: skip
    if c.W.shape[0] == c.W.shape[1]:
        slips.append((W4 + c.s * D.T, "the update is transposed: B @ A is (out, in) as it stands"))
    return slips


def _mismatch_slips(c: SimpleNamespace) -> list[tuple[float, str]]:
    W4, update = c.packed.dense(), c.s * c.B @ c.A
    off, size = (W4 - c.W).norm().item(), update.norm().item()
    return [
        (off / c.W.norm().item(), "that is relative to the weight; compare with the update"),
        (off / W4.norm().item(), "that is relative to the 4-bit weight; compare with the update"),
        (size / off, "the other way round: the mismatch over the update"),
        ((off / size) ** 2, "take the root: sizes are norms"),
        (off, "divide by the size of the update"),
        (off * c.s / size, "the update has its scale: |scale * B @ A|"),
        ((W4 + update - c.W).norm().item() / size, "leave the update out of the difference: only the bases differ"),
        (((W4 - c.W).abs().max() / update.abs().max()).item(), "that compares the largest entries; sizes are norms"),
        (((W4 - c.W).abs().mean() / update.abs().mean()).item(), "that compares mean entries; sizes are norms"),
        (torch.linalg.matrix_norm(W4 - c.W, 2).item() / torch.linalg.matrix_norm(update, 2).item(), "that is the largest singular value; take the plain norm over all entries"),
    ]  # fmt: skip


def judge_merge(answer: Callable[..., Any]) -> str | None:
    """into the weight that the adapter was trained beside"""
    for c in MERGES:
        given = [c.W.clone(), c.A.clone(), c.B.clone()]
        packed = copy.deepcopy(c.packed)
        got = answer(given[0], packed, given[1], given[2], c.s)
        if got is None:
            return NONE
        if not isinstance(got, tuple | list) or len(got) != 2:
            return "return two things: the merged weight, and the mismatch as a float"
        for name, now, then in zip(("original", "A", "B"), given, (c.W, c.A, c.B), strict=True):
            if not torch.equal(now, then):
                return f"it changes `{name}` in place: other adapters still need what it was"
        kept, now = c.packed.state_dict(), packed.state_dict()
        if any(now[k].dtype != v.dtype or not torch.equal(now[k], v) for k, v in kept.items()):
            return "it changes `packed` in place: other adapters still need what it was"
        # by columns of the identity, through the map itself
        eye = torch.eye(c.packed.in_features)
        want = (c.packed(eye) + c.s * torch.einsum("or,ri->io", c.B, c.A)).T
        off = (c.packed(eye).T - c.W).square().sum() / (c.s * c.B @ c.A).square().sum()
        slip = told(got[0], want, _merge_slips(c), "the merged weight")
        slip = slip or number(got[1], off.sqrt().item(), _mismatch_slips(c), "the mismatch")
        if slip:
            return slip
    c = MERGES[0]
    half = NF4Linear(nn.Linear(64, 64, bias=False, dtype=torch.bfloat16).requires_grad_(False))
    got = answer(c.W.bfloat16(), half, c.A, c.B, c.s)[0]
    if slip := told(got, half.dense().float() + c.s * c.B @ c.A, [], "the merged weight"):
        return f"beside a map that computes in bfloat16: {slip}; float() the decoded weight first"
    return None


# --- 09.2 what rounding loses -----------------------------------------------------------------


def _rounding_slips(W: Tensor, delta: Tensor, dtype: torch.dtype) -> list[tuple[float, str]]:
    """Values of published or likely mistakes."""
    realised = (W + delta).to(dtype).to(W.dtype) - W
    error, alone = realised - delta, delta.to(dtype).to(W.dtype) - delta
    size = delta.norm()
    pairs = [
        (error.norm() / W.norm(), "that is relative to the weight, where it looks harmless; divide by the size of the update"),
        (alone.norm() / size, "that rounds the update alone, which fits well; the sum is what gets stored"),
        (realised.norm() / size, "that is the size of what is stored over what was asked for; take the size of their difference"),
        (1 - realised.norm() / size, "sizes may agree where entries do not: take the norm of the difference"),
        ((size - realised.norm()).abs() / size, "sizes may agree where entries do not: take the norm of the difference, entry by entry"),
        ((error.norm() / size).square(), "take the root: a size is a norm"),
        ((realised == 0).float().mean(), "that is the share of entries that did not move; some that moved went too far"),
        ((realised != 0).float().mean(), "that is the share of entries that moved, not what is lost"),
        (error.norm(), "divide by the size of the update"),
        (error.abs().max() / delta.abs().max(), "that compares the largest entries; sizes are norms"),
        (error.abs().mean() / delta.abs().mean(), "that compares mean entries; sizes are norms"),
        (1 - error.norm() / size, "that is what is kept; the lost share is its rest"),
        ((realised + delta).norm() / size, "the update is subtracted, not added"),
        (((W + delta).to(dtype).to(W.dtype)).norm() / size, "subtract W and the update before the norm"),
        (((W + delta).bfloat16().to(W.dtype) - W - delta).norm() / size, "that rounds to bfloat16 whatever `dtype` says"),
        (size / error.norm(), "the other way round: what is lost over what was asked for"),
    ]  # fmt: skip
    return [(float(value), words) for value, words in pairs]


def judge_lost(answer: Callable[..., Any]) -> str | None:
    """the part of an update that a store of few bits loses"""
    torch.manual_seed(0)
    for dtype, size in ((torch.bfloat16, 1e-2), (torch.bfloat16, 1e-3), (torch.float16, 1e-3)):
        W = torch.randn(48, 32).to(dtype).float()
        delta = size * torch.randn(48, 2) @ torch.randn(2, 32)
        kept = W.clone(), delta.clone()
        got = answer(W, delta, dtype)
        if not (torch.equal(W, kept[0]) and torch.equal(delta, kept[1])):
            return "it changes what it was given: write W + delta, not W += delta"
        a, b = W.double(), delta.double()
        off = (W + delta).to(dtype).double() - a - b
        want = math.sqrt(off.square().sum() / b.square().sum())
        if slip := number(got, want, _rounding_slips(W, delta, dtype), "the lost share"):
            return slip
    return None
