"""The frame of the benchmarks: turns, ratios with intervals, one command; and LoRA's subject."""

import json
import math
import subprocess
import sys

import pytest
import torch
from torch import nn

from labkit.bench import __main__ as command
from labkit.bench import lora as subject
from labkit.bench import timing
from labkit.lora import LoRALinear
from labkit.machine import machine


def test_every_round_begins_with_another_step_and_warm_steps_are_not_kept():
    order = []
    steps = {name: (lambda name=name: order.append(name)) for name in "abc"}
    found = timing.alternating(steps, rounds=6, warm=1)
    assert {name: len(times) for name, times in found.items()} == {"a": 6, "b": 6, "c": 6}
    assert "".join(order) == "abc" + "abcbcacab" * 2
    with pytest.raises(ValueError, match="rounds=5 give no interval of 95%: at least 6"):
        timing.alternating(steps, rounds=5)


def test_a_ratio_is_taken_round_by_round():
    slow = [10.0, 1.0, 2.0, 3.0, 4.0, 5.0, 100.0]
    found = timing.ratio([2 * t for t in slow], slow)
    assert (found.median, found.low, found.high) == (2, 2, 2)
    assert str(found) == "2.000 (2.000 to 2.000)"


@pytest.mark.parametrize("n", [6, 7, 15, 30, 100])
def test_the_interval_leaves_out_as_many_as_a_coin_allows_and_no_more(n):
    def fewer(k):
        return sum(math.comb(n, i) for i in range(k)) / 2**n

    outside = timing._outside(n)
    assert fewer(outside + 1) <= 0.025 < fewer(outside + 2)
    ratio = timing.ratio(list(range(1, n + 1)), [1] * n)
    assert (ratio.low, ratio.high) == (outside + 1, n - outside)


def test_without_a_gpu_there_is_no_peak_and_a_step_is_still_timed():
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert timing.peak_bytes(lambda: None) is None
    assert timing.seconds(lambda: None) > 0


def test_a_row_says_where_it_was_measured_with_or_without_a_gpu():
    said = machine()
    assert (said["gpu"] is None) == (said["driver"] is None) == (not torch.cuda.is_available())
    assert said["threads"] == torch.get_num_threads()
    assert {"torch", "peft"} <= set(said["versions"])


def test_each_subject_names_its_arguments_and_rows():
    assert "lora" in command.subjects()
    assert not {"timing", "__main__"} & set(command.subjects())


def test_loralibs_formula_is_our_layers():
    torch.manual_seed(0)
    ours = LoRALinear(nn.Linear(24, 18), 3, 7.0)
    theirs = subject.Loralib(ours.base, 3, 7.0, 0.0)
    with torch.no_grad():
        ours.B.normal_()
        theirs.lora_A.copy_(ours.A)
        theirs.lora_B.copy_(ours.B)
    x = torch.randn(2, 5, 24)
    torch.testing.assert_close(theirs(x), ours(x))


def test_every_method_trains_what_it_should_and_steps():
    setting = subject.Setting("tiny", "float32", 2, 8, 0.0, False)
    base = subject.base_of(setting, torch.device("cpu"))
    adapters = {
        n: subject.Subject(n, subject.copy.deepcopy(base), setting) for n in subject.METHODS
    }
    trained = {n: sum(p.numel() for p in s.trained) for n, s in adapters.items()}
    assert len({trained[n] for n in trained if n != "full"}) == 1
    maps = subject.lora.linear_maps(base).values()
    assert trained["full"] == sum(m.weight.numel() for m in maps)
    for each in adapters.values():
        before = [p.detach().clone() for p in each.trained]
        each.step()
        moved = [not torch.equal(p, was) for p, was in zip(each.trained, before, strict=True)]
        assert any(moved)


@pytest.mark.slow
def test_the_command_appends_a_row_for_each_method_and_setting(tmp_path):
    out = tmp_path / "rows.jsonl"
    asked = ["--rounds", "6", "--batch", "1", "--length", "8", "--out", str(out)]
    subprocess.run([sys.executable, "-m", "labkit.bench", "lora", *asked], check=True)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["name"] for row in rows] == ["ours", "peft", "loralib", "full"] * 3
    for row in rows:
        assert len(row["seconds"]) == 6
        assert row["versions"]["peft"]
        assert row["setting"]["batch"] == 1
        if row["name"] == "peft":
            assert row["ratio"] == {"median": 1.0, "low": 1.0, "high": 1.0}
    ours, theirs = ([r["saved_bytes"] for r in rows if r["name"] == n] for n in ("ours", "peft"))
    assert all(a <= b for a, b in zip(ours, theirs, strict=True))
    assert ours[2] < ours[0] < ours[1]  # checkpointing keeps little, dropout keeps more
