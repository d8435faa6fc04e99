"""What measures DoRA: the benchmark's configurations, the sweep, and the reading of their rows."""

import argparse
import json
import sys
from dataclasses import asdict, replace

import pytest
import torch

from labkit import verdicts
from labkit.bench import dora as bench
from labkit.bench import processes
from labkit.dora import DoRALinear
from labkit.figures import dora as draw
from labkit.figures import picture
from labkit.lora import adapted, linear_maps
from labkit.models import load
from labkit.sweep import dora as sweep
from labkit.train import Step

# The benchmark


def test_every_dora_stands_beside_a_lora_of_the_same_owner_and_way():
    found = bench.settings()
    assert len({s.name for s in found}) == len(found)
    for setting in found:
        if setting.method == "dora":
            how = "graph" if setting.how == "fused" else setting.how
            assert replace(setting, method="lora", how=how) in found
    ways = {name.split(" ", 2)[2] for name in (s.name for s in found)}
    assert ways == set(verdicts.WAYS)


@pytest.mark.parametrize("base", ["bf16", "nf4"])
def test_ours_and_pefts_train_the_same_numbers_on_the_same_loss(base):
    rows = {}
    for whose in ("ours", "peft"):
        for method in ("lora", "dora"):
            setting = bench.Setting(whose, method, base, False, "eager", toy=True)
            rows[whose, method] = bench.row(asdict(setting))
    outputs = 2 * (64 + 32 + 32 + 64 + 128 + 128 + 64)
    for whose in ("ours", "peft"):
        plain, dora = rows[whose, "lora"], rows[whose, "dora"]
        assert dora["trainable"] - plain["trainable"] == outputs
        assert dora["losses"][0] == pytest.approx(plain["losses"][0], abs=0.02)
        assert dora["losses"][1] < dora["losses"][0]
        assert dora["versions"]["torch"]
    for method in ("lora", "dora"):
        a, b = (rows[whose, method] for whose in ("ours", "peft"))
        assert a["losses"] == pytest.approx(b["losses"], abs=0.02)
        assert a["trainable"] == b["trainable"]


def test_a_setting_is_built_as_its_name_says():
    setting = bench.Setting("ours", "dora-exact", "nf4", True, "eager", toy=True)
    model = bench.build(setting)
    layers = adapted(model).values()
    assert all(isinstance(layer, DoRALinear) and layer.exact for layer in layers)
    assert {type(layer.base).__name__ for layer in layers} == {"Linear4bit"}
    assert len(layers) == 14
    assert model.is_gradient_checkpointing
    assert type(model.lm_head).__name__ == "Linear"


def test_a_fused_setting_makes_outputs_again_only_where_they_would_be_kept():
    for checkpointing in (False, True):
        setting = bench.Setting("ours", "dora", "bf16", checkpointing, "fused", toy=True)
        layers = adapted(bench.build(setting))
        assert all(layer.compiled for layer in layers.values())
        again = {name.rpartition(".")[2] for name, layer in layers.items() if not layer.keeps}
        assert again == (set() if checkpointing else {"q_proj", "k_proj", "o_proj"})


def test_words_choose_configurations():
    setting = bench.Setting("ours", "dora", "nf4", True, "graph")
    assert setting.name == "ours dora nf4 checkpointed graph"
    assert setting.has(["peft", "nf4 checkpointed"])
    assert not setting.has(["nf4 kept"])


SUBJECT = """
import sys
def imports():
    pass
def row(setting):
    if setting["n"] == 2:
        raise ValueError("two is too many")
    return {"n": setting["n"], "square": setting["n"] ** 2}
"""


def test_each_setting_is_measured_in_a_process_of_its_own(tmp_path, monkeypatch):
    (tmp_path / "subject.py").write_text(SUBJECT)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    asked = [{"n": n} for n in (1, 2, 3)]
    one, two, three = processes.in_turns("subject", asked, seconds=60)
    assert (one, three) == ({"n": 1, "square": 1}, {"n": 3, "square": 9})
    assert two["setting"] == {"n": 2}
    assert "ValueError: two is too many" in two["error"]


