"""The benchmark of NF4 at toy size: its rows say what they should, and bits are compared first."""

import argparse
import json

import pytest
import torch

from labkit import data, project
from labkit.bench import nf4 as bench


@pytest.fixture(autouse=True)
def eager():
    with torch.compiler.set_stance("force_eager"):
        yield


def options(*words):
    parser = argparse.ArgumentParser()
    bench.arguments(parser)
    return parser.parse_args(words)


def test_every_task_is_timed_beside_bitsandbytes_on_equal_bits():
    found = list(bench.rows(options("--size", "256", "--rounds", "6")))
    assert [row["name"] for row in found] == [
        "quantise", "dequantise", "quantise, double", "dequantise, double", "forward and backward",
    ]  # fmt: skip
    for row in found:
        assert set(row["equal"].values()) == {1.0}
        assert {len(times) for times in row["seconds"].values()} == {6}
        assert row["ratio"]["low"] <= row["ratio"]["median"] <= row["ratio"]["high"]
        assert row["versions"]["bitsandbytes"]
        json.dumps(row)


def test_the_least_bytes_are_the_weight_and_what_is_stored():
    tasks = {task.name: task for task in bench.tasks(torch.randn(64, 128))}
    n = 64 * 128
    assert tasks["quantise"].least_bytes == 4 * n + n // 2 + 4 * n // 64
    assert tasks["dequantise, double"].least_bytes == 4 * n + n // 2 + n // 64 + 4 + 4


def test_both_layers_give_the_same_gradient():
    task = bench.products(torch.randn(96, 64) * 0.1)
    torch.testing.assert_close(task.ours(), task.theirs())
    assert task.ours().shape == (bench.TOKENS, 64)


def test_unequal_bits_are_seen(monkeypatch):
    right = bench.nf4.quantize

    def flipped(*args, **more):
        q = right(*args, **more)
        q.packed[0] ^= 1
        return q

    monkeypatch.setattr(bench.nf4, "quantize", flipped)
    assert bench.shares_equal(torch.randn(64, 64))["packed"] == 1 - 1 / 2048


def test_the_model_is_scored_plain_and_in_each_code(monkeypatch):
    monkeypatch.setattr(bench, "CASES", [("fp4", bench.WHOLE)])
    found = list(bench.rows(options("--what", "model", "--steps", "1", "--limit", "2")))
    assert [(row["name"], row["block"]) for row in found] == [("float32", None), ("fp4", "matrix")]
    assert found[0]["perplexity"] != found[1]["perplexity"]
    assert found[0]["task"]["n"] == 2


# --- what is recorded -------------------------------------------------------------------------


def recorded(name):
    return data.read_jsonl(project.data("measurements", name), fields=("name", "date"))


def test_the_recorded_speed_meets_the_bars_on_a_cpu():
    cpu = {row["name"]: row for row in recorded("nf4_speed.jsonl") if row["gpu"] is None}
    for plus in ("", ", double"):
        assert cpu[f"quantise{plus}"]["ratio"]["high"] <= 1
        assert cpu[f"dequantise{plus}"]["ratio"]["high"] <= 3
    for row in cpu.values():
        assert (row["size"], set(row["equal"].values())) == (4096, {1.0})


def test_on_a_gpu_all_but_a_few_in_a_million_constants_are_the_same_bits():
    rows = [row for row in recorded("nf4_speed.jsonl") if row["gpu"]]
    assert {(row["size"], row["dtype"]) for row in rows} == {
        (size, dtype) for size in (4096, 16384) for dtype in ("float32", "bfloat16")
    }
    for row in rows:
        assert min(row["equal"].values()) > 1 - 5e-6
        assert 0 < row["of_bandwidth"]["ours"] < row["of_bandwidth"]["bitsandbytes"] < 1
        assert row["driver"]


def test_the_recorded_model_holds_every_case_once():
    rows = recorded("nf4_model.jsonl")
    cases = [(name, "matrix" if block == bench.WHOLE else block) for name, block in bench.CASES]
    assert [(row["name"], row["block"]) for row in rows] == [("float32", None), *cases]


def test_one_absmax_a_matrix_costs_the_task_in_fp4_and_int4_and_not_in_nf4():
    score = {(row["name"], row["block"]): row for row in recorded("nf4_model.jsonl")}
    exact = {case: row["task"]["exact_match"] for case, row in score.items()}
    assert all(exact[name, 64] == 1 for name in ("nf4", "fp4", "int4"))
    assert exact["nf4", "matrix"] == 1
    assert exact["fp4", "matrix"] < exact["int4", "matrix"] < 1
    plain = score["float32", None]["perplexity"]
    small = [row["perplexity"] / plain - 1 for (_, block), row in score.items() if block == 64]
    assert max(map(abs, small)) < 0.002
    assert min(small) < 0 < max(small)
    perplexity = {name: score[name, "matrix"]["perplexity"] for name in ("nf4", "int4", "fp4")}
    assert sorted(perplexity, key=perplexity.get) == ["nf4", "int4", "fp4"]
