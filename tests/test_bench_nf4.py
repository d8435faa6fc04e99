"""The benchmark of NF4 at toy size: its rows say what they should, and bits are compared first."""

import argparse
import json

import pytest
import torch

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
    assert found[0]["perplexity"] < found[1]["perplexity"]
    assert found[0]["task"]["n"] == 2
