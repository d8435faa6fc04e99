"""The pictures of notebook 03: each title is computed from the numbers it is given."""

import pytest

from labkit.codes import levels
from labkit.figures import nf4 as draw
from labkit.figures import picture

CODE = levels().tolist()


def title(drawing):
    found = []
    picture("a", lambda ax: found.append(drawing(ax).get_title(loc="left")))
    return found[0]


def test_the_bell_counts_the_share_between_two_marks():
    assert title(lambda ax: draw.bell(ax, CODE, 0.9677083)).startswith("6.68% of the bell")
    said = title(lambda ax: draw.bell(ax, [-1, 0, 0.5, 1], 0.9))
    assert said == "40.00% of the bell between two marks below zero, 20.00% above"


def test_use_is_told_in_bits():
    assert "4.000 of 4 bits" in title(lambda ax: draw.used(ax, CODE, [1 / 16] * 16))
    half = [0.5, 0.5] + [0.0] * 14
    assert "1.000 of 4 bits: from 0.0% to 50.0%" in title(lambda ax: draw.used(ax, CODE, half))


def test_kurtosis_is_told_by_its_medians():
    said = title(lambda ax: draw.normality(ax, [1.0, 20.0, 3.0], [0.1, 0.2, 0.4], "it"))
    assert said == "it: median 3.00 for whole matrices, 0.20 within"


def test_errors_name_the_best_code_and_how_often():
    mse = {"NF4": [1, 2, 3], "INT4": [2, 1, 4]}
    assert title(lambda ax: draw.errors(ax, [16, 64, 256], mse)) == (
        "Normal weights: NF4 errs least at 2 of 3 block sizes"
    )
    said = title(lambda ax: draw.tails(ax, ["uniform", "normal", "t3"], mse))
    assert said == "Block 64: NF4 errs least on 2 of 3 distributions"
    assert title(lambda ax: draw.compared(ax, {"NF4": 2.0, "INT4": 5.0}, "t3", 64)) == (
        "t3, block 64: NF4 errs least, INT4 2.50 times as much"
    )


def test_the_bars_have_their_numbers_in_the_text():
    made = draw.bars({"NF4": 0.0085, "FP4": 0.0149}, "normal", 64)
    assert made.alt == "squared error on normal weights in blocks of 64: NF4 0.0085, FP4 0.0149"


def test_an_outlier_is_told_by_what_its_neighbours_pay():
    said = title(lambda ax: draw.outlier(ax, [10, 1.0, -0.2], [10, 0.0, 0.0], CODE, 0.1))
    assert said == (
        "An outlier of 10: the others err 7.2 times as much, 2 of 2 become zero"
    )  # root of (1 + 0.04) / 2 over 0.1


def test_harm_is_told_against_the_model_as_it_is():
    said = title(lambda ax: draw.harm(ax, ["64", "all"], {"NF4": [2.0, 2.2], "FP4": [2.1, 3]}, 2.0))
    assert said == "At block 64 perplexity moves by at most 5.0%; FP4 at all costs 50.0%"


@pytest.mark.parametrize("name", draw.LOOKS)
def test_each_code_has_a_colour_a_marker_and_a_line_of_its_own(name):
    others = [look for other, look in draw.LOOKS.items() if other != name]
    for part, mine in enumerate(draw.LOOKS[name]):
        assert mine not in [look[part] for look in others]
