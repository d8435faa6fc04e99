"""The singular values of an update, read from its two thin factors.

    D = scale B A             the update of a frozen weight W; rank at most r
    B = Q_B R_B,  A^T = Q_A R_A                            two thin QR factorisations
    scale R_B R_A^T = u diag(s) v^T                        an SVD of r x r numbers
    D = (Q_B u) diag(s) (Q_A v)^T                          so s are the singular values of D

    symbol   shape      in code          meaning
    A        (r, in)    A                reads the input
    B        (out, r)   B                writes the output
    s        (r,)       values           singular values, largest first
    Q_B u    (out, r)   left             output directions, orthonormal columns
    Q_A v    (in, r)    right            input directions, orthonormal columns

D is never formed: for 4096 x 4096 and r = 16 that is 256 numbers to decompose instead of 16.8
million. Everything is worked out in float64, since a subspace is read from small differences.

Sources: Hu et al. 2021, section 7 (overlap, amplification), https://arxiv.org/abs/2106.09685;
Roy and Vetterli 2007, The effective rank; Shuttleworth et al. 2024, section 3 (intruder
dimensions), https://arxiv.org/abs/2410.21228.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Spectrum:
    """A thin SVD: `left @ diag(values) @ right.T`, largest value first, float64."""

    values: Tensor  # (r,)
    left: Tensor  # (out, r)
    right: Tensor  # (in, r)

    def __str__(self) -> str:
        top = ", ".join(f"{value:.3g}" for value in self.values[:4].tolist())
        more = ", ..." if len(self.values) > 4 else ""
        return f"{len(self.values)} singular values: {top}{more}"

    __repr__ = __str__


def _checked(A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    """Both factors in float64.

    Raises:
        ValueError: if they are no pair, or hold a number that is not finite.
    """
    if A.ndim != 2 or B.ndim != 2 or A.shape[0] != B.shape[1]:
        raise ValueError(
            f"A {tuple(A.shape)} and B {tuple(B.shape)} are no pair: A is (rank, in), B (out, rank)"
        )
    for name, factor in (("A", A), ("B", B)):
        if not torch.isfinite(factor).all():
            raise ValueError(
                f"{name} holds a number that is not finite: the run that made it broke"
            )
    return A.detach().double(), B.detach().double()


def spectrum(A: Tensor, B: Tensor, scale: float = 1.0) -> Spectrum:
    """The SVD of `scale * B @ A` without forming it.

    Args:
        A: (rank, in).
        B: (out, rank).

    Raises:
        ValueError: if A and B are no pair, or not finite.
    """
    A, B = _checked(A, B)
    left, upper = torch.linalg.qr(B)
    right, lower = torch.linalg.qr(A.T)
    u, values, v = torch.linalg.svd(scale * upper @ lower.T, full_matrices=False)
    return Spectrum(values, left @ u, right @ v.T)


def singular_values(A: Tensor, B: Tensor, scale: float = 1.0) -> Tensor:
    """Singular values of `scale * B @ A`, largest first, without forming it.

    Args:
        A: (rank, in).
        B: (out, rank).

    Returns:
        (min(rank, out, in),), float64.
    """
    upper = torch.linalg.qr(B.double()).R
    lower = torch.linalg.qr(A.double().T).R
    return torch.linalg.svdvals(scale * upper @ lower.T)


def energy(values: Tensor, k: int) -> float:
    """Share of the squared Frobenius norm in the first `k` singular values, from 0 to 1.

    An update of zeros has no energy to share: 0.
    """
    squares = values.double().square()
    total = float(squares.sum())
    return float(squares[:k].sum()) / total if total else 0.0


def effective_rank(values: Tensor) -> float:
    """exp of the entropy of the singular values' shares: how many directions are in real use.

    r equal values give r, a single one gives 1, zeros give 0 (Roy and Vetterli 2007).
    """
    total = values.sum()
    if not total:
        return 0.0
    shares = values.double() / total
    return float(torch.exp(-torch.special.xlogy(shares, shares).sum()))


def energy_rank(values: Tensor, share: float = 0.9) -> int:
    """The fewest directions that hold `share` of the squared Frobenius norm.

    Raises:
        ValueError: if `share` is not above 0 and at most 1.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share={share} must lie above 0 and at most at 1")
    squares = values.double().square().cumsum(0)
    if not squares[-1]:
        return 0
    return int((squares < share * squares[-1] * (1 - 1e-12)).sum()) + 1


