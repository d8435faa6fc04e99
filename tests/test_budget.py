"""The calculators: what they answer at every end of every control, and that it is right."""

import inspect
import json
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from html import unescape
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from labkit import project
from labkit.budget import counting, pricing, serving, training
from labkit.budget.advice import RULES, _estimate, advice, advice_table, plan
from labkit.budget.bars import COLOURS, ROOM, bars, gib
from labkit.budget.code import as_code, run_of
from labkit.budget.groups import GROUPS, grouped, moments
from labkit.budget.speeds import PAIRS, reached, speeds
from labkit.explore import Menu
from labkit.memory import (
    KINDS,
    ModelShape,
    SetupError,
    TrainingSetup,
    estimate,
    gpu,
    records,
)

ONE = ModelShape.preset("llama-3.2-1b")
PLAIN = TrainingSetup()
CALCULATORS = {
    "training": training.explorer(),
    "serving": serving.explorer(),
    "counting": counting.explorer(),
    "pricing": pricing.explorer(),
}
SECONDS = 0.1  # in which a calculator answers


def ends(control):
    """Every value of a menu; both ends of a slider."""
    if isinstance(control, Menu):
        return [value for _, value in control.options]
    return [control.low, control.high]


CASES = [
    pytest.param(explorer, {c.name: value}, id=f"{name} {c.name}={value!r:.30}")
    for name, explorer in CALCULATORS.items()
    for c in explorer.controls
    for value in ends(c)
] + [
    pytest.param(
        explorer, {c.name: ends(c)[end] for c in explorer.controls}, id=f"{name} all {end}"
    )
    for name, explorer in CALCULATORS.items()
    for end in (0, -1)
]


# --- every control ----------------------------------------------------------------------------


@pytest.mark.parametrize(("explorer", "moved"), CASES)
def test_every_end_of_every_control_gives_an_answer_or_names_the_field(explorer, moved):
    values = explorer.first() | moved
    html = explorer.html(**values)
    page = ElementTree.fromstring(f"<div>{html}</div>")
    alert = page.find(".//p[@role='alert']")
    if alert is not None:
        named = re.match(r"(\w+)=", alert.text)
        assert named, alert.text
        assert named[1] in {*values, "tokens", "base_dtype"}, alert.text
        with pytest.raises(SetupError, match=re.escape(alert.text[:30])):
            explorer.show(**values)
        return
    assert page.find("p[@role='status']") is not None
    text = " ".join(page.itertext())
    assert not re.search(r"\bnan\b|\binf\b|None", text.partition("Copy this setup")[0])
    assert all(svg.get("aria-label") for svg in page.iter("svg"))
    assert len(str(explorer.show(**values))) > 50


@pytest.mark.parametrize(("name", "explorer"), CALCULATORS.items(), ids=CALCULATORS)
def test_it_answers_within_a_tenth_of_a_second(name, explorer):
    values = explorer.first() | (
        {"batch": 64, "model": "llama-3.1-405b"} if name == "training" else {}
    )
    times = []
    for _ in range(5):
        _estimate.cache_clear()
        begin = time.perf_counter()
        explorer.html(**values)
        times.append(time.perf_counter() - begin)
    assert min(times) < SECONDS  # the shortest: what it takes on a machine that does nothing else


@pytest.mark.parametrize("explorer", CALCULATORS.values(), ids=CALCULATORS)
def test_every_control_has_a_label_and_its_function_takes_it(explorer):
    parameters = inspect.signature(explorer.show).parameters
    for control in explorer.controls:
        assert control.label.strip()
        assert control.name in parameters or "options" in parameters or "setup" in parameters


