"""Rows of a weight as lengths and directions, and DoRA written plainly.

    W = m V,  |V_i| = 1            magnitude m (out,), direction V (out, in)
    W' = m (W + s B A) / |W + s B A|

    symbol   shape         meaning
    W        (out, in)     a weight as PyTorch stores it: a row for each output
    |.|      (out,)        length of each row, so one number for each output
    B, A     thin          LoRA's factors, (out, rank) and (rank, in); s = alpha / rank

These are definitions, to be read and compared with; the layer in `labkit.dora` computes the same
without a dense matrix. Its key is `factored_norms`:

    |W_i + s B_i A|^2 = |W_i|^2 + 2 s B_i (W A^T)_i + s^2 B_i (A A^T) B_i^T

Source: Liu et al. 2024, sections 3.2, 4.1 and 4.3, https://arxiv.org/abs/2402.09353
"""

import torch
from torch import Tensor

# Rounding can push the square of a row that the update cancels below zero; and a row of zeros, with
# its magnitude of zero, must be 0 / tiny and not 0 / 0.
TINY = torch.finfo(torch.float32).tiny


def row_norms(weight: Tensor) -> Tensor:
    """Length of each output row of an (out, in) weight, shape (out,), in float32 or wider."""
    wide = torch.promote_types(weight.dtype, torch.float32)
    return torch.linalg.vector_norm(weight, dim=1, dtype=wide)


def decompose(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Magnitude (out,) and direction (out, in) of an (out, in) weight.

    Each row of the direction has length 1, and magnitude times direction gives the weight back.
    """
    magnitude = torch.linalg.vector_norm(weight, dim=1)
    return magnitude, weight / magnitude[:, None]


def dense_forward(
    x: Tensor, weight: Tensor, A: Tensor, B: Tensor, magnitude: Tensor, scale: float
) -> Tensor:
    """What DoRA computes, through the dense weight: x (..., in) to (..., out).

    Args:
        weight: (out, in), frozen.
        A: (rank, in).
        B: (out, rank).
        magnitude: (out,), the length that each row is given.
        scale: alpha / rank.
    """
    turned = weight + scale * B @ A
    length = torch.linalg.vector_norm(turned, dim=1, keepdim=True)
    return x @ (magnitude[:, None] * turned / length).T


def detached_weight(turned: Tensor, magnitude: Tensor) -> Tensor:
    """Rows of `turned` (out, in) at the lengths `magnitude` (out,).

    The norm is held constant in the backward pass: no gradient flows through it.
    """
    norms = torch.linalg.vector_norm(turned, dim=1).detach()
    return (magnitude / norms)[:, None] * turned


def factored_norms(squares: Tensor, products: Tensor, A: Tensor, B: Tensor, scale: float) -> Tensor:
    """Row lengths (out,) of W + scale B A, without that matrix.

    Args:
        squares: (out,), the squared length of each row of W.
        products: (out, rank), W A^T.
        A: (rank, in).
        B: (out, rank).
        scale: alpha / rank.
    """
    # Widened first, products of 16 bits are not rounded again. (`torch.add(..., alpha=2 * scale)`
    # would spare a kernel, but torch.compile forgets its alpha beside a matrix product.)
    crossed = scale**2 * B @ (A @ A.T) + 2 * scale * products.to(B.dtype)
    moved = squares + (B * crossed).sum(dim=1)
    return moved.clamp(min=TINY).sqrt()


def movement(before: Tensor, after: Tensor) -> tuple[float, float]:
    """How far the rows of an (out, in) weight went: mean change of length, and of direction.

    The length in the unit of the weight, |m' - m|; the direction as 1 - cosine, from 0 to 2.

    Source: Liu et al. 2024, section 3.2, equations 2 and 3.
    """
    (m, v), (moved, turned) = decompose(before.double()), decompose(after.double())
    return (moved - m).abs().mean().item(), (1 - (v * turned).sum(dim=1)).mean().item()
