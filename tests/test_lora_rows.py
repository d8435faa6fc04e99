"""What the recorded rows say of speed, of bytes and of ranks: the numbers that prose rests on."""

import statistics
from collections import defaultdict

import pytest

from labkit import project
from labkit.bench.timing import ratio
from labkit.sweep import frame, ranks

BENCH = frame.read(project.data("measurements", "lora_bench.jsonl"))
RUNS = frame.read(project.data("measurements", "lora_ranks.jsonl"))
TUNING = [row for row in RUNS if row["split"] == "validation"]
FINAL = [row for row in RUNS if row["split"] == "test"]


def bench(name, model, **setting):
    found = [
        row
        for row in BENCH
        if row["name"] == name and setting.items() <= row["setting"].items()
        if row["setting"]["model"] == model
    ]
    assert len(found) == 1, f"{len(found)} rows of {name} on {model} with {setting}"
    return found[0]


@pytest.mark.parametrize("row", [*BENCH, *RUNS])
def test_every_row_says_where_and_when_it_was_measured(row):
    assert row["cores"] > 0
    assert row["versions"]["torch"] and row["versions"]["peft"]
    assert row["date"].startswith("20")
    assert (row["gpu"] is None) == (row["driver"] is None)


@pytest.mark.parametrize("row", BENCH)
def test_a_recorded_ratio_follows_from_the_recorded_seconds(row):
    to = bench(row["ratio_to"], **row["setting"])
    assert vars(ratio(row["seconds"], to["seconds"])) == pytest.approx(row["ratio"], rel=1e-3)


LARGE = {"model": "llama-3.2-1b", "dropout": 0.0, "checkpointing": False}


def test_at_the_real_size_our_step_is_faster_than_pefts_beyond_the_noise():
    ours, theirs = bench("ours", **LARGE), bench("peft", **LARGE)
    assert ours["gpu"] == theirs["gpu"] == "NVIDIA H100 80GB HBM3"
    assert ours["trainable"] == theirs["trainable"] == 11_272_192
    assert ours["ratio"]["high"] < 0.92
    assert f"{ours['ratio']['median']:.2f}" == "0.87"
    assert (round(ours["saved_bytes"] / 2**30, 1), round(theirs["saved_bytes"] / 2**30, 1)) == (
        6.2,
        9.7,
    )
    assert ours["peak_bytes"] < 0.66 * theirs["peak_bytes"]


def test_with_adapters_in_the_dtype_of_the_base_neither_is_faster_beyond_the_noise():
    ours, theirs = bench("ours-base", **LARGE), bench("peft-base", **LARGE)
    assert ours["ratio"]["median"] < 1 < ours["ratio"]["high"]
    assert ours["saved_bytes"] <= theirs["saved_bytes"]


CASES = [(0.0, False), (0.05, False), (0.0, True)]


@pytest.mark.parametrize(("dropout", "checkpointing"), CASES)
def test_on_two_cpu_threads_our_step_takes_pefts_time_within_the_noise(dropout, checkpointing):
    setting = {"model": "tiny", "dropout": dropout, "checkpointing": checkpointing}
    ours, theirs = bench("ours", **setting), bench("peft", **setting)
    assert ours["threads"] == 2
    assert len(ours["seconds"]) == 31
    assert ours["ratio"]["low"] < 1
    assert ours["ratio"]["median"] < 1.03
    assert ours["saved_bytes"] <= theirs["saved_bytes"]


def test_dropout_lets_lora_keep_more_than_full_fine_tuning_and_none_lets_it_keep_about_as_much():
    full, plain, dropped = (
        bench(name, "tiny", dropout=dropout, checkpointing=False)["saved_bytes"]
        for name, dropout in (("full", 0.0), ("ours", 0.0), ("ours", 0.05))
    )
    assert 1.0 < plain / full < 1.05
    assert 1.6 < dropped / full < 1.8


