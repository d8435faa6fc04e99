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
    assert ax.get_title() == "letters: rank 1 ends at 30.0 times full's"
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


def rows_of(best_lora=(4e-3, 4e-3)):
    """Two seeds of full fine-tuning and of two ranks; the loss is lowest at the best rate."""
    best = {0: 4e-4, 1: best_lora[0], 8: best_lora[1]}
    return [
        {"learns": "task", "steps": 20, "method": "lora" if rank else "full", "rank": rank,
         "seed": seed, "lr": lr, "split": split, "task": 0.9 - 0.1 * (lr != best[rank]),
         "task_loss": 0.001 + (lr != best[rank]) + 0.0001 * seed}
        for rank in best
        for split, rates in (("validation", (4e-4, 1e-3, 4e-3)), ("test", (best[rank],)))
        for lr in rates
        for seed in range(2)
    ]  # fmt: skip


def test_the_best_rate_of_each_rank_is_that_of_the_lowest_validation_loss():
    assert draw.best_rates(rows_of((1e-3, 4e-3)), 20) == {0: 4e-4, 1: 1e-3, 8: 4e-3}


@pytest.mark.parametrize(
    ("best", "title"),
    [
        ((4e-3, 4e-3), "Best rate: 0.004 at every rank, 10 times full's"),
        ((1e-3, 4e-3), "Best rate: 0.001 to 0.004, 2 times full's"),
    ],
)
def test_scores_by_rate_name_the_best_rate(best, title):
    assert draw.by_rate(axes(), rows_of(best), 20, (1, 8)).get_title() == title


def test_a_sweep_shows_the_runs_that_were_recorded_and_the_live_one():
    rows = rows_of()
    rows += [row | {"rank": 64} for row in rows if row["rank"] == 8]
    shown = draw.sweep(rows, 20, 8, 0.93)
    assert "this machine, now" in shown.svg
    assert "Letters right: rank 1 90.0%, rank 8 90.0%" in shown.alt
    assert "full 90.0%" in shown.alt
