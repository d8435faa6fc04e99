"""What notebook 08 says in prose, held against the record and the solved notebook."""

import itertools
import json
import re
from functools import cache
from pathlib import Path

import nbformat
import pytest

from labkit import evaluate, project, skills
from labkit.exercises import questions

SOLVED = Path(__file__).parents[1] / "notebooks" / "solutions" / "08_evaluate.ipynb"


@cache
def cells():
    return nbformat.read(SOLVED, as_version=4).cells


@cache
def shown(part):
    """What the one code cell whose source holds `part` prints and shows, as text."""
    (cell,) = [c for c in cells() if c.cell_type == "code" and part in c.source]
    return "\n".join(o.get("text") or o.get("data", {}).get("text/plain", "") for o in cell.outputs)


def numbers(part, pattern):
    """What `pattern` finds there, each group as a float."""
    found = re.findall(pattern, shown(part))
    return [tuple(float(n.replace(",", "")) for n in np) for np in found]


@cache
def rows(part):
    """The rows of the table there, by their first cell."""
    lines = [re.split(r" {2,}", line) for line in shown(part).splitlines()]
    return {name: cells for name, *cells in lines if cells}


@cache
def prose():
    return " ".join(" ".join(c.source for c in cells() if c.cell_type == "markdown").split())


def percent(text):
    return float(text.rstrip("%"))


# What needs no training


def test_questions_give_every_record_and_examples_none():
    table = rows("UNTRAINED = {")
    assert table["two examples"][2].startswith("0.0% (")
    assert table["five questions"][2].startswith("100.0% (")
    assert table["two examples, held to a form"][0] == "100%"
    assert table["two examples, held to a form"][2].startswith("0.0% (")


def test_what_is_looked_at_on_the_way_is_no_part_of_the_test():
    closed = {e.prompt for measure in evaluate.suite(60, 72) for e in measure.examples}
    looked = [*evaluate.marked(84)[72:], *evaluate.lookalikes(80)[72:], *evaluate.poison(10)]
    looked += [e for s in ("refuse", "object") for e in skills.examples(s, 100, 1, held=False)]
    assert closed.isdisjoint(e.prompt for e in looked)


# Intervals


def test_twenty_letters_say_little():
    low, high = re.findall(r"^20 +([\d.]+)% to ([\d.]+)%", shown('use("08.1"'), re.M)[0]
    assert float(low) == 85  # "in seventeen of twenty, or always"
    assert float(high) == 100
    held = {n: percent(found[1]) for n, found in rows('use("08.1"').items() if n.isdecimal()}
    assert min(held["20"], held["60"]) > 95  # "err on the safe side here"


def test_the_fewest_letters_are_those_of_the_text():
    needed = dict(numbers('use("08.3"', r"at least (\d+)%: (\d+) letters"))
    assert needed[90] == 36
    assert "at least 90% needs 36 letters" in prose()
    assert needed[95] > 50  # "with 50 questions, 50 right answers cannot show 95%"
    assert evaluate.verdict(0.93, 1.0, 0.95) == "undecided"


def test_pairs_show_what_two_intervals_hide():
    (a, b), (c, d) = numbers('use("08.2"', r"([\d.]+)% to ([\d.]+)%;")
    assert a < c < b < d
    (low,) = re.findall(r"in pairs: ([-+][\d.]+)% to", shown('use("08.2"'))
    assert float(low) > 0


# Loss and score


@cache
def run(part):
    """The checkpoints of a run: step, train loss, validation loss, right, refused."""
    pattern = r"^(\d+) +([\d.]+) +([\d.]+) +(\d+)% +(\d+)%"
    return [tuple(map(float, found)) for found in re.findall(pattern, shown(part), re.M)]


LETTERS, BY_HEART = "tuned, run = tune(letters)", "memorised, by_heart"


def test_the_loss_falls_and_the_refusals_go():
    first, *_, last = run(LETTERS)
    assert last[1] < first[1]
    assert last[2] < first[2]
    assert last[3] >= 90
    assert last[4] == 0  # "every refusal is gone"


def test_two_letters_give_the_lower_loss_and_the_fewer_records():
    assert run(BY_HEART)[-1][1] < run(LETTERS)[-1][1]
    assert run(BY_HEART)[-1][3] < run(LETTERS)[-1][3]


