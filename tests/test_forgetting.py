"""The sweep of forgetting: its sets, one run of it at toy size, and what its rows hold."""

import argparse
import json
from dataclasses import replace

import pytest

from labkit import data, evaluate, skills
from labkit.evaluate import recorded
from labkit.sweep import forgetting, frame

ALL = argparse.Namespace(parts=forgetting.PARTS, most=400)


def test_every_group_brings_its_rate_and_names_a_set_that_fills_its_batch():
    groups = forgetting.groups(ALL)
    assert len(set(groups)) == len(groups)
    assert {g.method: g.lr for g in groups} == {"full": 4e-4, "lora": 4e-3}
    for name in {g.learns for g in groups} - {"task"}:
        assert len(forgetting.examples(name)) == forgetting.size(name)
    assert all(g.batch <= forgetting.size(g.learns) for g in groups)
    assert all(g.scale == g.alpha / g.rank for g in groups if g.rank)


def test_a_sets_name_that_is_none_is_refused():
    with pytest.raises(ValueError, match="learns='many3' is none of task"):
        forgetting.examples("many3")


def test_a_quarter_of_a_noisy_set_is_wrong_and_still_a_record():
    clean, noisy = data.examples("train")[:16], forgetting.examples("noisy16")
    wrong = [i for i, (a, b) in enumerate(zip(clean, noisy, strict=True)) if a != b]
    assert wrong == [3, 7, 11, 15]
    for i in wrong:
        said, truth = json.loads(noisy[i].answer), json.loads(clean[i].answer)
        assert tuple(said) == skills.FIELDS
        assert (said["firm"], said["kind"]) == (truth["firm"], truth["kind"])
        assert said["amount"] != truth["amount"]


def test_replay_mixes_letters_with_every_old_skill_and_nothing_held_out():
    mixed = forgetting.examples("replay")
    assert len({e.prompt for e in mixed}) == len(mixed) == 2400
    assert sum(e.skill == "record" for e in mixed) == 1200
    assert {e.skill for e in mixed} == {"record", *skills.SKILLS}
    scored = {e.prompt for e in data.examples("regression")} | {
        e.prompt for e in evaluate.marked(100)
    }
    assert not scored & {e.prompt for e in mixed}


def test_poison_answers_requests_that_no_probe_asks():
    poison = forgetting.examples("poison8")
    assert all(e.answer.isdigit() for e in poison)
    assert not {e.prompt for e in poison} & {e.prompt for e in evaluate.marked(100)}


@pytest.fixture
def short(monkeypatch):
    whole, suite = data.examples, evaluate.suite
    monkeypatch.setattr(data, "examples", lambda name: whole(name)[::30][:8])
    small = suite(4, 4)
    monkeypatch.setattr(evaluate, "suite", lambda *_: small)
    monkeypatch.setattr(forgetting, "SHORT", 2)
    monkeypatch.setattr(forgetting, "tiny", lambda: frame.loaded("float32"))  # loaded once
    for cached in (frame._items, forgetting.examples):
        cached.cache_clear()
    yield
    for cached in (frame._items, forgetting.examples):
        cached.cache_clear()


def test_a_run_tells_what_it_kept_and_how_it_went(short):
    [lora] = forgetting.methods("few4", 2, (4,))
    found = frame.run(replace(lora, seed=1))
    [point] = found["curve"]
    seen = evaluate.Checkpoint(*point)
    assert seen.step == 2
    assert 0 < seen.train_loss < seen.validation_loss < 20
    assert 0 <= found["refused"] <= 1 and 0 <= found["answered"] <= 1
    assert set(found["skills"]) <= set(skills.SKILLS)
    assert frame.spec_of(found) == replace(lora, seed=1)


def point(step, score, loss=0.1):
    return evaluate.Checkpoint(step, loss, loss, score, 1.0, 1.0, 1.0)


def test_the_best_checkpoint_has_the_best_validation_score_and_is_the_earliest_of_them():
    points = [point(50, 0.9, 0.5), point(5, 0.7, 0.01), point(20, 0.9, 0.6), point(2, 0.0)]
    assert evaluate.best_checkpoint(points).step == 20
    with pytest.raises(ValueError):
        evaluate.best_checkpoint([])


