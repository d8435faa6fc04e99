"""The judges of notebook 06 for the numbers of a spectrum: values, effective rank, energy.

Each finds the right answer by another route than the solution's (a dense SVD, a loop over the
values), and then names the slip by simulation: what would the published mistake give on this very
input? The judges of subspaces are in ex06_subspaces, those of intruders in ex06_controls.
"""

import math
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from labkit.exercises.compare import count_slip
from labkit.exercises.ex05_judges import NONE, Slips, told
from labkit.exercises.ex05_norms import Sizes
from labkit.exercises.ex06_borders import accepted


def pair(
    out: int, into: int, rank: int, scale: float, dtype: torch.dtype = torch.float64
) -> SimpleNamespace:
    """Two factors whose product has values that fall, with the dense product `D` and its SVD."""
    draw = torch.Generator().manual_seed(out + into)
    A, B = (torch.randn(*s, generator=draw, dtype=dtype) for s in ((rank, into), (out, rank)))
    A = A * torch.linspace(0.3, 2.0, rank, dtype=dtype).roll(1)[:, None]  # in no order
    D = scale * torch.einsum("or,ri->oi", B.double(), A.double())
    U, values, Vh = torch.linalg.svd(D, full_matrices=False)
    return SimpleNamespace(A=A, B=B, s=scale, D=D, U=U[:, :rank], v=values[:rank], V=Vh[:rank].T)


# --- 06.1 the values of B A from thin factors -------------------------------------------------

PAIRS = (pair(40, 70, 3, 2.5), pair(60, 30, 4, 0.5, torch.float32), pair(40, 70, 3, -1.5))


def _value_slips(c: SimpleNamespace) -> Slips:
    of = torch.linalg.svdvals
    A, B = c.A.double(), c.B.double()
    (_, upper), (_, lower) = torch.linalg.qr(B), torch.linalg.qr(A.T)
    return [
        (of(A), "those are the values of A alone; the update is scale * B @ A"),
        (of(B), "those are the values of B alone; the update is scale * B @ A"),
        (c.s * of(A), "those are the values of A alone, times the scale; B turns and stretches them"),
        (c.s * of(B), "those are the values of B alone, times the scale; A turns and stretches them"),
        (of(A) * of(B), "the values of a product are no products of values: their directions differ"),
        (c.s * of(A) * of(B), "the values of a product are no products of values: their directions differ"),
        (-c.v, "a singular value has no sign: a negative scale turns a direction"),
        (c.v / c.s, "the scale is missing: the update is scale * B @ A"),
        (c.v * c.s, "the scale comes twice"),
        (c.v.square(), "those are eigenvalues of D^T D, the squares: take the root"),
        (c.v.flip(0), "largest first: the order is the other way round"),
        (c.v / c.v.sum(), "those are shares of their sum; the values themselves are wanted"),
        (c.v / c.v[0], "those are shares of the largest; the values themselves are wanted"),
        (c.s * of(upper @ lower), "the second factor is missing its transpose: A^T = Q_A R_A, so A = R_A^T Q_A^T"),
        (c.s * of(upper.T @ lower), "the wrong factor is transposed: B A = Q_B R_B R_A^T Q_A^T"),
        (c.s * (upper @ lower.T).diagonal().abs().sort(descending=True).values, "a diagonal holds no singular values unless the rest is zero: take svdvals"),
    ]  # fmt: skip


def judge_singular_values(answer: Callable[..., Any]) -> str | None:
    """the values of the dense product, from r x r numbers"""
    for c in PAIRS:
        with Sizes() as made:
            got = answer(c.A, c.B, c.s)
        if isinstance(got, Tensor) and got.ndim == 1 and len(got) > len(c.v):
            return (
                f"{len(got)} values for rank {len(c.v)}: the others are zero, and cost a dense SVD"
            )
        if isinstance(got, Tensor) and got.dtype == torch.float32:
            return "work in float64: small values are differences that float32 loses"
        if slip := told(got, c.v, _value_slips(c), "the result"):
            return slip
        if made.largest >= c.D.numel():
            return "right, but it forms a matrix as large as W; QR leaves two of rank x rank"
        if (got - c.v).abs().max() > 1e-10 * c.v[0]:
            return "right to float32 alone: turn A and B to float64 before the first QR"
    return None


# --- 06.2 effective rank ----------------------------------------------------------------------

VALUES = (
    torch.tensor([5.0, 2.0, 1.0, 0.5, 0.25], dtype=torch.float64),
    torch.tensor([3.0, 3.0, 0.4, 0.0], dtype=torch.float64),
)


def number_slip(got: Any, want: float, slips: Iterator[tuple[float, str]], what: str) -> str | None:  # noqa: ANN401
    """How one number differs from `want`, by the mistake that gives it; None: it does not."""
    if got is None:
        return NONE
    if isinstance(got, Tensor):
        if got.numel() != 1:
            return f"{what} is one number, not {got.numel()}"
        got = got.item()
    if isinstance(got, bool) or not isinstance(got, int | float):
        return f"{what} must be a number, not {type(got).__name__}"
    if math.isclose(got, want, rel_tol=1e-6, abs_tol=1e-9):
        return None
    named = (words for value, words in slips if math.isclose(got, value, rel_tol=1e-6))
    if not math.isfinite(got):
        return f"{what} is {got}: a value of zero adds nothing (0 log 0 is 0), and no values give 0"
    return next(named, f"{what} is {got:.4g}; it must be {want:.4g}")


