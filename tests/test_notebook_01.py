"""The sentences of notebook 01, held against what its solved cells show."""

import re
from functools import cache
from pathlib import Path

import nbformat
import pytest

from labkit import data, project
from labkit.figures.lora import best_rates
from labkit.intervals import by_rank, chosen

SOLVED = Path(__file__).parents[1] / "notebooks" / "solutions" / "01_lora_from_scratch.ipynb"


@cache
def cells():
    return nbformat.read(SOLVED, as_version=4).cells


def shown(kind="text/plain"):
    """Everything that the code cells print or show, as text."""
    for cell in cells():
        for output in cell.get("outputs", []):
            yield output.get("text") or output.get("data", {}).get(kind, "")


def table(heading):
    """The rows under the line that holds `heading`, by their first cell, as lists of texts."""
    (text,) = [text for text in shown() if heading in text]
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if heading in line)
    rows = [re.split(r" {2,}", line.rstrip()) for line in lines[start + 1 :]]
    return {row[0]: row[1:] for row in rows if len(row) > 1}


def number(text):
    """What a cell says: "7.6", "39,976,960" or "60%"."""
    value = float(text.strip().rstrip("%").replace(",", ""))
    return value / 100 if text.strip().endswith("%") else value


def prose(part):
    """The Markdown cell that holds `part`, its lines joined."""
    (text,) = [c.source for c in cells() if c.cell_type == "markdown" and part in c.source]
    return " ".join(text.split())


def test_a_truncation_keeps_little_energy_and_nearly_every_letter():
    rows = table("energy kept")
    assert number(rows["8"][0]) < 0.65  # "less than two thirds"
    assert number(rows["8"][1]) > 0.95  # "nearly every letter"
    assert number(rows["32"][0]) < 0.9  # "even rank 32 leaves some of it out"
    assert number(rows["1"][1]) < 0.1
    assert f"rank 8 of it, {rows['8'][0]} of its energy" in prose("What to carry away")


def test_dimension_and_rank_are_told_apart():
    (text,) = [text for text in shown() if "numbers to choose" in text]
    found = [list(map(int, re.findall(r"(\d+) numbers to choose, rank (\d+)", line)[0]))
             for line in text.splitlines()]  # fmt: skip
    assert found[0][0] == 1 < found[0][1]  # one number, full rank
    assert found[1][1] == 1 < 100 < found[1][0]  # rank 1, hundreds of numbers


def test_only_b_is_felt_at_step_0():
    rows = table("gradient of A, norm")
    (a0, b0, *_), (a1, *_) = rows["0"], rows["1"]
    assert number(a0) == 0 < number(b0)
    assert number(a1) > 0


def test_the_counts_of_the_prose_are_those_of_the_table():
    rows = table("seven projections train")
    total, trains, share, _ = map(number, rows["llama-2-7b"])
    assert f"{trains:,.0f} numbers for Llama-2-7B" in prose("What to carry away")
    assert f"{total / trains:.0f} times fewer" in prose("What to carry away")
    assert trains / 10e6 == pytest.approx(4, rel=0.01)  # "four times that"
    shares = [number(row[2]) for row in rows.values()]
    assert shares == sorted(shares, reverse=True)  # "the share falls as models grow"
    assert share == shares[1]


def test_the_whole_shrinks_less_than_eightfold():
    rows = table("GB, activations apart")
    ratios = {}
    for name in ("llama-3.2-1b", "llama-2-7b", "llama-2-70b"):
        full, lora = (list(map(number, rows[f"{name}, {how}"])) for how in ("full", "LoRA"))
        ratios[name] = full[3] / lora[3]
        assert full[1] / lora[1] > 90  # "a hundredfold and more", of rounded numbers
        assert lora[0] / lora[3] > 0.94  # "nearly all there is"
    assert max(ratios.values()) < 8
    assert f"in {ratios['llama-2-7b']:.1f} times fewer bytes" in prose("What to carry away")
    moments = number(rows["llama-2-7b, LoRA"][2])
    assert moments / 0.080 == pytest.approx(4, rel=0.02)  # of the lessons' 80 MB


