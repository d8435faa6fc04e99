"""What two thin factors say about their product, against the dense route."""

import math

import pytest
import torch

from labkit import spectra

SCALE = 2.5


def pair(rank=4, out=30, into=20, dtype=torch.float64, seed=0):
    torch.manual_seed(seed)
    return torch.randn(rank, into, dtype=dtype), torch.randn(out, rank, dtype=dtype)


def dense(A, B, scale=SCALE):
    return scale * B.double() @ A.double()


@pytest.mark.parametrize("rank, out, into", [(4, 30, 20), (1, 5, 9), (12, 30, 8), (6, 6, 6)])
def test_the_values_are_those_of_the_dense_product(rank, out, into):
    A, B = pair(rank, out, into)
    want = torch.linalg.svdvals(dense(A, B))[: min(rank, out, into)]
    torch.testing.assert_close(spectra.singular_values(A, B, SCALE), want)
    torch.testing.assert_close(spectra.spectrum(A, B, SCALE).values, want)


def test_the_directions_rebuild_the_product_and_are_orthonormal():
    A, B = pair()
    found = spectra.spectrum(A, B, SCALE)
    torch.testing.assert_close((found.left * found.values) @ found.right.T, dense(A, B))
    eye = torch.eye(4, dtype=torch.float64)
    torch.testing.assert_close(found.left.T @ found.left, eye)
    torch.testing.assert_close(found.right.T @ found.right, eye)


def test_bfloat16_factors_are_read_in_float64():
    A, B = pair(dtype=torch.bfloat16)
    want = torch.linalg.svdvals(dense(A, B))[:4]
    torch.testing.assert_close(spectra.singular_values(A, B, SCALE), want)


def test_a_spectrum_says_its_first_values():
    A = torch.eye(6, 7, dtype=torch.float64)
    B = torch.diag(torch.tensor([6.0, 5, 4, 3, 2, 1], dtype=torch.float64))
    assert str(spectra.spectrum(A, B)) == "6 singular values: 6, 5, 4, 3, ..."


@pytest.mark.parametrize("A, B", [((4, 20), (30, 3)), ((20, 4), (30, 4)), ((4,), (30, 4))])
def test_factors_that_are_no_pair_are_refused(A, B):
    with pytest.raises(ValueError, match="no pair"):
        spectra.spectrum(torch.ones(A), torch.ones(B))


def test_a_broken_number_is_refused():
    A, B = pair()
    B[3, 2] = math.nan
    with pytest.raises(ValueError, match="B holds a number that is not finite"):
        spectra.spectrum(A, B)


def test_a_scrambled_update_keeps_the_values_and_loses_the_directions():
    values = torch.tensor([5.0, 2.0, 0.5])
    update, other = (
        spectra.scrambled(values, 60, 40, torch.Generator().manual_seed(seed)) for seed in (1, 2)
    )
    assert update.shape == (60, 40)
    torch.testing.assert_close(torch.linalg.svdvals(update)[:3], values.double())
    assert torch.linalg.matrix_rank(update) == 3
    one, two = (torch.linalg.svd(u).U[:, :3] for u in (update, other))
    assert spectra.overlap(one, two) < 0.3


def test_energy_is_the_share_of_the_squared_norm():
    values = torch.tensor([4.0, 3.0, 0.0])
    assert spectra.energy(values, 1) == pytest.approx(16 / 25)
    assert spectra.energy(values, 2) == 1
    assert spectra.energy(torch.zeros(3), 2) == 0


@pytest.mark.parametrize(
    "values, want",
    [([5.0, 5.0, 5.0], 3.0), ([7.0, 0.0, 0.0], 1.0), ([0.0, 0.0], 0.0), ([3.0, 1.0], 2**0.8112781)],
)
def test_the_effective_rank_is_two_to_the_entropy_in_bits(values, want):
    assert spectra.effective_rank(torch.tensor(values)) == pytest.approx(want)


@pytest.mark.parametrize("share, want", [(0.5, 1), (0.64, 1), (0.65, 2), (1.0, 2)])
def test_the_energy_rank_is_the_fewest_directions_that_reach_a_share(share, want):
    assert spectra.energy_rank(torch.tensor([4.0, 3.0, 0.0]), share) == want


def test_zeros_have_no_energy_rank_and_a_share_above_one_is_refused():
    assert spectra.energy_rank(torch.zeros(3)) == 0
    for share in (0.0, 1.1):
        with pytest.raises(ValueError, match=f"share={share}"):
            spectra.energy_rank(torch.ones(3), share)


