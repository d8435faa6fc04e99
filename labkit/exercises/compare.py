"""Says in one sentence how an answer differs from the right one.

A judge asks in this order, so that the first slip is the one that is named: nothing returned,
another kind of object, shape, dtype, not finite, values.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def tensor_slip(
    got: Any,  # noqa: ANN401
    want: "Tensor",
    what: str = "the result",
    tolerance: float = 1e-5,
) -> str | None:
    """How a tensor differs from `want`, or None. `tolerance` is relative to the largest |want|."""
    import torch  # here, so that the board of a browser-only notebook needs no torch

    if got is None:
        return "your code returned None: is a `return` missing?"
    if not isinstance(got, torch.Tensor):
        return f"{what} must be a tensor, not {type(got).__name__}"
    if got.shape != want.shape:
        return f"{what} has shape {tuple(got.shape)}; it must be {tuple(want.shape)}"
    if got.dtype != want.dtype:
        return f"{what} has dtype {got.dtype}; it must be {want.dtype}"
    if got.is_floating_point() and not got.isfinite().all():
        return f"{what} holds NaN or infinity"
    off = (got.detach().double() - want.double()).abs().max().item() if want.numel() else 0.0
    largest = want.double().abs().max().item() if want.numel() else 1.0
    if off > tolerance * max(largest, 1.0):
        return f"{what} is off by up to {off:.3g}"
    return None


def count_slip(got: Any, what: str = "the count") -> str | None:  # noqa: ANN401
    """Why `got` cannot be a count at all, or None."""
    if got is None:
        return "your code returned None: is a `return` missing?"
    if isinstance(got, bool) or not isinstance(got, int):
        return f"{what} must be a whole number (int), not {type(got).__name__} {got!r:.40}"
    return None