def test_each_rule_for_alpha_keeps_what_the_verdict_says():
    rows = {name: list(map(number, row)) for name, row in table("first step, against").items()}
    loss16, loss256, length16, length256 = rows["adam, alpha / rank"]
    assert 0.9 < loss16 < 1.1 and 0.9 < loss256 < 1.1  # "keeps the loss"
    assert length256 < length16 < 0.5  # "the step itself gets shorter"
    assert rows["sgd, alpha / rank"][1] == pytest.approx(1 / 256, rel=0.1)  # "falls as 1/r"
    assert 0.9 < rows["sgd, alpha / sqrt(rank)"][1] < 1.1  # "mends"
    for optimizer in ("adam", "sgd"):
        assert rows[f"{optimizer}, alpha = 2 rank"][1] == pytest.approx(256, rel=0.1)


def test_the_rate_decides_and_the_rank_hardly():
    rows = data.read_jsonl(project.data("measurements", "lora_ranks.jsonl"), ())
    best = best_rates(rows, 20)
    full, *ranks = (best[rank] for rank in sorted(best))
    assert len(set(ranks)) == 1  # "the same at every rank"
    assert ranks[0] / full == pytest.approx(10, rel=0.3)  # "about ten times"
    slow = chosen(rows, split="validation", steps=20, method="lora", lr=5e-4)
    assert {row["rank"] for row in slow} == set(best) - {0}
    assert all(row["task"] == 0 for row in slow)  # "no letter right at any rank"
    scores = by_rank(rows, "task", method="lora", steps=20)
    assert all(mean.middle > 0.97 and mean.n == 5 for mean in scores.values())  # rank 1 too
    losses = by_rank(rows, "task_loss", steps=20)  # rank 0 is full fine-tuning
    assert 2 < losses[1].middle / losses[0].middle < 6  # "a few times that of full"
    cut = table("energy kept")
    assert number(cut["1"][1]) < 0.1 < scores[1].middle  # "cut down to rank 1 failed"


def test_the_verdict_on_activations_reads_its_bars():
    (text,) = [text for text in shown() if "MiB kept for the backward pass" in text]
    kept = {name.strip(): float(value) for name, value in
            re.findall(r"(?:: |, (?=LoRA))([^:]+?) (\d+)(?=,|$)", text)}  # fmt: skip
    share = {name: value / kept["full fine-tuning"] for name, value in kept.items()}
    assert len(share) == 6
    assert share["LoRA on one map of the last layer"] < 0.1
    assert 0.5 < share["LoRA on one map of the first layer"] < 0.75  # "more than half"
    assert 0.85 < share["LoRA on all seven"] < 0.95  # "save a tenth"
    assert share["LoRA on all seven, dropout 0.05"] > 1


def test_bfloat16_takes_up_a_large_update_and_not_a_small_one():
    rows = {name: list(map(number, row)) for name, row in table("update / weight").items()}
    assert rows["0.1"][0] < 0.05  # "survives the sum"
    assert rows["0.001"][0] > 0.5  # "mostly does not"
    assert 0.5 < rows["0.1"][2] < 1  # "restores most weights and not all"


def test_merging_in_float32_changes_nothing_that_is_seen():
    rows = table("logits off by")
    assert number(rows["float32"][0]) < 1e-5
    assert number(rows["bfloat16"][0]) > 100 * number(rows["float32"][0])
    assert rows["float32"][1] == rows["bfloat16"][1]


def test_the_layers_are_pefts():
    (text,) = [text for text in shown() if "the logits differ by" in text]
    maps, off = re.findall(r"(\d+) maps; the logits differ by (\S+) at most", text)[0]
    assert int(maps) == 42
    assert float(off) < 1e-5
