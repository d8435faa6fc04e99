"""What codes do to weights, against other routes and published figures."""

import math

import pytest
import torch

from labkit import codes, fitted, usage
from labkit.blocks import rounded

N = 2**20


@pytest.fixture(scope="module")
def normal():
    return usage.draws("normal", N)


@pytest.mark.parametrize("name", usage.DRAWS)
def test_draws_have_mean_zero_variance_one_and_repeat(name):
    # t3 has no fourth moment, so its sample variance wanders: the quartile is compared instead.
    quartile = {
        "normal": 0.6745,
        "laplace": math.log(2) / math.sqrt(2),
        "uniform": math.sqrt(3) / 2,
        "t3": 0.7649 / math.sqrt(3),
        "t5": 0.7267 / math.sqrt(5 / 3),
        "t10": 0.6998 / math.sqrt(10 / 8),
    }[name]
    w = usage.draws(name, N, seed=4)
    assert w.mean().item() == pytest.approx(0, abs=0.006)
    assert w.abs().median().item() == pytest.approx(quartile, rel=0.006)
    assert w.var().item() == pytest.approx(1, abs=0.1 if name == "t3" else 0.02)
    assert torch.equal(w, usage.draws(name, N, seed=4))
    assert not torch.equal(w, usage.draws(name, N, seed=5))


def test_an_unknown_distribution_is_refused():
    with pytest.raises(ValueError, match=r"no distribution 'cauchy': there are normal, .*t10"):
        usage.draws("cauchy", 10)


@pytest.mark.parametrize("block", [1, 16, 64, 1024])
def test_the_expected_absmax_is_the_sampled_one(normal, block):
    absmax = normal.view(-1, block).abs().amax(1)
    sampling = 5 * absmax.std().item() / math.sqrt(len(absmax))  # five standard errors
    assert usage.expected_absmax(block) == pytest.approx(absmax.mean().item(), abs=sampling)


def test_the_expected_absmax_of_one_weight_is_the_mean_of_a_half_normal():
    assert usage.expected_absmax(1) == pytest.approx(math.sqrt(2 / math.pi), abs=1e-5)


def test_the_levels_of_nf4_are_not_used_equally_in_blocks_of_64(normal):
    shares = usage.usage(normal, codes.levels())
    assert shares.sum().item() == pytest.approx(1)
    assert usage.entropy(shares) == pytest.approx(3.885, abs=0.002)
    assert shares.max() / shares.min() > 5
    x = torch.tensor([0.0, 1.0, 0.05, -0.9])  # by hand: 0, 1, the level at 0.08, and -1
    by_hand = usage.usage(x, codes.levels(), 4)
    assert by_hand[[7, 15, 8, 0]].tolist() == [0.25] * 4


def test_without_blocks_normal_weights_use_the_levels_almost_equally():
    # Weights over the outermost quantile, 1.848, as the construction has it.
    scaled = (usage.draws("normal", N) / max(codes.half(8, 0.9677083))).clamp(-1, 1)
    assert usage.entropy(usage.usage(scaled, codes.levels(), N)) == pytest.approx(3.996, abs=0.001)


@pytest.mark.parametrize("n", [2, 16])
def test_entropy_of_equal_shares_is_log2_of_their_number(n):
    assert usage.entropy(torch.full((n,), 1 / n)) == pytest.approx(math.log2(n))
    assert usage.entropy(torch.eye(n)[0]) == 0


@pytest.mark.parametrize(
    ("name", "mse", "l1", "int4", "fp4"),
    [
        ("normal", 0.008460, 0.0728, 1.369, 1.758),
        ("laplace", 0.010741, 0.0826, 1.845, 2.114),
        ("uniform", 0.008341, 0.0702, 0.584, 1.479),
        ("t5", 0.010957, 0.0828, 1.941, 2.165),
    ],
)
def test_errors_are_those_that_an_independent_run_recorded(name, mse, l1, int4, fp4):
    w = usage.draws(name, N, seed=1)
    nf4 = usage.error(w, codes.levels())
    assert nf4.mse == pytest.approx(mse, rel=0.01)
    assert nf4.l1 == pytest.approx(l1, rel=0.005)
    assert usage.error(w, codes.int4()).mse / nf4.mse == pytest.approx(int4, rel=0.01)
    assert usage.error(w, codes.fp4()).mse / nf4.mse == pytest.approx(fp4, rel=0.01)


def test_the_error_does_not_depend_on_scale_and_follows_the_definition():
    w = usage.draws("t5", 2**12, seed=2) + 0.3
    found = usage.error(w, codes.e2m1(), 32)
    off = (rounded(w, codes.e2m1(), 32) - w).double()
    assert found.mse == pytest.approx((off.square().mean() / w.double().var(correction=0)).item())
    assert found.l1 == pytest.approx((off.abs().mean() / w.double().std(correction=0)).item())
    larger = usage.error(1024 * w, codes.e2m1(), 32)
    assert larger.mse == pytest.approx(found.mse)
    assert found.decibels == pytest.approx(-10 * math.log10(found.mse))
    assert f"{found.mse:.5f}" in str(found)


def test_a_quarter_of_the_squared_error_is_one_bit():
    assert usage.Error(0.04, 0.1).bits_behind(usage.Error(0.01, 0.05)) == pytest.approx(1)


def test_weights_without_spread_have_no_error():
    with pytest.raises(ValueError, match="all weights are equal"):
        usage.error(torch.ones(64), codes.levels())


def test_smaller_blocks_have_smaller_errors(normal):
    mse = [usage.error(normal, codes.levels(), block).mse for block in (16, 64, 256, 4096)]
    assert mse == sorted(mse)
    assert mse[0] == pytest.approx(0.00654, rel=0.02)
    assert mse[3] == pytest.approx(0.01209, rel=0.02)


def test_af4_corrected_is_no_worse_than_nf4_where_the_published_is(normal):
    l1 = {
        name: usage.error(normal, code).l1
        for name, code in (
            ("nf4", codes.levels()),
            ("published", fitted.af4()),
            ("corrected", fitted.af4_corrected()),
        )
    }
    assert l1["published"] / l1["nf4"] == pytest.approx(1.033, abs=0.003)
    assert l1["corrected"] / l1["nf4"] == pytest.approx(1.0, abs=0.002)


def test_kurtosis_is_that_of_the_distribution(normal):
    assert usage.excess_kurtosis(normal) == pytest.approx(0, abs=0.03)
    assert usage.excess_kurtosis(usage.draws("uniform", N)) == pytest.approx(-1.2, abs=0.01)
    assert usage.excess_kurtosis(usage.draws("laplace", N) + 5) == pytest.approx(3, abs=0.3)
    assert usage.block_kurtosis(normal).mean().item() == pytest.approx(0, abs=0.03)
    assert usage.block_kurtosis(normal[:130]).shape == (2,)


def test_blocks_look_normal_where_the_whole_does_not():
    rows = usage.draws("normal", N).view(-1, 64)
    rows = rows * torch.linspace(0.2, 2, len(rows))[:, None]
    assert usage.excess_kurtosis(rows) > 0.5
    assert usage.block_kurtosis(rows).mean().item() == pytest.approx(0, abs=0.03)
