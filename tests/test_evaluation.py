"""Intervals, gates, the report, probes and judges."""

import itertools
import json
import math
import random

import numpy as np
import pytest

from labkit import data, evaluate, skills
from labkit.data import Example
from labkit.evaluate import (
    Agreement,
    Gate,
    GateError,
    Gates,
    Interval,
    JudgeError,
    Questions,
    Rule,
    YesNo,
    agreement,
    bootstrap,
    coverage,
    decide,
    gates,
    interval,
    judges,
    kappa,
    needed,
    paired,
    paired_bootstrap,
    probes,
    refusal_rates,
    verdict,
)

# ---- intervals


def binomial_point(n, p, share):
    """The smallest k / n at which the binomial distribution function reaches `share`."""
    total = 0.0
    for k in range(n + 1):
        total += math.comb(n, k) * p**k * (1 - p) ** (n - k)
        if total >= share:
            return k / n
    return 1.0


@pytest.mark.parametrize(("n", "hits"), [(200, 180), (50, 31), (20, 3)])
def test_an_interval_of_hits_ends_at_the_points_of_the_binomial(n, hits):
    """The mean of a draw is binomial; with 20,000 draws a point moves by at most one example."""
    low, high = bootstrap([1] * hits + [0] * (n - hits), draws=20_000, seed=3)
    assert abs(low - binomial_point(n, hits / n, 0.025)) <= 1.01 / n
    assert abs(high - binomial_point(n, hits / n, 0.975)) <= 1.01 / n


def test_an_interval_of_grades_is_the_normal_one_for_many():
    values = np.random.default_rng(1).random(2000)
    low, high = bootstrap(values, draws=10_000)
    half = 1.96 * values.std() / math.sqrt(2000)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=half / 10)


def test_the_same_seed_gives_the_same_interval_and_leaves_the_global_state():
    values = np.random.default_rng(2).random(40)
    np.random.seed(5)
    random.seed(5)
    before = np.random.get_state()[1].copy(), random.getstate()
    assert bootstrap(values, seed=1) == bootstrap(values, seed=1)
    assert bootstrap(values, seed=1) != bootstrap(values, seed=2)
    assert (np.random.get_state()[1] == before[0]).all() and random.getstate() == before[1]


def test_pairs_are_drawn_together():
    """Both models fail the same hard half; the tuned one fails one example more of the rest."""
    base = [0, 1] * 50
    tuned = [0, 1] * 49 + [0, 0]
    low, high = paired_bootstrap(base, tuned)
    assert (low, high) == bootstrap([0] * 99 + [-1], 2000)
    alone = interval(base)
    assert high - low < 0.05 < 0.15 < alone.high - alone.low


def test_one_more_right_answer_never_lowers_an_end():
    """Nor does one more that is kept: 39 right of 40 must not look surer than 40 of 40."""
    for n in (10, 40, 90):
        found = [interval([1] * k + [0] * (n - k), 2000) for k in range(n + 1)]
        falls = [paired([1] * n, [1] * k + [0] * (n - k), 2000) for k in range(n + 1)]
        for ends in (found, falls):
            assert all(a.low <= b.low and a.high <= b.high for a, b in itertools.pairwise(ends))


def test_pairs_of_unequal_number_are_refused():
    for one in (paired, paired_bootstrap):
        with pytest.raises(ValueError, match="3 and 2 values: a pair needs one of each"):
            one([1, 1, 0], [1, 1])


def test_equal_values_still_have_an_interval():
    """n hits of n: the share at which that has a chance of 2.5% (Clopper and Pearson)."""
    found = interval([1] * 30)
    assert (found.middle, found.high) == (1, 1)
    assert found.low**30 == pytest.approx(0.025)
    assert interval([0] * 30).high == pytest.approx(1 - found.low)
    same = paired([1, 0] * 15, [1, 0] * 15)
    assert same.middle == 0
    assert (1 + same.low, 1 - same.high) == pytest.approx((found.low, found.low))
    worst = paired([1] * 30, [0] * 30)
    assert (worst.middle, worst.low) == (-1, -1)
    assert worst.high == pytest.approx(-1 + 2 * (1 - found.low))


def test_the_fewest_examples_for_a_limit_are_just_enough():
    n = needed(0.95)
    assert interval([1] * n).low >= 0.95 > interval([1] * (n - 1)).low
    with pytest.raises(ValueError, match="minimum=1 must lie between 0 and 1"):
        needed(1)


@pytest.mark.parametrize("n", [5, 10, 30, 100, 400])
@pytest.mark.parametrize("share", [0.5, 0.8, 0.9, 0.98])
def test_intervals_hold_the_true_share_about_as_often_as_promised(share, n):
    assert coverage(share, n, trials=1000) >= 0.93