def test_every_group_was_tuned_over_its_rates_with_the_tuning_seeds():
    tried = defaultdict(set)
    for row in TUNING:
        spec = frame.spec_of(row)
        tried[spec.group].add((spec.lr, spec.seed))
    assert {(g.method, g.steps) for g in tried} == {
        (method, steps) for method in ("lora", "full") for steps in (20, 100)
    }
    for group, pairs in tried.items():
        assert pairs == {(lr, s) for lr in ranks.rates(group) for s in frame.TUNING_SEEDS}
    assert len(tried) == 2 * (len(ranks.RANKS) + 1)
    assert len(TUNING) == len({frame.spec_of(row) for row in TUNING})


BEST = frame.best_rates(TUNING)


def test_at_20_steps_one_rate_is_best_for_every_rank_and_ten_times_that_of_full_fine_tuning():
    of_lora = {g.rank: lr for g, lr in BEST.items() if g.method == "lora" and g.steps == 20}
    assert of_lora == dict.fromkeys(ranks.RANKS, 4e-3)
    assert BEST[frame.Spec("ranks", "full", 20)] == 4e-4
    for group, lr in BEST.items():
        if group.steps == 20:  # the best lies inside what was tried
            assert min(ranks.rates(group)) < lr < max(ranks.rates(group))


def test_at_100_steps_the_best_rates_lie_within_four_of_each_other():
    of_lora = [lr for g, lr in BEST.items() if g.method == "lora" and g.steps == 100]
    assert (min(of_lora), max(of_lora)) == (1e-3, 4e-3)
    assert BEST[frame.Spec("ranks", "full", 100)] == 2e-4


def validation(group, lr):
    rows = [r for r in TUNING if frame.spec_of(r).group == group and r["lr"] == lr]
    return statistics.mean(row["task"] for row in rows)


def test_the_rate_moves_the_score_from_nothing_to_all_and_the_rank_does_not():
    groups = [g for g in BEST if g.method == "lora" and g.steps == 20]
    assert all(validation(g, 5e-4) == 0 for g in groups)
    assert all(0.3 < validation(g, 1e-3) < 0.8 for g in groups)
    best = [validation(g, 4e-3) for g in groups]
    assert [round(min(best), 4), round(max(best), 4)] == [0.99, 0.9925]


COUNTED = (0, *ranks.RANKS)  # 0 is full fine-tuning
SEEDS = {0, 1, 2, 3, 4}


def final(rank, value):
    return [row[value] for row in FINAL if row["rank"] == rank and row["seed"] in SEEDS]


def test_the_runs_that_count_have_the_same_seeds_at_the_tuned_rate():
    seeds = defaultdict(set)
    for row in FINAL:
        spec = frame.spec_of(row)
        assert (spec.lr, spec.steps) == (BEST[spec.group], 20)
        seeds[spec.rank].add(spec.seed)
    assert all(seeds[rank] >= SEEDS for rank in COUNTED)


def test_on_the_test_set_every_rank_has_the_task_right_in_20_steps():
    for rank in COUNTED:
        assert min(final(rank, "task")) >= 0.98, rank
    assert statistics.mean(final(1, "task_loss")) > 1.5 * statistics.mean(final(8, "task_loss"))


def test_every_run_forgets_something_of_what_the_base_knew():
    for rank in COUNTED:
        assert 0.81 < statistics.mean(final(rank, "regression")) < 0.86, rank


def test_the_update_of_full_fine_tuning_is_not_of_low_rank_though_rank_1_does_the_task():
    held = [sorted(row["rank90"].values()) for row in FINAL if row["rank"] == 0]
    assert {min(values[0] for values in held), max(values[-1] for values in held)} == {8, 82}
    assert all(30 <= statistics.median(values) <= 45 for values in held)
    shown = [row for row in FINAL if "spectra" in row]
    assert [row["seed"] for row in shown] == [0]
    assert set(shown[0]["spectra"]) == set(ranks.SHOWN)