def _rank_slips(values: Tensor) -> Iterator[tuple[float, str]]:
    p, q = values / values.sum(), values.square() / values.square().sum()
    entropy, energies = (float(-torch.special.xlogy(s, s).sum()) for s in (p, q))
    yield entropy, "that is the entropy; its exponential counts directions"
    yield 2**entropy, "the entropy is in nats (natural logarithm): exp, not a power of 2"
    yield math.exp(entropy / math.log(2)), "that mixes bits and nats: log and exp, or log2 and 2 **"
    yield math.exp(energies), "those shares are of the squares; this definition takes the values"
    yield energies, "that is the entropy of the squares; take shares of the values, then exp"
    yield math.exp(-entropy), "the sign is turned: the entropy is MINUS the sum of p log p"
    yield entropy / math.log(len(values)), "that is a share of the largest entropy; exp counts"
    yield float(1 / p.square().sum()), "that is the participation ratio, another definition"
    yield (
        float(1 / q.square().sum()),
        "that is a participation ratio of energies, another definition",
    )
    yield float(1 / q.max()), "that is the stable rank, |D|_F^2 / |D|_2^2, another definition"
    yield float(values.sum() / values.max()), "that is the sum over the largest, another definition"
    yield float((values > 0).sum()), "that is the rank: it counts a small value as a large one"
    yield math.exp(-float(torch.special.xlogy(values, values).sum())), "divide by the sum first"


def judge_effective_rank(answer: Callable[[Tensor], Any]) -> str | None:
    """exp of the entropy: all directions count, each by its share"""
    for values in VALUES:
        shares = [v / sum(values.tolist()) for v in values.tolist()]
        want = math.exp(-sum(p * math.log(p) for p in shares if p))
        if slip := number_slip(answer(values), want, _rank_slips(values), "the effective rank"):
            return slip
    got = answer(torch.zeros(4, dtype=torch.float64))
    return number_slip(got, 0.0, iter(()), "the effective rank of a fresh adapter (all zero)")


# --- 06.3 how many directions hold 90% of the energy ------------------------------------------

ENERGY = (
    (torch.tensor([6.0] + 36 * [1.0], dtype=torch.float64), 0.5),  # met exactly by the first
    (torch.tensor([4.0, 2.0, 2.0, 1.0, 1.0], dtype=torch.float64), 0.9),
    (torch.tensor([5.0, 3.0, 2.0, 1.0, 0.5], dtype=torch.float64), 0.7),
    (torch.tensor([3.0, 2.0, 1.0, 1.0, 1.0], dtype=torch.float64), 0.8),
    (torch.tensor([2.0, 1.0, 0.0], dtype=torch.float64), 1.0),
    (torch.zeros(3, dtype=torch.float64), 0.9),
)


def _first(sums: list[float], share: float) -> int:
    """The fewest terms whose sum reaches the share of all."""
    return next((i for i, s in enumerate(sums, 1) if s >= share * sums[-1] * (1 - 1e-12)), 0)


def _sums(values: list[float]) -> list[float]:
    return [math.fsum(values[:i]) for i in range(1, len(values) + 1)]


def _energy_slips(values: Tensor, share: float) -> Iterator[tuple[int, str]]:
    v = values.tolist()
    squares = [x * x for x in v]
    right = _first(_sums(squares), share)
    yield right - 1, "one direction too few: `k` directions must REACH the share, not stay below it"
    yield _first(_sums(v), share), "energy is the sum of SQUARES; that takes the values themselves"
    yield (
        _first(_sums(squares[::-1]), share),
        "count from the largest value on, not from the smallest",
    )
    yield (
        sum(s >= (1 - share) * squares[0] for s in squares),
        "that compares each value with the largest; the SUM of squares counts",
    )
    yield (
        sum(x >= share * v[0] for x in v),
        "that compares each value with the largest; the SUM of squares counts",
    )
    yield _first(_sums(squares), 0.9), "0.9 is only the default: use `share`"
    yield len(v), "that is how many values there are: stop where the share is reached"
    yield right + 1, "one direction too many: a share that is met exactly is reached"  # fmt: skip


def judge_energy_rank(answer: Callable[..., Any]) -> str | None:
    """the fewest directions that hold the share"""
    for values, share in ENERGY:
        total = float(values.square().sum())
        want = _first(_sums(values.square().tolist()), share) if total else 0
        got = answer(values, share)
        got = int(got) if isinstance(got, Tensor) and got.numel() == 1 and not got.is_floating_point() else got  # fmt: skip
        slip = count_slip(got)
        if slip is None and got != want:
            if not total:
                return f"an update of zeros has no energy: 0 directions, not {got}"
            named = (words for value, words in _energy_slips(values, share) if value == got)
            slip = next(named, f"{got} directions for {share:.0%} of the energy; it takes {want}")
        if slip:
            return slip
    values = ENERGY[1][0]
    wrong = (((values, share), f"a share of {share:g}") for share in (0.0, 1.5))
    return accepted(answer, wrong)