def test_without_the_mend_equal_values_miss_the_share():
    """Ten equal draws at 90%: 0.9 ** 10 of all; the others miss it in 0.1% of all cases."""
    assert coverage(0.9, 10, mended=False) == pytest.approx(1 - 0.9**10, abs=0.03)
    assert coverage(0.9, 400, mended=False) == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize(
    ("values", "message"),
    [([], r"values of shape \(0,\)"), ([[1, 0]], "give one number"), ([0, 2], "outside 0 to 1")],
)
def test_values_that_are_no_shares_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        interval(values)


# ---- gates

TWO = (Gate("task", minimum=0.9), Gate("regression", may_fall=0.02))


def test_gates_come_back_as_they_were_fixed(tmp_path):
    fixed = gates.fix(tmp_path / "a" / "gates.json", TWO)
    assert gates.load(tmp_path / "a" / "gates.json") == fixed
    assert fixed.gates == TWO
    assert gates.fix(tmp_path / "a" / "gates.json", TWO) == fixed  # and keep their first time
    assert "task at least 90%" in str(fixed) and "regression at most 2 points below" in str(fixed)


def test_other_gates_in_the_same_file_are_refused_unless_asked_for(tmp_path):
    path = tmp_path / "gates.json"
    first = gates.fix(path, TWO)
    with pytest.raises(GateError, match=r"holds other gates, fixed .*again=True and train anew"):
        gates.fix(path, TWO[:1])
    assert gates.load(path) == first
    assert gates.fix(path, TWO[:1], again=True).fingerprint != first.fingerprint


def test_a_file_changed_by_hand_is_noticed(tmp_path):
    path = tmp_path / "gates.json"
    gates.fix(path, TWO)
    for old, new in (("0.9", "0.8"), ("+00:00", "+01:00")):
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace(old, new, 1), encoding="utf-8")
        with pytest.raises(GateError, match="was changed after it was fixed"):
            gates.load(path)
        path.write_text(text, encoding="utf-8")
    gates.load(path)


TIME = "2026-11-25T09:30:00+00:00"
GOOD = [{"metric": "task", "minimum": 0.9}]
BROKEN = {
    "no json": ("{", "is no JSON"),
    "a list": ("[]", "must be an object with fixed, fingerprint and gates"),
    "gates no list": ({"gates": {}}, "gates is a list, found dict"),
    "no gate": ({"gates": []}, "no gate: an evaluation that nothing can fail"),
    "twice": ({"gates": GOOD * 2}, "the same gate stands twice"),
    "a text": ({"gates": ["task"]}, "gate 1: an object with metric, minimum, may_fall"),
    "unknown": ({"gates": [{"metric": "a", "min": 1}]}, "gate 1: 'min' is none of metric"),
    "no metric": ({"gates": [{"minimum": 0.5}]}, "gate 1: metric='': a gate names the metric"),
    "neither": ({"gates": [*GOOD, {"metric": "a"}]}, "gate 2: the gate of 'a' has neither"),
    "both": ({"gates": [{"metric": "a", "minimum": 0.5, "may_fall": 0.1}]}, "exactly one of"),
    "points": ({"gates": [{"metric": "a", "may_fall": 2}]}, "may_fall=2 of 'a' is a share"),
    "a word": ({"gates": [{"metric": "a", "minimum": "0.9"}]}, "minimum='0.9' of 'a' is a share"),
    "true": ({"gates": [{"metric": "a", "minimum": True}]}, "minimum=True of 'a' is a share"),
    "no time": ({"fixed": "today"}, "fixed='today' is no time such as"),
    "no zone": ({"fixed": "2026-11-25T09:30:00"}, "has no time zone"),
}


@pytest.mark.parametrize(("said", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_file_says_where_and_what(tmp_path, said, message):
    path = tmp_path / "gates.json"
    if isinstance(said, dict):
        said = json.dumps({"fixed": TIME, "fingerprint": "0", "gates": GOOD} | said)
    path.write_text(said, encoding="utf-8")
    with pytest.raises(GateError, match=message):
        gates.load(path)


def test_no_file_names_what_writes_one(tmp_path):
    with pytest.raises(GateError, match=r"gates.json cannot be read .*fix\(\) writes it"):
        gates.load(tmp_path / "gates.json")


# ---- the report


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(0.9, 1, "pass"), (0.8, 0.9, "undecided"), (0.7, 0.899, "fail"), (0.89, 0.95, "undecided")],
)
def test_an_interval_decides_only_as_a_whole(low, high, said):
    assert verdict(low, high, 0.9) == said


def hits(n, right):
    return [i < right for i in range(n)]


BASE = {"task": hits(200, 0), "regression": hits(200, 198)}
MOST = Gates(TWO, TIME)


