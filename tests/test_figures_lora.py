"""The pictures of notebook 01: titles that follow from the numbers, and texts in their place."""

import pytest
from matplotlib.figure import Figure

from labkit.figures import lora as draw
from labkit.intervals import Mean

EXACT = {1: 0.2, 2: 0.6, 4: 0.97, 8: 0.98}


def axes():
    return Figure().add_subplot()


def means(values):
    return {rank: Mean(v, v - 0.01, v + 0.01, 5) for rank, v in values.items()}


def test_a_spectrum_says_how_much_its_rank_keeps():
    ax = draw.spectrum(axes(), [4.0, 3.0, 0.0], 1)  # 16 of 16 + 9
    assert ax.get_title() == "Rank 1 of 3 keeps 64% of the energy"


def test_a_truncation_names_the_first_rank_that_is_enough():
    ax = draw.truncation(axes(), list(EXACT), [0.1, 0.3, 0.5, 0.9], list(EXACT.values()))
    assert ax.get_title() == "Rank 4: 50% of the energy, 97% of the letters"


@pytest.mark.parametrize(
    ("full", "title"),
    [
        (0.98, "letters: from rank 4 on within 2% of full"),
        (1.0, "letters: from rank 8 on within 2% of full"),
        (1.02, "letters: rank 8 reaches 98%, full 102%"),
    ],
)
def test_scores_are_told_against_full_fine_tuning(full, title):
    ax = draw.scores(axes(), means(EXACT), Mean(full, full, full, 5), "letters")
    assert ax.get_title() == title


def test_losses_are_told_as_a_multiple_of_fulls():
    ax = draw.losses(axes(), means({1: 0.06, 2: 0.03}), Mean(0.002, 0.002, 0.002, 5), "letters")
    assert ax.get_title() == "letters: rank 1 ends at 30 times full's loss"
    assert ax.get_yscale() == "log"


def test_activations_are_told_against_the_first():
    shown = draw.activations({"full": 100.0, "LoRA": 90.0, "LoRA, dropout": 147.0})
    assert "LoRA, dropout: 147% of full" in shown.svg
    assert "full 100, LoRA 90, LoRA, dropout 147" in shown.alt


def test_a_cut_is_drawn_once_for_each_rank():
    show = draw.cut([4.0, 3.0, 0.0])
    assert show(1) is show(1)
    assert show(1).svg != show(2).svg
    assert "rank 1 keeps 64% of energy" in show(1).alt


def test_a_sweep_shows_the_runs_that_were_recorded_and_the_live_one():
    rows = [
        {"learns": learns, "steps": 20, "method": method, "rank": rank, "seed": seed,
         "split": "test", "task": score + 0.01 * seed, "task_loss": 0.1}
        for learns, score in (("task", 0.9), ("codes", 0.5))
        for method, rank in (("lora", 1), ("lora", 8), ("full", 0))
        for seed in range(2)
    ]  # fmt: skip
    shown = draw.sweep(rows, 20, 8, 0.93)
    assert "this machine, now" in shown.svg
    assert shown.alt.startswith("letters right: rank 1 9")
    assert "codes right: rank 1 5" in shown.alt
