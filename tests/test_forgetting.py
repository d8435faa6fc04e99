"""The sweep of forgetting: its sets, one run of it at toy size, and what its rows hold."""

import argparse
import json
from dataclasses import replace

import pytest

from labkit import data, evaluate, skills
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
