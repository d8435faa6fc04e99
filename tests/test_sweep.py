"""The frame of the sweeps: groups, the choice of a rate, one run, a sweep that goes on."""

import argparse
import json
import math
import os
from dataclasses import replace

import pytest
import torch

from labkit.lora import adapted
from labkit.models import load
from labkit.sweep import __main__ as command
from labkit.sweep import frame, ranks
from labkit.sweep.frame import Spec

LORA = Spec("ranks", "lora", 2, rank=2, alpha=16.0, scale=8.0)
FULL = Spec("ranks", "full", 2)


def row(spec, loss):
    found = dict(vars(spec))
    return found | ({"task_loss": loss} if loss is not None else {"stopped": "not a number"})


def test_the_rate_of_a_group_is_that_of_the_lowest_mean_validation_loss():
    losses = {1e-3: (0.5, 0.1), 2e-3: (0.2, 0.2), 4e-3: (0.1, None)}
    rows = [
        row(replace(LORA, lr=lr, seed=seed, split="validation"), loss)
        for lr, pair in losses.items()
        for seed, loss in enumerate(pair)
    ]
    rows.append(row(replace(FULL, lr=1e-4, split="validation"), 9.0))
    assert frame.best_rates(rows) == {LORA: 2e-3, FULL: 1e-4}


@pytest.fixture
def short(monkeypatch):
    """Runs that learn from and are scored on few examples."""
    whole = frame.data.examples
    monkeypatch.setattr(frame.data, "examples", lambda name: whole(name)[:16])
    frame._items.cache_clear()
    yield
    frame._items.cache_clear()


def test_a_run_says_its_settings_its_losses_its_scores_and_where_it_was(short):
    found = frame.run(replace(LORA, lr=1e-3, seed=3))
    assert frame.spec_of(found) == replace(LORA, lr=1e-3, seed=3)
    assert len(found["losses"]) == 2
    assert 0 <= found["task"] <= 1
    assert 0 < found["task_loss"] < 20
    assert found["regression"] > 0.5
    assert found["trainable"] == 2 * 28_032  # of tiny at rank 1, notebook 01 counts it
    assert found["versions"]["torch"]
    again = frame.run(replace(LORA, lr=1e-3, seed=3))
    assert again["losses"] == found["losses"]
    other = frame.run(replace(LORA, lr=1e-3, seed=4))
    assert other["losses"] != found["losses"]


def test_a_run_whose_loss_is_no_number_is_a_row_that_says_so(short, monkeypatch):
    def broken(*_, **__):
        raise frame.TrainingStopped("the loss is nan at step 1")

    monkeypatch.setattr(frame.train, "fit", broken)
    found = frame.run(replace(LORA, lr=1e-3))
    assert found["stopped"] == "the loss is nan at step 1"
    assert "task" not in found
    assert frame.best_rates([found, row(replace(LORA, lr=2e-3), 1.0)])[LORA] == 2e-3


def test_full_fine_tuning_reports_what_its_update_holds(short):
    found = frame.run(replace(FULL, lr=1e-4))
    assert set(found["spectra"]) == set(ranks.SHOWN)
    assert len(found["spectra"]["model.layers.2.self_attn.v_proj"]) == 128
    values = torch.tensor(found["spectra"][ranks.SHOWN[0]])
    assert found["rank90"][ranks.SHOWN[0]] == ranks.rank_for(values, 0.9)
    assert len(found["rank90"]) == len(found["moved"]) == 6 * 7
    assert all(0 < share < 0.1 for share in found["moved"].values())
    assert "spectra" not in frame.run(replace(FULL, lr=1e-4, seed=1))


def test_the_rank_for_a_share_counts_values_until_it_is_reached():
    values = torch.tensor([3.0, 2.0, 1.0])  # squares 9, 4, 1 of 14
    assert [ranks.rank_for(values, share) for share in (0.6, 0.9, 0.95)] == [1, 2, 3]


def test_a_model_is_adapted_by_the_scale_of_its_spec():
    model = ranks.adapt(load("tiny", None, torch.float32).model, replace(LORA, scale=5.0))
    assert {layer.scale for layer in adapted(model).values()} == {5.0}
    full = ranks.adapt(load("tiny", None, torch.float32).model, FULL)
    assert sum(p.numel() for p in full.parameters() if p.requires_grad) == 4_423_680
    assert not full.model.embed_tokens.weight.requires_grad


def test_the_groups_differ_and_each_has_rates_of_its_own_kind():
    options = argparse.Namespace(ranks=[1, 4], steps=[10, 20], methods=ranks.METHODS)
    found = ranks.groups(options)
    assert len(found) == len(set(found)) == 2 * (1 + 2) + 2
    assert {spec.scale for spec in found if spec.method == "lora"} == {16, 4}
    assert {spec.scale for spec in found if spec.method == "rslora"} == {16, 8}
    assert {spec.steps for spec in found if spec.method == "rslora"} == {10}
    assert all(spec.group == spec for spec in found)
    assert max(ranks.rates(FULL)) < max(ranks.rates(LORA))
    options.methods = ["full"]
    assert {spec.method for spec in ranks.groups(options)} == {"full"}


def test_a_sweep_tunes_then_runs_and_goes_on_where_it_was_cut_off(tmp_path, monkeypatch):
    asked = []

    def run_all(specs, processes, keep, job):
        asked.append(list(specs))
        rows = [row(spec, abs(math.log10(spec.lr) + 3)) for spec in specs]
        for each in rows:
            keep(each)
        return rows

    monkeypatch.setattr(frame, "run_all", run_all)
    out = tmp_path / "rows.jsonl"
    rates = {LORA: (1e-4, 1e-3), FULL: (1e-3, 1e-2)}
    rows = list(frame.sweep([LORA, FULL], rates.__getitem__, 2, out, seeds=(0, 1)))
    tuning, final = asked
    assert {spec.seed for spec in tuning} == set(frame.TUNING_SEEDS)
    assert {spec.split for spec in tuning} == {"validation"}
    assert {(spec.lr, spec.split) for spec in final} == {(1e-3, "test")}
    assert {(spec.group, spec.seed) for spec in final} == {
        (group, seed) for group in (LORA, FULL) for seed in (0, 1)
    }
    assert rows == frame.read(out)
    asked.clear()
    lines = out.read_text().splitlines()
    out.write_text("\n".join(lines[:-1]) + "\n")
    again = list(frame.sweep([LORA, FULL], rates.__getitem__, 2, out, seeds=(0, 1)))
    assert asked == [[], [frame.spec_of(json.loads(lines[-1]))]]
    assert again == rows


def test_the_command_knows_its_sweeps():
    assert "ranks" in command.sweeps()
    assert "frame" not in command.sweeps()


def job(spec):
    return row(spec, spec.lr) | {"threads": torch.get_num_threads(), "process": os.getpid()}


def test_several_processes_run_what_is_asked_with_a_thread_each():
    kept = []
    specs = [replace(LORA, steps=steps, lr=1e-3) for steps in range(1, 7)]
    rows = frame.run_all(specs, 2, kept.append, job)
    assert {frame.spec_of(r) for r in rows} == set(specs)
    assert kept == rows
    assert {r["threads"] for r in rows} == {1}
    assert os.getpid() not in {r["process"] for r in rows}