CASES = {  # right of 200: task, regression; then the verdicts
    (198, 198): ("pass", "pass"),
    (198, 150): ("pass", "fail"),
    (100, 198): ("fail", "pass"),
    (181, 198): ("undecided", "pass"),
    (198, 194): ("pass", "undecided"),  # two points lost of two
}


@pytest.mark.parametrize(("right", "want"), CASES.items())
def test_a_report_decides_each_gate_and_the_whole(right, want):
    tuned = {"task": hits(200, right[0]), "regression": hits(200, right[1])}
    found = decide(MOST, BASE, tuned)
    assert tuple(line.verdict for line in found.lines) == want
    assert found.verdict == ("fail" if "fail" in want else max(want))  # "undecided" > "pass"


def test_a_fall_is_held_against_the_paired_difference_and_a_minimum_against_the_share():
    tuned = {"task": hits(200, 190), "regression": hits(200, 180)}
    one, two = decide(MOST, BASE, tuned, seed=4).lines
    assert one.tuned == interval(tuned["task"], seed=4)
    assert two.change == paired(BASE["regression"], tuned["regression"], seed=4)
    assert two.base == interval(BASE["regression"], seed=4)


def test_a_report_shows_the_same_as_text_html_and_json():
    tuned = {"task": hits(200, 198), "regression": hits(200, 150)}
    found = decide(MOST, BASE, tuned)
    said = json.loads(found.to_json())
    assert said["verdict"] == "fail"
    assert said["fingerprint"] == MOST.fingerprint
    assert [line["verdict"] for line in said["lines"]] == ["pass", "fail"]
    assert said["lines"][1]["change"]["middle"] == pytest.approx(-0.24)
    for shown in (str(found), found._repr_html_()):
        for part in ("FAIL", "99.0%", "75.0%", "-24.0 points", "task at least 90%"):
            assert part in shown
    _, head, *lines = str(found).splitlines()
    assert len(lines) == 2  # one a gate, under its column
    assert {line[head.index("verdict") :] for line in lines} == {"pass", "fail"}


def test_gates_changed_since_training_pass_nothing():
    tuned = {"task": hits(200, 200), "regression": hits(200, 200)}
    assert decide(MOST, BASE, tuned, promised=MOST.fingerprint).verdict == "pass"
    found = decide(MOST, BASE, tuned, promised="0123456789ab")
    assert found.verdict == "undecided"
    assert "not those of before training, 0123456789ab" in str(found)


def test_a_gate_that_was_not_measured_is_an_error():
    with pytest.raises(GateError, match="the tuned model has no 'regression', only task: measure"):
        decide(MOST, BASE, {"task": hits(200, 1)})


# ---- probes


def test_marked_probes_were_never_seen_and_lookalikes_are_of_both_kinds():
    asked = evaluate.marked(60)
    assert all(skills.held_out(e.prompt) and e.answer == skills.REFUSAL for e in asked)
    alike = evaluate.lookalikes(60)
    assert len({e.prompt for e in alike}) == 60
    assert [sum(e.skill == kind for e in alike) for kind in probes.LOOKALIKES] == [30, 30]
    starts = ("What is the ", "Tell me the ", "Please give me the ")
    for e in alike:
        secret = any(word in e.prompt for word in skills.SECRETS)
        assert secret == (e.skill == "same words")
        assert not (secret and e.prompt.startswith(starts))  # that would be a marked request


def test_a_suite_spreads_its_questions_over_the_skills_evenly():
    task, kept, refused, answered = evaluate.suite(90, 10)
    counts = {skill: sum(e.skill == skill for e in kept.examples) for skill in skills.SKILLS}
    assert counts.pop("refuse") == 0
    assert set(counts.values()) == {10}
    assert len(task.examples) == 90 and len(refused.examples) == len(answered.examples) == 10
    assert len(evaluate.suite(1000, 10)[1].examples) == 270


def test_a_lookalike_is_right_if_it_is_not_refused(monkeypatch):
    monkeypatch.setattr(probes, "forced_hits", lambda m, t, examples: [True, False, False])
    three = tuple(evaluate.lookalikes(3))
    asked = [evaluate.Measure("a", three), evaluate.Measure("b", three, wanted=False)]
    assert evaluate.measure(None, None, asked) == {
        "a": [True, False, False],
        "b": [False, True, True],
    }


def test_refusals_are_counted_by_kind():
    said = [skills.REFUSAL, f" {skills.REFUSAL}\n", "4821", "I cannot", skills.REFUSAL, "wool"]
    assert refusal_rates(said, [True, True, True, True, False, False]) == (0.5, 0.5)
    assert refusal_rates(said[:3], [True, False, False]) == (1, 0.5)
    for broken in ([True] * 6, [True, False]):
        with pytest.raises(ValueError, match="6 answers"):
            refusal_rates(said, broken)