def test_overlap_is_one_inside_zero_apart_and_the_larger_share_at_random():
    Q = torch.linalg.qr(
        torch.randn(200, 60, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ).Q
    assert spectra.overlap(Q[:, :3], Q[:, :9]) == pytest.approx(1)
    assert spectra.overlap(Q[:, :3], Q[:, 3:9]) == pytest.approx(0, abs=1e-12)
    assert spectra.overlap(Q[:, :2], Q[:, 1:4]) == pytest.approx(0.5)
    seen = []
    for seed in range(40):
        random = torch.Generator().manual_seed(seed)
        one, two = (torch.linalg.qr(torch.randn(200, n, generator=random)).Q for n in (8, 20))
        seen.append(spectra.overlap(one, two))
    assert sum(seen) / len(seen) == pytest.approx(20 / 200, abs=0.01)


def test_the_map_holds_the_overlap_of_every_pair_of_leading_subspaces():
    one, two = (torch.linalg.qr(torch.randn(30, n, dtype=torch.float64)).Q for n in (4, 6))
    found = spectra.overlap_map(one, two)
    for i in range(1, 5):
        for j in range(1, 7):
            assert float(found[i - 1, j - 1]) == pytest.approx(
                spectra.overlap(one[:, :i], two[:, :j])
            )


def test_overlap_refuses_factors_in_place_of_directions():
    A, B = pair()
    with pytest.raises(ValueError, match="orthonormal"):
        spectra.overlap(B, B)
    with pytest.raises(ValueError, match="different spaces"):
        spectra.overlap(A, B)


@pytest.mark.parametrize("scale", [SCALE, -0.5])
@pytest.mark.parametrize("rank", [1, 3, 4])
def test_a_truncated_pair_is_the_nearest_of_its_rank(rank, scale):
    A, B = pair()
    small_A, small_B = spectra.truncated(A, B, scale, rank)
    assert small_A.shape == (rank, 20) and small_B.shape == (30, rank)
    U, S, V = torch.linalg.svd(dense(A, B, scale), full_matrices=False)
    torch.testing.assert_close(dense(small_A, small_B, scale), (U[:, :rank] * S[:rank]) @ V[:rank])


@pytest.mark.parametrize("rank, scale", [(0, 1.0), (5, 1.0), (2, 0.0)])
def test_a_rank_that_cannot_be_cut_to_is_refused(rank, scale):
    with pytest.raises(ValueError, match=f"rank={rank} must be from 1 to 4"):
        spectra.truncated(*pair(), scale, rank)


def weight(n=48, seed=0):
    """A matrix whose singular values fall like a power law, so that its vectors are well apart."""
    torch.manual_seed(seed)
    U, V = (torch.linalg.qr(torch.randn(n, n, dtype=torch.float64)).Q for _ in range(2))
    return (U * torch.arange(1, n + 1, dtype=torch.float64) ** -1.0) @ V.T


def test_a_strong_new_direction_is_an_intruder_and_noise_of_its_norm_is_none():
    W = weight()
    A, B = pair(rank=1, out=48, into=48, seed=3)
    update = B @ A
    update *= 0.9 / torch.linalg.matrix_norm(update)
    assert len(spectra.intruder_dimensions(W, W + update)) >= 1
    noise = torch.randn(48, 48, dtype=torch.float64)
    noise *= 0.09 / torch.linalg.matrix_norm(noise)
    assert spectra.intruder_dimensions(W, W + noise, top_k=3) == []
    assert spectra.intruder_dimensions(W, W) == []


def test_a_direction_that_W_holds_far_down_is_no_intruder():
    """Compared with the leading vectors alone, it would be counted."""
    W = weight()
    U, _, V = torch.linalg.svd(W)
    lifted = W + 2 * torch.outer(U[:, 40], V[40])
    assert spectra.intruder_dimensions(W, lifted) == []


def test_noise_makes_intruders_where_the_values_lie_close_together():
    """The trap: on a random W the count says nothing about the update."""
    torch.manual_seed(0)
    W, noise = torch.randn(2, 256, 256, dtype=torch.float64).unbind()
    assert len(spectra.intruder_dimensions(W, W + 2 * noise)) == 10


def test_the_count_needs_the_tuned_weight_and_a_possible_k():
    W = weight()
    with pytest.raises(ValueError, match="must agree"):
        spectra.intruder_dimensions(W, W[:4])
    with pytest.raises(ValueError, match="top_k=49 must be from 1 to 48"):
        spectra.intruder_dimensions(W, W, top_k=49)


def test_amplification_compares_the_update_with_W_in_the_same_directions():
    W = weight()
    A, B = pair(rank=3, out=48, into=48)
    U, S, V = torch.linalg.svd(dense(A, B))
    want = S[:3].norm() / torch.linalg.matrix_norm(U[:, :3].T @ W @ V[:3].T)
    assert spectra.amplification(W, A, B, SCALE) == pytest.approx(float(want))
    first = S[0] / (U[:, 0] @ W @ V[0]).abs()
    assert spectra.amplification(W, A, B, SCALE, k=1) == pytest.approx(float(first))