def overlap(U1: Tensor, U2: Tensor) -> float:
    """How much of the smaller subspace lies in the larger: 0 apart, 1 inside.

    phi = |U1^T U2|_F^2 / min(i, j), the LoRA paper's section 7.2. Two random subspaces of a space
    of n dimensions give max(i, j) / n: compare with that, not with 0.

    Args:
        U1: (n, i) with orthonormal columns.
        U2: (n, j) likewise.

    Raises:
        ValueError: if they lie in different spaces, or a column is not orthonormal.
    """
    if U1.ndim != 2 or U2.ndim != 2 or len(U1) != len(U2):
        raise ValueError(f"{tuple(U1.shape)} and {tuple(U2.shape)} lie in different spaces")
    for U in (U1, U2):
        eye = torch.eye(U.shape[1], dtype=U.dtype, device=U.device)
        if (U.T @ U - eye).abs().max() > 1e-4:
            raise ValueError("the columns must be orthonormal: take `left` or `right`, not A or B")
    return float((U1.T @ U2).square().sum()) / min(U1.shape[1], U2.shape[1])


def overlap_map(U1: Tensor, U2: Tensor) -> Tensor:
    """overlap of the first i columns of U1 and the first j of U2 at place (i - 1, j - 1)."""
    sums = (U1.T @ U2).square().cumsum(0).cumsum(1)
    rows, columns = (torch.arange(1, n + 1, device=sums.device) for n in sums.shape)
    return sums / torch.minimum(rows[:, None], columns)


def truncated(A: Tensor, B: Tensor, scale: float, rank: int) -> tuple[Tensor, Tensor]:
    """The best pair of a smaller rank: A (rank, in), B (out, rank), with the same `scale`.

    By Eckart and Young no pair of that rank comes nearer to `scale * B @ A` in Frobenius norm. What
    is lost is the energy of the values that are cut off. Each factor takes the root of each value.

    Raises:
        ValueError: if `rank` is not from 1 to the rank of the pair, or the scale is 0.
    """
    if not 1 <= rank <= len(A) or not scale:
        raise ValueError(f"rank={rank} must be from 1 to {len(A)}, scale={scale} not 0")
    whole = spectrum(A, B, scale)
    root = (whole.values[:rank] / abs(scale)).sqrt()
    small_A = (whole.right[:, :rank] * root).T
    small_B = whole.left[:, :rank] * root * (1 if scale > 0 else -1)
    return small_A.to(A.dtype), small_B.to(B.dtype)


def scrambled(
    values: Tensor, out: int, into: int, generator: torch.Generator | None = None
) -> Tensor:
    """An update with these singular values whose directions are drawn at random: the control.

    It has the rank and every norm of the update whose values these are, so what the two do not
    share comes from the directions alone.

    Args:
        values: (k,), k at most min(out, into).

    Returns:
        (out, into), float64.
    """
    left, right = (
        torch.linalg.qr(torch.randn(n, len(values), dtype=torch.float64, generator=generator)).Q
        for n in (out, into)
    )
    return (left * values.double()) @ right.T


def intruder_dimensions(
    W: Tensor, W_tuned: Tensor, top_k: int = 10, threshold: float = 0.5
) -> list[int]:
    """Which of the first `top_k` left singular vectors of W_tuned resemble none of W's.

    A vector is an intruder if its largest absolute cosine with ANY left singular vector of W, not
    only with the leading ones, lies below `threshold`. Where W's values are nearly equal, its
    vectors are arbitrary and noise alone makes intruders: count a random update of its norm, too.

    Args:
        W: (out, in), before fine-tuning.
        W_tuned: (out, in), after it; not the update alone.

    Raises:
        ValueError: if the shapes differ, or `top_k` is not from 1 to min(out, in).
    """
    if W.shape != W_tuned.shape or W.ndim != 2:
        raise ValueError(f"W {tuple(W.shape)} and W_tuned {tuple(W_tuned.shape)} must agree")
    if not 1 <= top_k <= min(W.shape):
        raise ValueError(f"top_k={top_k} must be from 1 to {min(W.shape)}")
    before = torch.linalg.svd(W.double(), full_matrices=False).U
    after = torch.linalg.svd(W_tuned.double(), full_matrices=False).U[:, :top_k]
    nearest = (before.T @ after).abs().amax(dim=0)  # (top_k,)
    return torch.nonzero(nearest < threshold).flatten().tolist()


def amplification(W: Tensor, A: Tensor, B: Tensor, scale: float, k: int | None = None) -> float:
    """How strongly an update weighs its own directions, compared with W's weight in them.

    |D|_F / |U^T W V|_F with D's first `k` directions U and V (Hu et al. 2021, section 7.3); k None
    takes all. 1 means that W already used these directions as much.
    """
    whole = spectrum(A, B, scale)
    U, V = whole.left[:, :k], whole.right[:, :k]
    inside = torch.linalg.matrix_norm(U.T @ W.double() @ V)
    return float(torch.linalg.vector_norm(whole.values[:k]) / inside)
