"""The sweep of adapters that are read: one run of it, its groups, its cuts, and the overlaps."""

import argparse
import json
import shutil
from dataclasses import replace

import pytest
import torch

from labkit import data, lora, models, spectra
from labkit.adapter_files import read_adapter
from labkit.readings import FIELDS, FIRST, MAPS, TOP_K
from labkit.sweep import __main__ as command
from labkit.sweep import frame, maps, overlaps
from labkit.sweep import spectra as sweep
from labkit.sweep.frame import Spec

AT = "2.v_proj"
NAME = "model.layers.2.self_attn.v_proj"
LORA = Spec("spectra", "lora", 2, rank=6, alpha=16.0, scale=16 / 6, batch=4, lr=4e-3)
FULL = Spec("spectra", "full", 2, batch=4, lr=4e-4)


def options(**given):
    usual = {"what": sweep.WHAT, "ranks": [4, 16], "steps": [20, 300], "adapters": None}
    return argparse.Namespace(**usual | given)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Two runs of two steps on few letters: their rows, and what they kept."""
    folder = tmp_path_factory.mktemp("kept")
    whole = data.examples
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frame.data, "examples", lambda name: whole(name)[:8])
        patch.setattr(sweep, "USUAL", 2)
        patch.setattr(sweep, "CUTS", (2, 8))
        frame._items.cache_clear()
        job = sweep.job(options(adapters=folder))
        rows = {spec.method: job(spec) for spec in (LORA, FULL)}
    frame._items.cache_clear()
    return rows, folder


def base_weight():
    base = models.load("tiny", None, torch.float32).model
    return base.get_submodule(NAME).weight.detach().double()


def field(row, name, at=AT):
    return row[name][MAPS.index(at)]


def test_the_maps_are_those_of_tiny_in_its_order():
    found = lora.linear_maps(models.load("tiny", None, torch.float32).model)
    assert tuple(map(maps.short, found)) == MAPS


def test_a_row_holds_what_the_functions_say_of_the_kept_adapter(ran):
    rows, folder = ran
    row = rows["lora"]
    update = read_adapter(folder / "rank6-task-seed0").updates[NAME]
    A, B, W = update.A, update.B, base_weight()
    assert update.scale == pytest.approx(LORA.scale)
    D = (update.scale * B.double() @ A.double()).detach()
    S = torch.linalg.svdvals(D)
    want = {
        "moved": float(D.norm() / W.norm()),
        "strength": float(S[0] / torch.linalg.svdvals(W)[0]),
        "effective": spectra.effective_rank(S),
        "energy90": spectra.energy_rank(S),
        "first": spectra.energy(S, FIRST),
        "intruders": len(spectra.intruder_dimensions(W, W + D, TOP_K)),
        "amplified": spectra.amplification(W, A, B, update.scale, FIRST),
        "amplified_all": spectra.amplification(W, A, B, update.scale),
    }
    for name, value in want.items():
        assert field(row, name) == pytest.approx(value, rel=6e-3), name
    assert row["values"][AT] == pytest.approx(S[:6].tolist(), rel=6e-3)
    assert all(len(row[name]) == len(MAPS) for name in FIELDS)
    assert len(row["losses"]) == 1
    assert json.loads(json.dumps(row)) == row


def test_a_full_run_is_read_from_the_difference_of_its_weights(ran):
    rows, folder = ran
    row = rows["full"]
    kept = read_adapter(folder / "full-task-seed0").updates[NAME]
    assert kept.rank == sweep.KEPT
    values = torch.tensor(row["values"][AT])
    assert len(values) == sweep.MOST
    torch.testing.assert_close(kept.spectrum().values, values[:16].double(), rtol=6e-3, atol=0)
    assert field(row, "moved") > float(values[:16].norm() / base_weight().norm()) * 0.99
    # Adam moves no entry much further than the rate in a step, and here hardly any less far.
    reach = FULL.steps * FULL.lr * 128**0.5 * 256**0.5 / float(base_weight().norm())
    assert 0.2 * reach < field(row, "moved") < 1.1 * reach
    assert field(row, "effective") > 16  # far more directions than any adapter here
    assert "cut" not in row


def test_a_cut_is_scored_as_the_truncated_pair_and_as_the_first_rows(ran):
    rows, folder = ran
    assert list(rows["lora"]["cut"]) == ["2"]  # 8 is no cut of rank 6
    model = lora.inject(models.load("tiny", None, torch.float32).model, "all-linear", 6, 16)
    updates = read_adapter(folder / "rank6-task-seed0").updates
    layers = lora.adapted(model)
    with torch.no_grad():
        pairs = {n: spectra.truncated(u.A, u.B, u.scale, 2) for n, u in updates.items()}
        sweep.put(layers, pairs)
        u, layer = updates[NAME], layers[NAME]
        left, values, right = torch.linalg.svd(u.scale * u.B @ u.A)
        nearest = (left[:, :2] * values[:2]) @ right[:2]
        torch.testing.assert_close(layer.delta(), nearest, rtol=1e-3, atol=1e-5)
        sweep.put(layers, {n: (u.A[:3], u.B[:, :3]) for n, u in updates.items()})
        torch.testing.assert_close(layer.delta(), u.scale * u.B[:, :3] @ u.A[:3])


def test_the_controls_have_the_norm_of_the_update():
    """Noise of a large enough norm makes intruders, so the two controls are not always 0."""
    torch.manual_seed(0)
    W = torch.linalg.qr(torch.randn(32, 32, dtype=torch.float64)).Q
    D = 3 * torch.randn(32, 32, dtype=torch.float64)
    U, S, Vh = torch.linalg.svd(D)
    found = dict(
        zip(
            FIELDS,
            maps.reading(W, maps.left_vectors(W), D, spectra.Spectrum(S, U, Vh.T)),
            strict=True,
        )
    )
    assert found["scrambled"] > 5
    assert found["noise"] > 5
    assert found["amplified_all"] == found["moved"]  # D spans the whole space


def test_the_groups_bring_the_rates_that_were_tuned_and_only_codes_are_tuned_anew():
    found = sweep.groups(options())
    assert len(found) == len(set(found))
    by = {(s.method, s.learns, s.rank, s.steps): s for s in found}
    assert by["lora", "task", 16, 20].lr == 4e-3
    assert by["lora", "task", 16, 300].lr == sweep.tuned("lora", 16, 100) == 2e-3
    assert by["lora-hot", "task", 16, 100].lr == 4 * 2e-3
    assert by["full", "shuffled", 0, 100].lr == 2e-4
    assert {(s.method, s.learns) for s in found if not s.lr} == {("lora", "codes")}
    assert sweep.rates(by["lora", "codes", 4, 200]) == sweep.CODE_RATES
    assert {s.scale for s in found if s.rank == 16} == {1.0}
    with pytest.raises(ValueError, match="tuned no rate for lora, rank 5, 100 steps"):
        sweep.tuned("lora", 5, 100)


def test_a_group_with_a_rate_is_run_at_it_and_not_tuned(tmp_path, monkeypatch):
    asked = []

    def run_all(specs, processes, keep, job):
        asked.append(list(specs))
        return []

    monkeypatch.setattr(frame, "run_all", run_all)
    list(frame.sweep([LORA], sweep.rates, 1, tmp_path / "rows", (3,)))
    assert asked == [[], [replace(LORA, seed=3)]]


def test_shuffled_answers_are_the_same_answers_at_other_letters():
    true, mixed = data.examples("train"), sweep.examples("shuffled")
    assert [e.prompt for e in mixed] == [e.prompt for e in true]
    assert sorted(e.answer for e in mixed) == sorted(e.answer for e in true)
    alike = sum(a.answer == b.answer for a, b in zip(true, mixed, strict=True))
    assert alike < 0.01 * len(true)
    assert sweep.scored(replace(LORA, learns="shuffled")) == data.examples("test")
    assert sweep.scored(replace(LORA, learns="codes"))[0].skill == "code"
    with pytest.raises(ValueError, match="learns='other' is no set of this sweep"):
        sweep.examples("other")


def test_the_command_knows_the_sweep_and_not_its_helper():
    assert "spectra" in command.sweeps()
    assert "overlaps" not in command.sweeps()


def test_overlaps_are_those_of_the_dense_updates(ran, tmp_path):
    _, kept = ran
    shutil.copytree(kept / "rank6-task-seed0", tmp_path / "rank16-task-seed0")
    shutil.copytree(kept / "full-task-seed0", tmp_path / "rank16-task-seed1")
    found = list(overlaps.rows(tmp_path))
    assert [(row["pair"], row["side"]) for row in found] == [("seeds", "left"), ("seeds", "right")]
    one, other = (read_adapter(tmp_path / f"rank16-task-seed{seed}").updates for seed in (0, 1))
    dense = (u[NAME].scale * u[NAME].B.double() @ u[NAME].A.double() for u in (one, other))
    U, V = map(torch.linalg.svd, dense)
    left, right = found
    assert left["phi"][AT][:3] == pytest.approx(
        [spectra.overlap(U[0][:, :k], V[0][:, :k]) for k in (1, 2, 4)], abs=1e-3
    )
    assert right["phi"][AT][:3] == pytest.approx(
        [spectra.overlap(U[2][:k].T, V[2][:k].T) for k in (1, 2, 4)], abs=1e-3
    )
    assert (left["n"][AT], right["n"][AT]) == (128, 256)
    assert [len(left["whole"][AT]), len(left["whole"][AT][0])] == [6, 16]
    assert set(left["whole"]) == set(overlaps.SHOWN)