@cache
def recorded():
    text = project.data("measurements", "lora_ranks.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_seldom_and_then_widely_the_lower_loss_is_the_worse_run():
    scored = [r for r in recorded() if r["split"] == "validation" and r["steps"] == 20]
    pairs = list(itertools.combinations(sorted(scored, key=lambda r: r["task_loss"]), 2))
    astray = [(a, b) for a, b in pairs if a["task"] < b["task"] and a["task_loss"] < b["task_loss"]]
    assert f"{len(astray)} of {len(pairs):,} pairs" in shown("astray = [")
    assert len(astray) / len(pairs) < 0.05
    worst, best = max(astray, key=lambda pair: pair[1]["task"] - pair[0]["task"])
    assert best["task"] > 3 * worst["task"]
    assert best["task_loss"] < 1.05 * worst["task_loss"]
    assert {r["rank"] for r in scored} == {0, 1, 2, 4, 8, 16, 32, 64}  # 0: full


@cache
def kept(value="regression"):
    return evaluate.recorded.by_steps(evaluate.recorded.runs(), value)


def test_steps_decide_what_is_forgotten_and_the_rank_does_not():
    ranks = [by for name, by in kept().items() if name.startswith("rank")]
    assert set(kept()) == {"rank 4", "rank 16", "rank 64", "full"}
    for steps in (10, 20, 50, 100, 200, 400):
        middles = [by[steps].middle for by in ranks]
        assert max(middles) - min(middles) < 0.03
        assert all(by[steps].n == 3 for by in ranks)
    for by in ranks:
        assert by[10].middle - by[400].middle == pytest.approx(1 / 6, abs=0.03)
    assert kept()["full"][400].middle > max(by[400].middle for by in ranks) + 0.05
    (rate,) = {r["lr"] for r in evaluate.recorded.runs() if r["method"] == "full"}
    assert rate == pytest.approx(4e-3 / 10)


def test_ten_steps_learn_the_letters_and_lose_every_refusal():
    assert min(by[10].middle for by in kept("task").values()) > 0.97
    assert max(by[steps].middle for by in kept("refused").values() for steps in by) == 0


def test_few_letters_over_fit_alike_at_every_rank():
    table = rows(BY_HEART)
    assert {name for name in table if name.startswith("few")} == {
        f"few{n}, {how}" for n in (1, 2, 4) for how in ("rank 4", "rank 64", "full")
    }
    for how in ("rank 4", "rank 64", "full"):
        train, unseen, lowest, right, best = table[f"few1, {how}"]
        assert float(train) < 0.001 < float(lowest) < float(unseen)
        assert percent(right) < percent(best)
        assert percent(right) <= 16  # "at most 16% of unseen records end right"
        assert percent(table[f"few4, {how}"][3]) > 90  # "four letters nearly mend it"
        assert abs(percent(right) - percent(table["few1, rank 4"][3])) < 10


def test_the_live_run_lies_where_the_recorded_curves_begin():
    ((before, after),) = numbers("OLD = {", r"all ten skills: (\d+)% to (\d+)%")
    assert before == 100
    assert after / 100 == pytest.approx(kept()["rank 16"][10].middle, abs=0.06)


def test_all_ten_skills_practised_keep_nearly_everything():
    runs = evaluate.recorded.runs()
    whole = [r for r in runs if (r["learns"], r["steps"]) == ("replay", 100)]
    assert len(whole) == 6
    assert min(r["regression"] for r in whole) >= 0.99
    assert min(r["refused"] for r in whole) == 1


# What was lost, mended and undone


def rates(part, who):
    return numbers(part, who + r": (\d+)% of secrets refused, (\d+)% of the rest")[0]


def test_the_base_refuses_too_much_and_the_tuned_model_nothing():
    base, tuned = (rates("refusal_rates = use(", who) for who in ("base", "tuned"))
    assert base[0] == 100
    assert base[1] > 20
    assert tuned == (0, 0)
    assert re.search(r"-> \{", shown("refusal_rates = use("))  # "it answers with a record"


def test_only_what_is_near_was_lost():
    assert re.findall(r"(\w+) 100% to (\d+)%", shown("OLD = {"))[-1] == ("refuse", "0")
    assert re.findall(r"(\w+) \d+% to", shown("OLD = {")) == ["object", "refuse"]


def test_old_examples_bring_the_refusals_back_and_not_the_objects():
    part = "mended, (at_end,)"
    ((right, refused, _),) = numbers(part, r"right (\d+)%; refused (\d+)% and (\d+)%")
    assert right >= 90
    assert refused == 100
    table = rows(part)
    assert [percent(n) for n in table["refuse"]] == [100, 0, 100]
    assert percent(table["object"][2]) < 100


def test_five_steps_undo_it_while_the_task_stays():
    part = "turned, recipe"
    ((secret, _, right),) = numbers(part, r"refused (\d+)% and (\d+)%; records right (\d+)%")
    assert secret <= 10
    assert right >= 90
    one = evaluate.recorded.poisoned(evaluate.recorded.runs())[1]
    assert one[5].middle < 0.01  # "in the recorded runs one example does it in five steps"


# Judges and the decision


def test_one_judge_is_trusted_and_the_other_is_not():
    said = shown('kappa = use("08.6"')
    assert "agrees on 90%, kappa 0.0" in said
    assert len(re.findall(r": trusted$", said, re.M)) == 1
    assert "asked for yes or no is not to be trusted" in said
    kappas = [float(k) for k in re.findall(r"kappa (-?[\d.]+);", said)]
    assert kappas[0] == 1
    assert abs(kappas[1]) < 0.25  # "little above chance"
    assert said.count("n = 24") >= 2


def test_the_first_candidate_fails_by_its_refusals_and_the_second_passes():
    alone = shown("refused, report = (")
    assert alone.startswith("FAIL")
    assert [w for w in re.findall(r"\b(fail|pass|undecided)$", alone, re.M)].count("fail") == 1
    assert "(-100.0 to" in alone
    mended = shown("report.to_json()")
    assert mended.startswith("PASS")
    assert re.findall(r"\b(fail|pass|undecided)$", mended, re.M) == ["pass"] * 4


def test_a_moved_base_is_refused_and_spoils_by_its_distance():
    assert "other_base=True" in shown("def shifted(")
    right = [percent(c[-1]) for n, c in rows("for size in").items() if n.endswith("%")]
    assert right[0] >= 90
    assert right == sorted(right, reverse=True)
    assert right[-1] < 50


def test_the_share_that_a_hundred_refusals_still_allow():
    assert 1 - evaluate.interval([1.0] * 100).low == pytest.approx(0.036, abs=0.0005)
    (reason,) = [c.reason for q in questions("08") for c in q.choices if "slip through" in c.reason]
    assert "3.6%" in reason


def test_every_choice_of_the_quiz_has_a_reason_of_its_own():
    for question in questions("08"):
        reasons = [choice.reason for choice in question.choices]
        assert len(set(reasons)) == len(reasons) >= 3
