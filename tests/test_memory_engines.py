"""The dry run and what it stands on; the measurement and the survey up to the GPU."""

import json
import statistics
import sys
from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from labkit.memory import (
    EngineError,
    ModelShape,
    TrainingSetup,
    dry_run,
    engines,
    estimate,
    grid,
    measure,
    records,
    stepping,
    survey,
)
from labkit.memory.building import adapt, bare
from labkit.memory.tracker import Tracker

TINY = ModelShape.preset("tiny")
SMALL = TrainingSetup(batch=2, seq_len=64)


def test_a_tracker_counts_a_storage_once_and_forgets_it():
    with FakeTensorMode(), Tracker(TINY) as tracker:
        a = torch.empty(300)  # 1,200 bytes: three blocks of 512
        view = a[:10]
        b = torch.ones(200, 256)  # a table of neither kind
        assert tracker.total == 1536 + 200 * 256 * 4
        del view, b
        assert (tracker.total, tracker.peak) == (1536, 1536 + 204_800)
        tracker.name([a], "weights")
        assert (tracker.kinds["weights"], tracker.kinds["activations"]) == (1536, 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"method": "lora", "attention": "eager", "padded": True, "checkpointing": False},
        {"method": "qdora", "loss": "fused"},
        {"method": "full", "stack": "trl", "base_dtype": "float32"},
    ],
)
def test_the_dry_run_and_the_closed_form_tell_the_same(change):
    from labkit.memory.rehearsal import rehearsed

    shape = replace(ModelShape.preset("llama-3.2-1b"), layers=2, vocab=32000)
    setup = replace(TrainingSetup(batch=2, seq_len=512).with_stack(change.get("stack")), **change)
    phases = rehearsed(shape, setup)["phases"]
    top = max(sum(kinds.values()) for kinds in phases.values())
    assert set(phases) == {"forward", "loss", "backward", "optimizer"}
    assert estimate(shape, setup).peak == pytest.approx(top, rel=0.04)


@pytest.mark.slow
def test_a_dry_run_answers_from_a_process_of_its_own():
    found = dry_run(TINY, SMALL)
    assert found.engine == "dry run"
    assert found.peak == sum(found.kinds.values())
    assert found.peak == pytest.approx(estimate(TINY, SMALL).peak, rel=0.02)


def test_an_engine_that_fails_is_an_error_and_not_the_end(monkeypatch):
    monkeypatch.setattr(engines.sys, "executable", sys.executable)
    with pytest.raises(EngineError, match=r"rehearsal of tiny took longer than 0\.01 s"):
        dry_run(TINY, SMALL, seconds=0.01)

    def crash(command, **_):
        return engines.subprocess.CompletedProcess(command, -6, "", "")

    monkeypatch.setattr(engines.subprocess, "run", crash)
    with pytest.raises(EngineError, match="rehearsal of tiny failed: status -6"):
        dry_run(TINY, SMALL)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to measure on")
@pytest.mark.slow
def test_without_a_gpu_measuring_says_so():
    with pytest.raises(EngineError, match="measuring needs a CUDA GPU; dry_run needs none"):
        measure(TINY, SMALL)


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_what_is_built_trains_what_the_closed_form_counts(method):
    setup = replace(SMALL, method=method, rank=4)
    model = adapt(bare(TINY, setup, "cpu"), setup)
    trained = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    assert trained == estimate(TINY, setup).kinds["adapters"]
    batch = stepping.batch_of(TINY, replace(setup, padded=True), "cpu")
    assert (batch["attention_mask"] == 0).sum() == stepping.PADS
    assert torch.isfinite(stepping.loss_of(model, batch, setup))


def test_the_survey_writes_rows_and_errors_and_does_not_run_a_row_again(tmp_path, monkeypatch):
    pairs = [(TINY, SMALL), (TINY, replace(SMALL, rank=2))]
    monkeypatch.setitem(survey.LISTS, "survey", lambda: pairs)
    real, asked = survey.subprocess.Popen, []

    def child(command, stdin, **kwargs):
        asked.append(command[-1])
        answer = 'import json, sys; r = json.load(sys.stdin)["setup"]["rank"]; '
        answer += 'print(json.dumps({"peak_allocated_bytes": r})) if r > 2 else sys.exit("too few")'
        return real([sys.executable, "-c", answer], stdin=stdin, **kwargs)

    monkeypatch.setattr(survey.subprocess, "Popen", child)
    out = tmp_path / "rows.jsonl"
    monkeypatch.setattr(sys, "argv", ["survey", "--out", str(out), "--gib", "80", "--workers", "2"])
    survey.main()
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert {row.get("peak_allocated_bytes") for row in rows} == {16, None}
    assert [row["error"] for row in rows if "error" in row] == ["too few"]
    survey.main()
    assert asked == ["labkit.memory.measuring"] * 3


def test_the_list_of_speeds_changes_one_thing_at_a_time():
    pairs = grid.speeds()
    assert len(pairs) == 16
    assert len({grid.key(*pair) for pair in pairs}) == 16


# The bar: recorded answers of the dry run on rows that no calibration has looked at


def test_the_dry_run_keeps_its_bar_on_the_reported_rows():
    found = [row for row in records.rows() if row.reported and row.dry_run]
    errors = [abs(row.dry_run / row.peak - 1) for row in found]
    assert len(errors) == sum(row.reported for row in records.rows()) == 62
    assert statistics.median(errors) <= 0.02
    assert max(errors) <= 0.05


@pytest.mark.slow
def test_a_recorded_answer_of_the_dry_run_comes_out_again():
    recorded = [row for row in records.rows() if row.dry_run and row.shape.parameters < 1e9]
    row = min(recorded, key=lambda r: (r.shape.layers, r.peak))
    assert dry_run(row.shape, row.setup).peak == pytest.approx(row.dry_run, rel=0.002)
