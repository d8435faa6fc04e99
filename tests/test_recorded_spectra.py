"""The rows behind notebook 06, the adapters that travel with it, and what is said of them."""

import argparse

import pytest
import torch

from labkit import project, readings, spectra
from labkit.adapter_files import read_adapter
from labkit.intervals import chosen
from labkit.readings import COUNTS, FIELDS, MAPS
from labkit.sweep import frame, overlaps
from labkit.sweep import spectra as sweep
from labkit.sweep.maps import short

ROWS = readings.runs()
PAIRS = readings.pairs()
USUAL = {"learns": "task", "steps": 100}


def test_every_row_is_a_run_of_the_sweep_at_its_tuned_rate():
    options = argparse.Namespace(what=sweep.WHAT, ranks=sweep.RANKS, steps=sweep.STEPS)
    groups = {spec.group: spec.lr for spec in sweep.groups(options)}
    for row in ROWS:
        spec = frame.spec_of(row)
        assert spec.group in groups
        tuned = groups[spec.group]
        assert spec.lr == tuned if tuned else spec.lr in sweep.CODE_RATES
        assert row["versions"]["torch"] and row["date"] and row["cores"]
    hot = {lr for group, lr in groups.items() if group.method == "lora-hot"}
    usual = {
        lr for g, lr in groups.items() if (g.method, g.learns, g.steps) == ("lora", "task", 100)
    }
    assert hot == {4 * lr for lr in usual}


def test_every_group_has_as_many_seeds_as_the_notebook_says():
    seeds = {}
    for row in ROWS:
        seeds.setdefault(frame.spec_of(row).group, set()).add(row["seed"])
    for group, found in seeds.items():
        ours = group.steps == 100 and group.learns == "task" and "hot" not in group.method
        assert found == (set(range(5)) if ours else {0, 1}), group


def test_every_number_lies_where_it_can():
    for row in ROWS:
        assert all(len(row[name]) == len(MAPS) for name in FIELDS)
        most = row["rank"] or 256
        for effective, energy90, first in zip(
            row["effective"], row["energy90"], row["first"], strict=True
        ):
            assert 1 <= effective <= most and 1 <= energy90 <= most and 0 < first <= 1
        assert all(0 <= n <= readings.TOP_K for name in COUNTS for n in row[name])
        if row["rank"] == 4:
            assert set(row["first"]) == {1.0}


def test_kept_values_give_the_counts_of_their_row():
    for row in ROWS:
        for place, name in enumerate(MAPS if "values" in row and row["rank"] else ()):
            values = torch.tensor(row["values"][name], dtype=torch.float64)
            assert spectra.effective_rank(values) == pytest.approx(
                row["effective"][place], rel=6e-3
            )


def test_the_adapter_in_data_is_the_one_that_was_recorded():
    """In bfloat16, which moves a singular value by a few thousandths."""
    wanted = {"method": "lora", "rank": 16, "seed": 1, **USUAL}
    (row,) = chosen(ROWS, **wanted)
    adapter = read_adapter(project.data("adapters", "rank16-seed1"))
    assert [short(update) for update in adapter.updates] == list(MAPS)
    for update, effective in zip(adapter.updates.values(), row["effective"], strict=True):
        found = spectra.effective_rank(update.spectrum().values)
        assert found == pytest.approx(effective, rel=0.02)


def test_the_files_stay_small():
    for name in ("spectra.jsonl", "overlaps.jsonl"):
        assert project.data("measurements", name).stat().st_size < 300_000
    adapters = project.data("adapters").rglob("*.safetensors")
    assert sum(file.stat().st_size for file in adapters) < 1.5e6


def test_the_overlaps_hold_every_pair_and_side():
    found = {(row["pair"], row["side"]) for row in PAIRS}
    assert found == {(pair, side) for pair in overlaps.PAIRS for side in ("left", "right")}
    for row in PAIRS:
        assert list(row["phi"]) == list(MAPS) or set(row["phi"]) == set(MAPS)
        assert all(0 <= phi <= 1 for line in row["phi"].values() for phi in line)
        assert set(row.get("n", {0: 128}).values()) <= {128, 256, 704}


def at(pair, side, k):
    return next(s for s in readings.shared(PAIRS, pair, side) if s.k == k)


def test_the_update_of_full_fine_tuning_has_many_more_directions():
    means = {
        rank: readings.mean(ROWS, "effective", method="lora", rank=rank, **USUAL)
        for rank in sweep.RANKS
    }
    full = readings.mean(ROWS, "effective", method="full", **USUAL)
    assert full.low > 4 * means[64].high
    assert means[4].high < means[16].low < means[16].high < means[64].low  # it grows with the rank
    mixed = readings.mean(ROWS, "effective", method="lora", rank=16, learns="shuffled", steps=100)
    assert mixed.middle == pytest.approx(means[16].middle, rel=0.15)  # and tells no task


def test_a_cut_keeps_the_letters_and_gives_old_skills_back_and_the_naive_one_does_not():
    one, *_, eight, _, _, whole = readings.cuts(ROWS, method="lora", rank=64, **USUAL)
    assert (one.rank, eight.rank, whole.rank) == (1, 8, 64)
    assert one.task > whole.task - 0.01
    assert one.regression > whole.regression + 0.1
    assert eight.naive_task == 0


def test_seeds_share_more_than_chance_and_full_runs_far_more():
    for side in ("left", "right"):
        for pair in ("seeds", "ranks", "lora and full", "full", "labels"):
            assert at(pair, side, 4).overlap.low > 3 * at(pair, side, 4).chance
    assert at("full", "left", 4).overlap.low > at("seeds", "left", 4).overlap.high
    assert at("seeds", "left", 4).overlap.low > at("labels", "left", 4).overlap.high


def test_one_start_is_shared_by_runs_that_learnt_different_things():
    same, apart = (at(pair, "right", 16).overlap for pair in ("labels, one A", "labels"))
    assert same.low > 0.8 and apart.high < 0.15


def test_scrambled_updates_bring_as_many_intruders_and_full_runs_forget_without_any():
    for row in ROWS:
        trained, scrambled = (readings.whole(row, name) for name in ("intruders", "scrambled"))
        if row["rank"]:
            assert abs(trained - scrambled) <= max(5, 0.35 * trained)
        elif row["learns"] != "codes":
            assert trained == 0
    hot = readings.mean(ROWS, "regression", method="full-hot", **USUAL)
    assert hot.middle < 0.7
