"""What a low rank can hold, and how far LoRA's first step goes at each rank.

    nearest(D, rank)                   the nearest matrix of at most that rank
    factor_gradients(G, A, B, scale)     what A and B feel, from what W feels
    first_step(G, A, scale, rate, ..)    how W' = W + scale B A moves in one step from B = 0
    rounding(W)                          what a bfloat16 weight takes up of an update

    symbol   shape         meaning
    D        (out, in)     an update of a weight, such as W after fine-tuning minus W before
    G        (out, in)     gradient of the loss with respect to W'
    A, B     as in lora    (rank, in) and (out, rank)

With B = 0 the gradient of A is zero and that of B is scale G A^T. SGD moves B by it, Adam by its
sign. So W' moves by scale^2 G A^T A under SGD, by scale sign(G A^T) A under Adam: the one grows
like scale^2 rank, the other like scale rank, measured by the loss it takes away.

Sources: Eckart and Young 1936 for the truncation; Hu et al. 2021, section 4.1, for alpha / rank;
Kalajdzievski 2023, https://arxiv.org/abs/2312.03732, for alpha / sqrt(rank).
Left out on purpose: every step after the first, weight decay, and the gradient's own scale.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from labkit.table import Table

Growth = dict[tuple[str, str], dict[int, tuple[float, ...]]]  # by (optimizer, rule), by rank
ALPHA = 16.0  # of the rules below; every figure is a ratio, so it cancels
RULES: dict[str, Callable[[int], float]] = {  # scale by rank
    "alpha / rank": lambda rank: ALPHA / rank,
    "alpha / sqrt(rank)": lambda rank: ALPHA / math.sqrt(rank),
    "alpha = 2 rank": lambda rank: 2.0,
}


def nearest(matrix: Tensor, rank: int) -> Tensor:
    """The nearest matrix of at most `rank` to `matrix`, by the sum of squares; the same shape."""
    U, S, Vh = torch.linalg.svd(matrix, full_matrices=False)
    return U[:, :rank] * S[:rank] @ Vh[:rank]


def factor_gradients(G: Tensor, A: Tensor, B: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """The gradients of A and of B, from G (out, in), that of W' = W + scale * B A."""
    return scale * B.T @ G, scale * G @ A.T


def first_step(G: Tensor, A: Tensor, scale: float, rate: float, optimizer: str) -> Tensor:
    """How W' = W + scale * B A moves in one step from B = 0, from G, its gradient; (out, in).

    "sgd" steps by rate * gradient; the first step of "adam" is rate * sign(gradient).
    """
    gradient = scale * G @ A.T
    B = -rate * (gradient.sign() if optimizer == "adam" else gradient)
    return scale * B @ A


def step_sizes(
    G: Tensor,
    rank: int,
    scale: float,
    optimizer: str,
    step: Callable[..., Tensor] = first_step,
    draws: int = 8,
) -> tuple[float, float]:
    """Of the first step D at rate 1, as means over `draws` of A: the loss that it takes away, to
    first order -<G, D>, and its length, the Frobenius norm of D."""
    width, generator = G.shape[1], torch.Generator().manual_seed(0)
    found = []
    for _ in range(draws):
        A = (2 * torch.rand(rank, width, generator=generator) - 1) / math.sqrt(width)
        D = step(G, A, scale, 1.0, optimizer)
        found.append((-(G * D).sum(), D.norm()))
    loss, length = (torch.stack(each).mean().item() for each in zip(*found, strict=True))
    return loss, length


def scaling(
    G: Tensor, ranks: Sequence[int] = (16, 256), step: Callable[..., Tensor] = first_step
) -> Growth:
    """`step_sizes` by (optimizer, rule) and rank, each as a multiple of the same at rank 1."""
    found: Growth = {}
    for optimizer in ("adam", "sgd"):
        for rule, scale in RULES.items():
            start = step_sizes(G, 1, scale(1), optimizer, step, draws=32)
            found[optimizer, rule] = {
                rank: tuple(
                    now / then
                    for now, then in zip(
                        step_sizes(G, rank, scale(rank), optimizer, step), start, strict=True
                    )
                )
                for rank in ranks
            }
    return found


def scaling_table(found: Growth) -> Table:
    """What `scaling` found, a row for each optimizer and rule."""
    ranks, kinds = list(next(iter(found.values()))), ("loss taken away", "length")
    head = ["first step, against rank 1", *(f"{k}, rank {r}" for k in kinds for r in ranks)]
    rows = [
        [f"{optimizer}, {rule}", *(f"{by[r][k]:.3g}" for k in range(len(kinds)) for r in ranks)]
        for (optimizer, rule), by in found.items()
    ]
    return Table(head, rows)


def rounding(W: Tensor, shares: Sequence[float] = (1e-1, 1e-2, 1e-3, 1e-4)) -> Table:
    """What is lost when a random update is added to W (out, in) in bfloat16.

    Args:
        shares: norms of the update, as shares of W's.
    """
    W = W.detach().bfloat16().float()
    D = torch.randn(W.shape, generator=torch.Generator().manual_seed(0))
    rows = []
    for share in shares:
        update = D * (share * W.norm() / D.norm())
        total = (W + update).bfloat16().float()
        lost = (total - W - update).norm() / update.norm()
        still = (total == W).float().mean()
        back = ((total - update).bfloat16().float() == W).float().mean()
        rows.append((f"{share:g}", f"{lost:.0%}", f"{still:.0%}", f"{back:.0%}"))
    return Table(("update / weight", "update lost", "weights unmoved", "restored exactly"), rows)