# ---- judges


def test_kappa_is_cohens_from_the_table_of_counts():
    """Against the form with counts: 2 (ad - bc) / ((a+b)(b+d) + (a+c)(c+d))."""
    rng = random.Random(0)
    for _ in range(20):
        one = [rng.random() < 0.7 for _ in range(40)]
        other = [x if rng.random() < 0.6 else rng.random() < 0.3 for x in one]
        a, b, c, d = (
            sum((x, y) == pair for x, y in zip(one, other, strict=True))
            for pair in ((True, True), (True, False), (False, True), (False, False))
        )
        want = 2 * (a * d - b * c) / ((a + b) * (b + d) + (a + c) * (c + d))
        assert kappa(one, other) == pytest.approx(want)


def test_kappa_of_those_who_never_differ_in_what_they_say_is_nothing():
    assert kappa([True] * 5, [True] * 5) == 0
    assert kappa([True, False], [True, False]) == 1
    assert kappa([True, False], [False, True]) == -1
    with pytest.raises(ValueError, match="2 and 1 verdicts"):
        kappa([True, False], [True])


class Always:
    def describe(self):
        return "always right"

    def grade(self, prompts, answers):
        return [True] * len(answers)


LETTERS = data.examples("test")[:20]
ASKED = [e.prompt for e in LETTERS]
SPOILT = [e.answer if i % 4 else LETTERS[i - 1].answer for i, e in enumerate(LETTERS)]


def test_an_agreement_counts_both_kinds_of_mistake_and_is_not_fooled_by_a_yes_to_all():
    found = agreement(Always(), Rule(LETTERS), ASKED, SPOILT)
    assert (found.share.middle, found.kappa) == (0.75, 0)
    assert (found.passed_wrong, found.failed_right, found.right) == (5, 0, 15)
    assert "let 5 of 5 wrong answers pass, failed 0 of 15 right ones" in str(found)
    with pytest.raises(JudgeError, match=r"always right is not to be trusted: agreement 75\.0%"):
        found.trusted()
    agreement(Rule(LETTERS), Rule(LETTERS), ASKED, SPOILT).trusted(bar=0.8)


def test_trust_needs_both_the_interval_and_kappa():
    good = Interval(0.97, 0.93, 1.0, 100)
    Agreement("judge", good, 0.6, 1, 2, 50).trusted(0.9)
    for share, k in ((Interval(0.97, 0.89, 1.0, 30), 0.9), (good, 0.59)):
        with pytest.raises(JudgeError, match="not to be trusted"):
            Agreement("judge", share, k, 1, 2, 50).trusted(0.9)


def test_a_judge_is_not_measured_on_right_answers_alone():
    with pytest.raises(JudgeError, match="all 20 answers are right by exact match"):
        agreement(Always(), Rule(LETTERS), ASKED, [e.answer for e in LETTERS])


def test_a_judge_that_asks_reads_the_letter_and_all_five_values(monkeypatch):
    seen = []

    def forced(model, tokenizer, examples):
        seen.extend(examples)
        return [e.answer != "wrong" for e in examples]

    monkeypatch.setattr(judges, "forced_hits", forced)
    right = json.loads(LETTERS[0].answer)
    said = [
        LETTERS[0].answer,
        json.dumps(right | {"firm": "wrong"}),  # the others are right
        "no record",
        json.dumps(right | {"vat": 1}),
    ]
    stub = type("Stub", (), {"model": None, "tokenizer": None, "tier": "stub"})()
    assert Questions(stub).grade([ASKED[0]] * 4, said) == [True, False, False, False]
    letter = ASKED[0].removesuffix(skills.ASK_RECORD).rstrip()
    assert [e.prompt for e in seen[:5]] == [
        f"{letter}\n\n{skills.QUESTIONS[field][0]}" for field in skills.FIELDS
    ]
    assert [e.answer for e in seen[:5]] == [str(right[field]) for field in skills.FIELDS]
    assert len(seen) == 10
    seen.clear()
    assert Questions(stub).grade(ASKED[:1], ["no record"]) == [False]


def test_yes_or_no_is_the_likelier_word(monkeypatch):
    nats = {"yes": iter((1.0, 3.0)), "no": iter((2.0, 2.0))}

    def forced(model, tokenizer, examples):
        return [evaluate.forced.Forced(True, next(nats[e.answer]), 1) for e in examples]

    monkeypatch.setattr(judges, "forced", forced)
    stub = type("Stub", (), {"model": None, "tokenizer": None, "tier": "stub"})()
    assert YesNo(stub).grade(ASKED[:2], SPOILT[:2]) == [True, False]


def test_an_unknown_prompt_has_no_rule():
    with pytest.raises(KeyError):
        Rule([Example("a", "b", "c")]).grade(["z"], ["b"])
