"""Truncation, gradients by hand, the first step and its growth, and what rounding takes."""

import math

import pytest
import torch

from labkit import lowrank
from labkit.lowrank import factor_gradients, first_step, nearest


def pair(out=6, width=5, rank=3, dtype=torch.float64):
    torch.manual_seed(0)
    G, A = torch.randn(out, width, dtype=dtype), torch.randn(rank, width, dtype=dtype)
    return G, A, torch.randn(out, rank, dtype=dtype)


@pytest.mark.parametrize("shape", [(6, 9), (9, 6)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_a_truncation_leaves_out_are_the_small_singular_values(shape, dtype):
    M = torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(0))
    cut = nearest(M, 2)
    assert cut.dtype == dtype
    assert torch.linalg.matrix_rank(cut) == 2
    rest = torch.linalg.svdvals(M.double())[2:].square().sum().sqrt()  # Eckart and Young
    assert (M - cut).norm().item() == pytest.approx(rest.item(), rel=1e-5)


def test_no_other_matrix_of_that_rank_is_nearer():
    M = torch.randn(6, 9, generator=torch.Generator().manual_seed(0))
    best = (M - nearest(M, 2)).norm()
    U = nearest(M, 2)
    for seed in range(20):
        noise = 0.05 * torch.randn(6, 9, generator=torch.Generator().manual_seed(seed))
        assert (M - nearest(U + noise, 2)).norm() > best


@pytest.mark.parametrize("moved", [1.0, 0.0])
def test_the_gradients_by_hand_are_those_of_autograd(moved):
    G, A, B = pair()
    A, B = A.requires_grad_(), (moved * B).requires_grad_()
    (G * (1.7 * B @ A)).sum().backward()
    by_hand = factor_gradients(G, A.detach(), B.detach(), 1.7)
    torch.testing.assert_close(by_hand, (A.grad, B.grad))
    assert bool(by_hand[0].any()) == bool(moved)


@pytest.mark.parametrize(
    ("name", "optimizer"), [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam)]
)
def test_the_first_step_is_that_of_torchs_optimizer(name, optimizer):
    G, A, _ = pair()
    B = torch.nn.Parameter(torch.zeros(6, 3, dtype=torch.float64))
    (G * (0.6 * B @ A)).sum().backward()
    optimizer([B], lr=0.05).step()
    moved = (0.6 * B @ A).detach()
    # Adam divides by |g| + 1e-8, which is 1e-6 of the smallest gradient here
    torch.testing.assert_close(first_step(G, A, 0.6, 0.05, name), moved, rtol=1e-5, atol=1e-9)


def test_the_effect_of_the_first_step_grows_as_the_formulas_say():
    """Of a random gradient: scale * rank under Adam, scale^2 * rank under SGD."""
    G = torch.randn(96, 64, generator=torch.Generator().manual_seed(0))
    found = lowrank.scaling(G, (16,))
    for (optimizer, rule), by in found.items():
        scale = lowrank.RULES[rule](16) / lowrank.RULES[rule](1)
        want = 16 * scale ** (1 if optimizer == "adam" else 2)
        assert by[16][0] == pytest.approx(want, rel=0.12), (optimizer, rule)


def test_the_length_of_adams_first_step_follows_the_root_of_the_rank():
    G = torch.randn(96, 400, generator=torch.Generator().manual_seed(0))
    length = lowrank.scaling(G, (16,))["adam", "alpha = 2 rank"][16][1]
    assert length == pytest.approx(math.sqrt(16), rel=0.1)  # rows of A are nearly orthogonal


def test_scaling_steps_by_the_function_it_is_given():
    G = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ZeroDivisionError):
        lowrank.scaling(G, (2,), lambda G, *_: torch.zeros_like(G))


def test_the_scaling_table_has_a_row_for_each_optimizer_and_rule():
    G = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
    table = lowrank.scaling_table(lowrank.scaling(G, (2, 4)))
    assert len(table.rows) == 2 * len(lowrank.RULES)
    assert table.head[1:] == [
        f"{kind}, rank {rank}" for kind in ("loss taken away", "length") for rank in (2, 4)
    ]


def test_rounding_loses_more_of_a_smaller_update():
    rows = lowrank.rounding(torch.randn(256, 128), (1e-1, 1e-2, 1e-4)).rows
    lost = [int(row[1].rstrip("%")) for row in rows]
    assert lost[0] < 4 < lost[1] < 25 and lost[2] > 90
    assert int(rows[2][2].rstrip("%")) > 90  # most weights do not move at all