def test_a_process_that_takes_too_long_is_a_row_that_says_so(tmp_path, monkeypatch):
    (tmp_path / "subject.py").write_text(
        SUBJECT.replace('"square"', "__import__('time').sleep(99)")
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    (found,) = processes.in_turns("subject", [{"n": 1}], seconds=1)
    assert "not done within" in found["error"]


# The sweep


def groups(steps=None):
    return sweep.groups(argparse.Namespace(steps=steps))


def test_every_case_has_four_adapters_and_full_fine_tuning():
    found = groups()
    assert len(set(found)) == len(found)
    for case in verdicts.CASES:
        here = [s for s in found if (s.steps, s.learns) == (case.steps, case.learns)]
        for method, base in verdicts.METHODS.values():
            rank = 0 if method == "full" else case.rank
            assert [s for s in here if (s.method, s.base, s.rank) == (method, base, rank)]
    assert {s.alpha / s.rank for s in found if s.rank} == {sweep.SCALE}
    assert {s.steps for s in groups([100])} == {100}


def test_rates_are_lower_for_full_fine_tuning_and_higher_for_few_steps():
    by = {(s.method, s.steps): sweep.rates(s) for s in groups()}
    assert by["full", 100] == [pytest.approx(rate / 10) for rate in by["lora", 100]]
    assert by["lora", 8] == [2 * rate for rate in by["lora", 100]]
    assert by["lora", 8] == by["dora", 8]


def test_codes_are_many_unlike_and_always_the_same():
    found = sweep.examples("codes")
    assert len({e.prompt for e in found}) == sweep.CODES
    assert len({e.answer for e in found}) > 0.99 * sweep.CODES
    assert all(len(e.answer) == sweep.DIGITS and e.answer.isdecimal() for e in found)
    assert sweep.examples.__wrapped__("codes") == found
    with pytest.raises(ValueError, match="learns='poems' is no set of this sweep: codes"):
        sweep.examples("poems")


@pytest.fixture(scope="module")
def tiny():
    return load("tiny", None, torch.float32).model


@pytest.mark.parametrize("method", ["full", "lora", "dora"])
def test_an_observer_sees_how_the_rows_moved(tiny, method):
    import copy

    spec = replace(next(s for s in groups() if (s.method, s.steps) == (method, 8)), seed=0)
    model = sweep.adapt(copy.deepcopy(tiny), spec)
    watched = sweep.observer(model, spec)
    generator = torch.Generator().manual_seed(0)
    for number in range(1, 9):
        with torch.no_grad():
            for p in model.parameters():
                if p.requires_grad:
                    p += 0.01 * torch.randn(p.shape, generator=generator)
        watched(Step(number, 8, 1.0, 1e-3, 10, 0.1))
    row = watched.result()
    assert set(row["movement"]) == {name.rpartition(".")[2] for name in linear_maps(tiny)}
    assert [p[0] for p in row["points"]["q_proj"]] == [n for n in (2, 4, 6, 8) for _ in range(6)]
    assert all(m > 0 and d > 0 for _, m, d in row["points"]["q_proj"])
    assert row["movement"]["q_proj"] == pytest.approx(
        draw.correlation(row["points"]["q_proj"]), abs=0.01
    )
    assert sweep.observer(model, replace(spec, split="validation")) is None
    assert "points" not in sweep.Observer(model, replace(spec, seed=1)).result()


# What the rows say


def rows_of(**values):
    """Rows of every method in one case: `values` by method name, one number a seed."""
    case = verdicts.CASES[0]
    found = []
    for name, numbers in values.items():
        method, base = verdicts.METHODS[name]
        for seed, value in enumerate(numbers):
            found.append(
                {
                    "method": method, "base": base, "rank": 0 if method == "full" else case.rank,
                    "steps": case.steps, "learns": case.learns, "split": "test", "seed": seed,
                    "lr": 1e-3, "trainable": 10, "task": value, "task_loss": value,
                    "regression": value,
                }
            )  # fmt: skip
    return found


def test_a_difference_is_taken_seed_by_seed():
    rows = rows_of(LoRA=[0.1, 0.5, 0.9], DoRA=[0.2, 0.6, 1.0])
    gap = verdicts.difference(rows[::-1], "DoRA", "LoRA", verdicts.CASES[0], "task")
    assert (gap.middle, gap.low, gap.high) == pytest.approx((0.1, 0.1, 0.1))
    assert verdicts.said(gap, "DoRA", "LoRA") == "DoRA larger"
    back = verdicts.difference(rows, "LoRA", "DoRA", verdicts.CASES[0], "task")
    assert verdicts.said(back, "LoRA", "DoRA") == "DoRA larger"


def test_an_interval_that_holds_zero_shows_nothing():
    rows = rows_of(LoRA=[0.1, 0.5, 0.9], DoRA=[0.2, 0.4, 0.9])
    gap = verdicts.difference(rows, "DoRA", "LoRA", verdicts.CASES[0], "task")
    assert verdicts.said(gap, "DoRA", "LoRA") == "no difference shown"


def test_a_table_names_every_method_with_its_rate():
    rows = rows_of(**{name: [0.5, 0.7] for name in verdicts.METHODS})
    text = str(verdicts.scores(rows, verdicts.CASES[0]))
    assert all(name in text for name in verdicts.METHODS)
    assert "60.0% ±" in text
    assert "letters, rank 16, 8 steps" in text


def cost_rows(**seconds):
    way, place = verdicts.WAYS[0], {"gpu": "a GPU", "date": "2026", "commit": "a"}
    return {
        f"ours {method} {way}": place
        | {"seconds": s, "peak_allocated_bytes": int(s * 2**30), "peak_reserved_bytes": 7}
        for method, s in seconds.items()
    }


def test_a_cost_is_dora_over_lora():
    found = verdicts.cost(cost_rows(lora=2.0, dora=3.0), "ours", verdicts.WAYS[0])
    assert (found.time, found.memory) == (1.5, 1.5)
    assert verdicts.cost(cost_rows(lora=2.0), "ours", verdicts.WAYS[0]) is None
    assert "1.50" in str(verdicts.cost_table(cost_rows(lora=2.0, dora=3.0)))


def test_the_memory_of_a_graph_is_what_it_reserves_and_fused_stands_beside_it():
    way = next(way for way in verdicts.WAYS if way.endswith("graph"))
    fused = way.replace("graph", "fused")
    rows = cost_rows(lora=2.0, dora=3.0)
    rows = {name.replace(verdicts.WAYS[0], way): row for name, row in rows.items()}
    assert verdicts.cost(rows, "ours", way).peak == (7, 7)
    assert verdicts.cost(rows, "ours", fused) is None
    rows[f"ours dora {fused}"] = rows[f"ours dora {way}"] | {"seconds": 2.5}
    found = verdicts.cost(rows, "ours", fused)
    assert (found.time, found.peak) == (1.25, (7, 7))


def test_the_rows_that_tuned_a_rate_are_read_by_rate():
    rows = rows_of(LoRA=[0.1, 0.3, 0.9])
    for row, lr in zip(rows, (1e-2, 1e-2, 1e-3), strict=True):
        row |= {"split": "validation", "lr": lr}
    found = verdicts.tuning(rows, "LoRA", verdicts.CASES[0])
    assert list(found) == [1e-3, 1e-2]
    assert found[1e-2] == pytest.approx((0.2, 0.2))


# The pictures


def test_the_title_of_the_moves_is_their_correlation():
    points = {"LoRA": [(1, 0.1, 0.2), (2, 0.2, 0.4)], "full": [(1, 0.1, 0.4), (2, 0.2, 0.2)]}
    made = draw.moves_picture(points)
    assert "LoRA +1.00, full -1.00" in made.alt
    assert "LoRA: r = +1.00" in made.svg


def test_the_bars_of_a_cost_say_the_largest():
    way = verdicts.WAYS[0]
    costs = [
        verdicts.Cost("ours", way, (1.0, 1.2), (100, 105)),
        verdicts.Cost("peft", way, (1.0, 2.2), (100, 170)),
    ]
    made = picture("a", lambda ax: draw.cost_bars(ax, costs, "time"))
    assert "time: ours up to 1.20, PEFT" in made.svg
    assert ">2.20<" in made.svg


def test_the_title_of_the_scores_names_those_that_cannot_be_told_apart():
    means = {
        "full": verdicts.Mean(0.5, 0.4, 0.6, 8),
        "LoRA": verdicts.Mean(0.2, 0.1, 0.3, 8),
        "DoRA": verdicts.Mean(0.1, 0.05, 0.15, 8),
    }
    made = picture("a", lambda ax: draw.quality(ax, means, "letters", "loss"))
    assert "letters:" in made.svg
    assert "lowest DoRA, not apart from it LoRA<" in made.svg


def test_the_modules_of_the_rows_need_no_torch():
    import subprocess

    code = "import sys, labkit.verdicts; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.strip().lower()) is False
