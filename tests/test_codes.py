"""Each code is derived; here stand its published form, and what makes it what it is."""

import bitsandbytes.functional as bnb
import pytest
import torch

from labkit import codes, fitted

# bitsandbytes' table to seven digits, should its function and ours ever change together.
NF4 = [
    -1.0, -0.6961928, -0.5250731, -0.3949175, -0.2844414, -0.1847734, -0.0910500, 0.0,
    0.0795803, 0.1609302, 0.2461123, 0.3379152, 0.4407098, 0.5626170, 0.7229568, 1.0,
]  # fmt: skip
ALL = {
    "nf4": codes.levels,
    "int4": codes.int4,
    "int4_wide": codes.int4_wide,
    "e2m1": codes.e2m1,
    "fp4": codes.fp4,
    "dynamic8": codes.dynamic8,
    "af4": fitted.af4,
    "af4_corrected": fitted.af4_corrected,
    "lloyd_max": fitted.lloyd_max,
}


def bnb_table(name):
    return bnb.get_4bit_type(name, device="cpu").unique()


@pytest.mark.parametrize("name", ALL)
def test_a_code_is_sorted_float32_and_reaches_one(name):
    code = ALL[name]()
    assert code.dtype == torch.float32
    assert (code.diff() > 0).all()
    assert code.abs().max() == 1
    assert (code == 0).sum() == 1


def test_a_code_can_be_changed_without_changing_the_next_one():
    for make in ALL.values():
        before = make().clone()
        make().zero_()
        assert torch.equal(make(), before)


def test_the_levels_are_the_published_table():
    torch.testing.assert_close(codes.levels(), torch.tensor(NF4), atol=1e-6, rtol=0)


def test_the_levels_are_those_of_bitsandbytes_to_the_last_bit():
    assert torch.equal(codes.levels(), bnb_table("nf4"))


def test_seven_levels_lie_below_zero_and_eight_above():
    code = codes.levels()
    assert ((code < 0).sum(), (code > 0).sum()) == (7, 8)


@pytest.mark.parametrize("n", [1, 2, 7, 8])
def test_quantiles_have_evenly_spaced_probabilities(n):
    normal = torch.distributions.Normal(0.0, 1.0)  # another route: the error function
    probabilities = normal.cdf(torch.tensor(codes.half(n, 0.9)))
    torch.testing.assert_close(probabilities, torch.linspace(0.9, 0.5, n + 1)[:n])


def test_fp4_is_that_of_bitsandbytes():
    assert torch.equal(codes.fp4(), bnb_table("fp4"))


def test_fp4_differs_from_e2m1_in_its_smallest_level_alone():
    far = (codes.fp4() - codes.e2m1()).nonzero().flatten().tolist()
    assert far == [6, 8]
    assert codes.fp4()[8].item() == pytest.approx(1 / 192)
    assert codes.e2m1()[8].item() == pytest.approx(1 / 12)


def test_e2m1_is_what_its_bits_say():
    values = set()
    for bits in range(8):  # exponent and mantissa, without the sign
        exponent, mantissa = bits >> 1, bits & 1
        values.add((1 + mantissa / 2) * 2 ** (exponent - 1) if exponent else mantissa / 2)
    assert (codes.e2m1()[7:] * 6).tolist() == pytest.approx(sorted(values))


def test_int4_is_even_and_only_the_wide_one_is_lopsided():
    torch.testing.assert_close(codes.int4().diff(), torch.full((14,), 1 / 7))
    torch.testing.assert_close(codes.int4_wide().diff(), torch.full((15,), 1 / 8))
    assert codes.int4_wide().max() == 7 / 8


def test_the_dynamic_map_is_that_of_bitsandbytes_to_the_last_bit():
    assert torch.equal(codes.dynamic8(), bnb.create_dynamic_map())


# --- fitted codes -----------------------------------------------------------------------------


def test_the_published_af4_comes_out_when_its_slip_is_put_in():
    torch.testing.assert_close(fitted.af4(), bnb_table("af4"), atol=1e-6, rtol=0)


def test_the_slip_moves_the_levels_beside_zero_half_way_to_it():
    slip, mended = fitted.af4(), fitted.af4_corrected()
    ratio = (slip / mended)[[6, 8]]
    assert (ratio < 0.6).all()
    assert torch.equal(slip[[0, 7, 15]], mended[[0, 7, 15]])


@pytest.fixture(scope="module")
def sample():
    """Normal weights by their blocks: w (blocks, 64) and absmax (blocks, 1)."""
    weights = torch.randn(2**12, 64, generator=torch.Generator().manual_seed(3))
    return weights, weights.abs().amax(1, keepdim=True)


def off(code, sample, power):
    """Mean error of a code on the sample: of w / a to the first power, or of w to the second."""
    weights, absmax = sample
    x = weights / absmax
    nearest = code[(x[..., None] - code).abs().argmin(-1)]
    return ((x - nearest) * absmax).square().mean() if power == 2 else (x - nearest).abs().mean()


def test_each_fitted_code_is_better_than_nf4_at_what_it_is_fitted_to(sample):
    nf4 = codes.levels()
    assert off(fitted.af4_corrected(), sample, 1) < off(nf4, sample, 1)
    assert off(fitted.lloyd_max(), sample, 2) < 0.96 * off(nf4, sample, 2)
    assert off(fitted.lloyd_max(pinned=()), sample, 2) < off(fitted.lloyd_max(), sample, 2)
    uncounted = fitted.fit(fitted.scaled_normal(64), "mean")  # for w / a instead of w
    assert off(fitted.lloyd_max(), sample, 2) < off(uncounted, sample, 2)
    assert off(fitted.af4(), sample, 1) > 1.02 * off(nf4, sample, 1)


@pytest.mark.parametrize("index", [1, 6, 8, 14])
def test_no_small_move_of_a_level_makes_a_fitted_code_better(sample, index):
    # A level's own sampling error, of 16,000 values in its cell, is some 0.0003.
    for code, power in ((fitted.af4_corrected(), 1), (fitted.lloyd_max(), 2)):
        for step in (-0.02, 0.02):
            moved = code.clone()
            moved[index] += step
            assert off(moved, sample, power) > off(code, sample, power)


def test_without_pins_the_fitted_code_has_no_zero_and_is_symmetric():
    code = fitted.lloyd_max(pinned=())
    assert code.abs().min() > 0.01
    torch.testing.assert_close(code, -code.flip(0), atol=1e-5, rtol=0)


@pytest.mark.parametrize("block", [16, 64])
def test_the_distribution_of_scaled_weights_is_the_sampled_one(block):
    weights = torch.randn(2**20 // block, block, generator=torch.Generator().manual_seed(1))
    x = (weights / weights.abs().amax(1, keepdim=True)).double()
    at = torch.tensor([-0.7, -0.2, 0.1, 0.5], dtype=torch.float64)
    seen = torch.stack([(x <= a).double().mean() for a in at])
    found = fitted.scaled_normal(block)
    # A share of 2**20 draws has a standard error of at most 0.0005.
    torch.testing.assert_close(found.share(at), seen, atol=0.002, rtol=0)
    torch.testing.assert_close(found.quantile(found.share(at)), at, atol=1e-9, rtol=0)
    moment = torch.stack([x.where(x <= a, 0).mean() for a in at])
    torch.testing.assert_close(found.moment(at), moment, atol=0.002, rtol=0)