def test_it_needs_neither_torch_nor_numpy():
    code = (
        "import sys, labkit.budget.training as t, labkit.budget.serving, labkit.budget.pricing\n"
        "import labkit.budget.counting\nt.explorer()._repr_html_()\n"
        "heavy = {'torch', 'numpy', 'matplotlib', 'transformers', 'ipywidgets'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert done.stdout.strip() == "[]"


# --- bars -------------------------------------------------------------------------------------


def test_lengths_are_shares_of_the_longest_bar_and_parts_add_up():
    made = bars({"a": {"x": 3.0, "y": 1.0}, "b": {"x": 1.0, "y": 1.0}}, "text", marked="a")
    svg = ElementTree.fromstring(made.partition("</svg>")[0] + "</svg>")
    widths = [float(rect.get("width").rstrip("%")) for rect in svg.iter("rect")]
    lefts = [float(rect.get("x").rstrip("%")) for rect in svg.iter("rect")]
    whole = 100 * ROOM
    assert widths == pytest.approx([whole * s for s in (0.75, 0.25, 0.25, 0.25)])
    assert lefts == pytest.approx([0, whole * 0.75, 0, whole * 0.25])
    assert next(t.text for t in svg.iter("text") if t.get("font-weight") == "bold") == "a"


def test_a_name_cannot_become_markup():
    made = bars({"<b>": {"<i>": 1.0}}, '"<alt>"')
    assert "<b>" not in made and "<i>" not in made
    assert 'aria-label="&quot;&lt;alt&gt;&quot;"' in made


def test_the_colours_are_those_of_the_figures():
    from labkit.figures import BLUE, GREEN, GREY, ORANGE
    from labkit.figures.memory import STACK

    assert COLOURS == STACK
    assert {BLUE, GREEN, ORANGE, GREY} < set(COLOURS)


def grey(colour):
    """Relative luminance of a colour by WCAG 2.2."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def test_neighbours_differ_on_both_grounds():
    for colour in COLOURS:
        for ground in (1.0, grey("#111111")):
            high, low = sorted((grey(colour), ground), reverse=True)
            assert (high + 0.05) / (low + 0.05) > 2, colour


def test_groups_hold_what_kinds_hold_and_every_kind_is_in_one():
    assert sorted(kind for kinds in GROUPS.values() for kind in kinds) == sorted(KINDS)
    found = estimate(ONE, PLAIN)
    for kinds in found.phases.values():
        assert sum(grouped(kinds).values()) == sum(kinds.values())


@pytest.mark.parametrize("setup", [PLAIN, TrainingSetup(stack="trl", accumulation=2)])
def test_the_moments_of_a_step_reach_its_peak_and_return_to_rest(setup):
    found = estimate(ONE, setup)
    line = moments(found.phases)
    assert [x for x, _ in line] == sorted(x for x, _ in line)
    assert max(sum(held.values()) for _, held in line) == found.peak
    first, last = line[0][1], line[-1][1]
    assert first["activations"] == 0
    assert last["activations"] == found.phases["optimizer"]["activations"]
    assert first["base"] == last["base"]


# --- training ---------------------------------------------------------------------------------


def test_the_training_calculator_says_what_the_estimate_says():
    answer = training.training(rank=64, batch=2, seq_len=512, stack="trl")
    found = estimate(ONE, TrainingSetup(rank=64, batch=2, seq_len=512, stack="trl"))
    assert answer.breakdown.peak == found.peak
    html = unescape(re.sub("<[^>]*>", "", answer._repr_html_()))
    assert answer.headline in html and gib(found.peak) in answer.headline
    assert found.phase in answer.headline


def test_a_measured_setup_stands_beside_its_estimate():
    record = next(row for row in records.rows() if row.setup == PLAIN and row.shape == ONE)
    said = training.training().measured
    assert said.startswith(f"Measured: {gib(record.peak)} allocated, {gib(record.reserved)}")
    assert f"{estimate(ONE, PLAIN).peak / record.peak - 1:+.2%}" in said
    assert "none of the measured rows" in training.training(rank=17).measured


def test_a_run_that_fits_says_so_and_one_that_does_not_says_what_to_change():
    assert training.training(card="H200").verdict.startswith("It fits H200 with ")
    answer = training.training("llama-3.1-8b", "T4", batch=2, seq_len=4096)
    assert (
        answer.verdict.startswith("It does not fit T4: ") and "What to change: " in answer.verdict
    )
    far = training.training("llama-3.1-405b", "T4")
    assert far.verdict.endswith("No change that keeps what is learnt makes it fit.")


def test_a_card_without_bfloat16_says_so():
    table = training.training().cards
    notes = {name: note for name, *_, note in table.rows}
    assert "float16" in notes["T4"] and notes["L4"] == ""
    half = training.training(base_dtype="float16", adapter_dtype="float32", autocast=False)
    assert {note for *_, note in half.cards.rows} == {""}


def test_an_unknown_model_and_an_unknown_card_are_named():
    with pytest.raises(SetupError, match="model='nothing'"):
        training.training("nothing")
    with pytest.raises(SetupError, match="gpu='T5': one of"):
        training.training(card="T5")


# --- what to change first ---------------------------------------------------------------------


SETUPS = [
    PLAIN,
    TrainingSetup(method="qdora", rank=64, batch=8, padded=True, attention="eager"),
    TrainingSetup(method="lora", checkpointing=False, batch=3),
    TrainingSetup(method="full", base_dtype="float32"),
    TrainingSetup(stack="trl"),
]


@pytest.mark.parametrize("setup", SETUPS, ids=lambda s: s.method)
def test_each_change_saves_what_it_says_and_the_order_is_kept(setup):
    changes = advice(ONE, setup)
    assert changes
    for change in changes:
        assert change.saved == estimate(ONE, setup).peak - estimate(ONE, change.setup).peak > 0
        assert change.setup.batch * change.setup.accumulation == setup.batch * setup.accumulation
    for before, after in pairwise(changes):
        assert before.order <= after.order
        if not before.rule.keeps:
            assert not after.rule.keeps, "changes of the run itself come last"
        if before.per_percent and after.per_percent and before.rule.keeps == after.rule.keeps:
            assert before.per_percent >= after.per_percent


def test_a_percent_of_speed_is_what_a_change_is_measured_by():
    change = next(c for c in advice(ONE, PLAIN) if c.rule.name == "loss")
    assert change.per_percent == change.saved / (100 * change.speed.lost)
    assert f"loses {change.speed.lost:.0%}" in str(advice_table([change]))


def test_every_rule_makes_a_change_somewhere():
    start = TrainingSetup(
        method="qdora", prepared=True, padded=True, attention="eager", loss="full_logits",
        checkpointing=False, batch=8, double_quant=False, rank=64,
    )  # fmt: skip
    tried = [start, replace(start, method="lora"), TrainingSetup(method="full")]
    applied = {rule.name for rule in RULES for setup in tried if rule.change(setup)}
    assert applied == {rule.name for rule in RULES}
    lean = TrainingSetup(
        method="qlora", rank=4, prepared=False, dropout=0.0, adapter_dtype="bfloat16", batch=1,
        seq_len=64, loss="fused", optimizer="adamw_8bit",
    )  # fmt: skip
    assert [rule.name for rule in RULES if rule.change(lean)] == []
    assert "nothing here lowers the peak" in str(advice_table(advice(ONE, lean)))


@pytest.mark.parametrize("card", ["T4", "RTX 4090", "A100 40GB"])
def test_a_plan_fits_and_needs_each_of_its_changes(card):
    shape = ModelShape.preset("llama-3.1-8b")
    setup = TrainingSetup(batch=4, seq_len=4096, checkpointing=False)
    limit = gpu(card).usable
    steps, fits = plan(shape, setup, limit)
    assert fits and steps and all(change.rule.keeps for change in steps)

    def after(changes):
        done = setup
        for change in changes:
            done = replace(done, **(change.rule.change(done) or {}))
        return estimate(shape, done).smi

    assert after(steps) <= limit < after([])
    for change in steps:
        assert after([one for one in steps if one is not change]) > limit, change.rule.words


def test_a_run_that_fits_needs_no_plan():
    assert plan(ONE, PLAIN, gpu("H200").usable) == ([], True)


def test_speeds_come_from_rows_that_were_measured():
    for change, (file, before, after) in PAIRS.items():
        lines = project.data("measurements", file).read_text(encoding="utf-8").splitlines()
        rows = {row["name"]: row for row in map(json.loads, lines)}
        assert speeds()[change].lost == pytest.approx(
            1 - rows[after]["tokens_per_second"] / rows[before]["tokens_per_second"]
        )
        assert rows[before]["gpu"] in speeds()[change].source
        moved = {k for k in rows[before]["setting"]
                 if rows[before]["setting"][k] != rows[after]["setting"][k]}  # fmt: skip
        assert len(moved) == 1, f"{before} and {after} differ in {moved}"
    assert speeds()["checkpointing"].lost > 0 > speeds()["prepared"].lost


def test_moments_in_8_bits_cost_little_and_two_ways_to_time_the_fused_loss_agree():
    lines = project.data("measurements", "speed_1b.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    first = rows[0]["setup"]
    steps = {
        (name, row["setup"][name]): sorted(row["seconds"])[len(row["seconds"]) // 2]
        for row in rows
        for name in first
        if row["setup"] == first | {name: row["setup"][name]}
    }
    eight = speeds()["adamw_8bit"]
    assert eight.lost == pytest.approx(
        1 - steps["optimizer", "adamw"] / steps["optimizer", "adamw_8bit"], abs=0.005
    )
    assert 0 < eight.lost < 0.03
    assert rows[0]["gpu"] in eight.source
    eager = 1 - steps["loss", "full_logits"] / steps["loss", "fused"]
    assert eager == pytest.approx(speeds()["loss"].lost, abs=0.01)
    assert all(len(row["seconds"]) == 24 and row["date"] for row in rows)


def test_the_share_that_was_reached_is_that_of_the_trl_row():
    assert 0.05 < reached() < 0.3


# --- code to copy -----------------------------------------------------------------------------


@pytest.mark.parametrize("setup", SETUPS, ids=lambda s: s.method)
def test_the_copied_lines_give_the_same_estimate(setup):
    code = as_code(ONE, setup).split("\n\n")[0]
    scope = {"ModelShape": ModelShape, "TrainingSetup": TrainingSetup, "estimate": estimate}
    exec(code.replace("estimate(shape, setup)  #", "found = estimate(shape, setup)  #"), scope)
    assert scope["setup"] == setup
    assert scope["found"].peak == estimate(ONE, setup).peak


@pytest.mark.parametrize(
    "setup",
    [
        TrainingSetup(rank=4, batch=2, loss="full_logits", dropout=0.1),
        TrainingSetup(method="lora", rank=4, batch=2, targets=("q_proj", "v_proj"), stack="labkit"),
    ],
    ids=["qlora", "lora"],
)
def test_the_copied_lines_run_in_notebook_04(setup, monkeypatch):
    monkeypatch.setenv("LABKIT_MODEL", "tiny")
    from labkit import data, models, prepare, train
    from labkit.train import Settings

    items = [data.encode(models.load("tiny").tokenizer, e) for e in data.examples("train")[:8]]
    scope = {"models": models, "prepare": prepare, "train": train, "items": items}
    scope["Settings"] = lambda **values: Settings(steps=1, **values)
    exec(as_code(ModelShape.preset("tiny"), setup).split("\n\n")[1], scope)
    adapters = [n for n, p in scope["model"].named_parameters() if p.requires_grad]
    assert len(adapters) == 2 * 6 * len(setup.target_names)
    assert run_of(setup)["settings"] == {"batch": 2, "accumulate": 1}


def test_methods_that_notebook_04_does_not_train_say_so():
    assert "needs another notebook" in as_code(ONE, TrainingSetup(method="full"))
    assert "needs another notebook" in as_code(ONE, TrainingSetup(method="qdora"))


# --- serving, counting, cost ------------------------------------------------------------------


def test_fifty_customers_share_one_base():
    answer = serving.many("llama-3-8b", 50, 16)
    assert answer.need.merged == 50 * answer.need.kinds["base"]
    assert 0.2 < answer.need.kinds["adapter slots"] / answer.need.kinds["base"] < 0.3
    svg = ElementTree.fromstring(answer.picture.partition("</svg>")[0] + "</svg>")
    sums = [text.text for text in svg.iter("text") if text.get("text-anchor") == "end"]
    cache = answer.need.kinds["keys and values"]
    assert sums == [gib(answer.need.total), gib(answer.need.merged + cache)]


def test_the_parts_of_a_model_add_up():
    for name in ModelShape.presets():
        answer = counting.counting(name)
        assert sum(answer.parts.values()) == answer.shape.parameters, name
    parts = counting.counting("llama-3.2-1b").parts
    assert parts["attention"] == 16 * (2 * 2048 * 2048 + 2 * 512 * 2048)
    assert parts["MLP"] == 16 * 3 * 2048 * 8192 and parts["embedding"] == 128256 * 2048


def test_the_adapters_of_the_maps_add_up():
    answer = counting.counting(rank=16, targets=("q_proj", "v_proj"), dora=True)
    each = [int(cells[-1].replace(",", "")) for cells in answer.table.rows]
    assert sum(each[:-1]) == each[-1] == answer.trained == 1_703_936 + 16 * (2048 + 512)


def test_a_price_of_ones_own_overrules_and_none_at_all_is_refused():
    mine = pricing.price(card="T4", dollars=0.5)
    assert mine.run.dollars == pytest.approx(0.5 * mine.run.hours) and mine.priced == "you"
    with pytest.raises(SetupError, match=r"dollars=0\.0: set a price"):
        pricing.price(card="T4")
    dated = pricing.price(card="H200")
    assert dated.run.dollars_per_hour == gpu("H200").dollars and "2026-" in dated.priced


def test_a_run_takes_tokens_over_speed():
    answer = pricing.price(card="H200", examples=1000, length=512, epochs=2, share=0.1, dollars=1.0)
    assert answer.run.tokens == 1_024_000
    assert answer.run.tokens_per_second == pytest.approx(0.1 * answer.bound)
    assert answer.run.hours == pytest.approx(1_024_000 / (0.1 * answer.bound) / 3600)