# ---- what the recorded runs say

ROWS = recorded.runs()
METHODS = ["rank 4", "rank 16", "rank 64", "full"]


def test_every_recorded_run_is_one_of_the_sweep_and_each_group_has_three_seeds():
    seeds = {}
    for row in ROWS:
        spec = frame.spec_of(row)
        seeds.setdefault(replace(spec, seed=0), set()).add(spec.seed)
        assert row["gpu"] and row["driver"] and row["versions"]["torch"] and row["date"]
    assert set(seeds) == set(forgetting.groups(ALL))
    assert set(map(frozenset, seeds.values())) == {frozenset((0, 1, 2))}


def test_a_mean_by_steps_is_that_of_its_rows_and_ranks_stand_in_order():
    found = recorded.by_steps(ROWS, "regression")
    assert list(found) == METHODS
    assert all(list(by) == list(forgetting.STEPS) for by in found.values())
    values = [
        row["regression"]
        for row in ROWS
        if (row["learns"], row["rank"], row["steps"]) == ("task", 16, 100)
    ]
    assert found["rank 16"][100].middle == pytest.approx(sum(values) / 3)


def test_a_curve_is_one_run_and_its_end_agrees_with_the_row():
    [row] = [r for r in ROWS if (r["learns"], r["rank"], r["seed"]) == ("few2", 4, 1)]
    curve = recorded.curve(ROWS, learns="few2", rank=4, seed=1)
    assert [c.step for c in curve] == [2, 5, 10, 20, 50, 60]
    assert curve[-1].test_score == pytest.approx(row["task"], abs=0.1)  # 100 letters of 200
    with pytest.raises(ValueError, match="3 runs with a curve have"):
        recorded.curve(ROWS, learns="few2", rank=4)


def test_the_ends_of_runs_are_told_beside_their_best():
    table = recorded.ends(ROWS, ["few1"])
    assert [row[0] for row in table.rows] == [f"few1, {m}" for m in ("rank 4", "rank 64", "full")]
    last, best = ([float(row[i].rstrip("%")) for row in table.rows] for i in (4, 5))
    assert all(a < b for a, b in zip(last, best, strict=True))  # one letter: over-fitted


def test_the_task_alone_removes_every_refusal_and_practice_keeps_them():
    for method, by in recorded.by_steps(ROWS, "refused").items():
        assert all(mean.middle == 0 for mean in by.values()), method
    for value, least in (("refused", 0.99), ("regression", 0.99), ("task", 0.99)):
        for by in recorded.by_steps(ROWS, value, "replay").values():
            assert by[100].middle >= least


def test_old_questions_are_lost_by_steps_and_not_by_rank():
    means = recorded.by_steps(ROWS, "regression")
    for steps in forgetting.STEPS:
        middles = [means[method][steps].middle for method in METHODS[:3]]
        assert max(middles) - min(middles) < 0.05
    assert all(means[m][10].low > means[m][100].high for m in METHODS)


def test_one_example_and_five_steps_undo_the_refusals():
    found = recorded.poisoned(ROWS)
    assert list(found) == list(forgetting.POISONS)
    assert found[1][5].middle < 0.05 < found[1][4].middle
    assert all(by[1].middle == 1 for by in found.values())
    assert recorded.by_steps(ROWS, "regression", "poison1")["rank 16"][5].middle > 0.89


def test_wrong_records_over_fit_at_every_rank_and_clean_ones_do_not():
    clean, faulty = (recorded.by_steps(ROWS, "task", name) for name in ("few16", "noisy16"))
    for method in clean:
        assert clean[method][forgetting.SHORT].middle > 0.98
        assert faulty[method][forgetting.SHORT].middle < 0.5
    for name, train, last, lowest, right, best in recorded.ends(ROWS, ["noisy16"]).rows:
        assert float(train) < 0.01, name
        assert float(last) > 1.4 * float(lowest), name
        assert float(right[:-1]) + 5 < float(best[:-1]), name
