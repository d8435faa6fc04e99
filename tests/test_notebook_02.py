"""What notebook 02 says in prose, against the tables and rows that it speaks of."""

import re
from dataclasses import replace
from pathlib import Path
from statistics import median

import nbformat
import pytest

from labkit.budget.training import training
from labkit.exercises import quiz
from labkit.memory import (
    GIB,
    ModelShape,
    TrainingSetup,
    adapter_parameters,
    dequantised_bytes,
    estimate,
    logits_bytes,
    optimizer_bytes,
    records,
    saved_per_token,
    serving,
    weight_bytes,
)
from labkit.memory.rivals import RIVALS, asked, base_and_a_fifth, gpu_poor, lesson

SOLVED = Path(__file__).parents[1] / "notebooks/solutions/02_where_memory_goes.ipynb"
ONE, SEVEN, SEVENTY, EIGHT = (
    ModelShape.preset(name)
    for name in ("llama-3.2-1b", "llama-2-7b", "llama-3.1-70b", "llama-3-8b")
)
PLAIN = TrainingSetup(method="qlora", rank=16, batch=4, seq_len=1024)
LEAN = replace(PLAIN, prepared=False, adapter_dtype="bfloat16", dropout=0.0, loss="fused")
TEXT = "\n".join(
    " ".join(cell.source.split())
    for cell in nbformat.read(SOLVED, as_version=4).cells
    if cell.cell_type == "markdown"
)


def measured(setup):
    return records.find(ONE.name, setup).peak / GIB


def says(sentence):
    """The prose holds this; else the test speaks of something that is gone."""
    assert sentence in TEXT, sentence


def test_a_large_model_comes_nearer_to_the_bits_of_its_maps():
    bits = [8 * weight_bytes(s) / s.parameters for s in (ONE, SEVEN, SEVENTY)]
    says("comes to 4.13 bits a parameter")
    assert bits == sorted(bits, reverse=True) and bits[-1] > 4.127
    says("takes 6.65 bits a parameter at 1B and 4.48 at 70B")
    assert (f"{bits[0]:.2f}", f"{bits[-1]:.2f}") == ("6.65", "4.48")
    says("a fifth of it is one embedding")
    assert 0.2 < ONE.vocab * ONE.hidden / ONE.parameters < 0.22
    says("`tiny` is near in spite of its size, since its vocabulary is small")
    tiny = ModelShape.preset("tiny")
    assert tiny.parameters < ONE.parameters and 8 * weight_bytes(tiny) / tiny.parameters < bits[0]
    assert tiny.vocab * tiny.hidden / tiny.parameters < 0.1


def test_a_row_on_a_t4_may_be_as_long_as_the_prose_says():
    says("A batch of one row may have some 13,000 tokens")
    says("in a batch of four each row a quarter of that")
    says("the last eighth of it lies within the estimate's error")

    def verdict(batch, length):
        asked = {"method": "qlora", "batch": batch, "seq_len": length}
        return training("llama-3.1-8b", card="T4", stack="trl", **asked).verdict

    for batch in (1, 4):
        longest = 13_312 // batch
        assert verdict(batch, longest - 640 // batch).endswith("within the estimate's error.")
        assert verdict(batch, longest).startswith("It fits")
        assert verdict(batch, longest * 7 // 8 - 128).endswith("to spare.")
        assert verdict(batch, longest + 512 // batch).startswith("It does not fit")


def test_pages_and_8_bits_save_what_the_prose_says():
    sizes = [16 * n for shape in ONE.projections.values() for n in shape] * ONE.layers
    held = {name: round(optimizer_bytes(sizes, name, 4) / 2**20)
            for name in ("adamw", "paged_adamw_32bit", "adamw_8bit")}  # fmt: skip
    says("Pages take 48 of its 86 MiB out of the allocator, and 8 bits save 64.")
    assert held["adamw"] == 86
    assert held["adamw"] - held["paged_adamw_32bit"] == 48
    assert held["adamw"] - held["adamw_8bit"] == 64
    says("less than a tenth of a GiB at rank 16")
    assert held["adamw"] < 1024 / 10


def test_checkpointing_divides_by_nearly_ten_and_by_more_in_deeper_models():
    says("16 layers keep 100,712 bytes")
    assert saved_per_token(ONE, 16) == 100_712
    less = [
        s.layers * saved_per_token(s, 16) / (2 * s.layers * s.hidden + saved_per_token(s, 16))
        for s in (ONE, SEVEN, SEVENTY)
    ]
    says("by nearly ten at 1B and by more in deeper models")
    assert 9.5 < less[0] < 10 and less == sorted(less)


def test_the_tables_of_1b_are_those_of_70b_and_four_times_those_of_7b():
    says("1B and 70B make the same ones here, and four times those of the 7B model")
    one, seven, seventy = (logits_bytes(4096, s.vocab) for s in (ONE, SEVEN, SEVENTY))
    assert one == seventy and 3.9 < one / seven < 4.1


def test_one_unpacked_map_takes_a_few_hundred_mib_at_70b():
    says("A few hundred MiB even at 70B")
    assert 200 < dequantised_bytes(SEVENTY) / 2**20 < 500


def test_the_two_steps_differ_by_a_factor_of_more_than_four_and_peak_where_the_prose_says():
    says("One setting, two ways to run it, and a factor of more than four")
    plain, lean = estimate(ONE, PLAIN), estimate(ONE, LEAN)
    assert 4 < plain.peak / lean.peak < 5 and 4 < measured(PLAIN) / measured(LEAN) < 5
    assert plain.phase == "loss" and lean.phase.startswith("backward")
    assert plain.phases["loss"]["logits"] > plain.peak / 2
    says("three float32 tables of logits make up 5.87 of its 8.5 GiB")
    assert f"{plain.phases['loss']['logits'] / GIB:.2f}" == "5.87"
    assert f"{measured(PLAIN):.1f}" == "8.5"


def test_no_way_to_run_qlora_of_1b_takes_6_gib():
    says("anything from 2 to 19 GiB, and 6 is none of them")
    ways = [PLAIN, replace(PLAIN, checkpointing=False), replace(PLAIN, loss="fused"), LEAN]
    peaks = [measured(way) for way in ways]
    assert round(min(peaks)) == 2 and round(max(peaks)) == 19
    assert all(abs(peak - 6) > 2 for peak in peaks)


def test_qlora_gives_back_what_it_saves():
    lora = replace(PLAIN, method="lora")
    wide, four = estimate(ONE, lora).kinds, estimate(ONE, PLAIN).kinds
    packed = four["weights"] + four["constants"]
    says("Four bits save 1.3 GiB of weights")
    assert f"{(wide['weights'] - packed) / GIB:.1f}" == "1.3"
    back = sum(four[k] - wide[k] for k in ("embeddings", "dequantisation", "activations"))
    says("Prepare gives almost all of it back")
    assert 0.85 < back / (wide["weights"] - packed) < 1
    assert all(four[k] > wide[k] for k in ("embeddings", "dequantisation", "activations"))
    assert wide["logits"] == four["logits"]
    assert measured(lora) - measured(PLAIN) < 0.2
    says("With a fused loss a saving remains, and from 7B on it is large.")
    fused = [measured(replace(s, loss="fused")) for s in (lora, PLAIN)]
    assert fused[0] - fused[1] > 0.3
    seven = [estimate(SEVEN, replace(s, loss="fused")).peak / GIB for s in (lora, PLAIN)]
    assert seven[0] - seven[1] > 6


def test_fifty_adapters_add_a_quarter_and_wide_slots_outweigh_the_base():
    says("Fifty adapters at rank 16 add a quarter to Llama-3-8B in 16 bits")
    kinds = serving(EIGHT, 50, 16).kinds
    assert 0.22 < kinds["adapter slots"] / kinds["base"] < 0.28
    says("Set the slot's rank to 256 and the slots alone outweigh the base.")
    assert serving(EIGHT, 50, 16, max_rank=256).kinds["adapter slots"] > kinds["base"]
    assert "about a quarter" in quiz("02.q1").verdict("a").message


def test_the_quiz_counts_rightly():
    plain = estimate(ONE, PLAIN)
    assert "more than two thirds of all bytes" in quiz("02.q2").verdict("b").message
    assert 2 / 3 < plain.kinds["logits"] / plain.peak < 3 / 4
    assert "a few percent of this peak" in quiz("02.q2").verdict("a").message
    trained = sum(plain.kinds[kind] for kind in ("adapters", "gradients", "optimizer"))
    assert 0.01 < trained / plain.peak < 0.04
    assert plain.phase == "loss"
    twice = estimate(ONE, replace(LEAN, batch=8))
    assert twice.peak < 1.8 * estimate(ONE, LEAN).peak, "02.q5: it does not double"


def test_the_rules_of_thumb_miss_in_both_directions_and_by_factors():
    says("Rules of thumb miss by factors, in both directions")
    held_back = [row for row in records.rows() if row.reported]
    assert len(held_back) >= 50
    ratios = [
        formula(row.shape, row.setup) / row.peak
        for name, formula in RIVALS.items()
        for row in held_back
        if asked(name, row.setup)
    ]
    assert min(ratios) < 0.5 and max(ratios) > 2
    ours = [abs(estimate(row.shape, row.setup).peak / row.peak - 1) for row in held_back]
    assert median(ours) < 0.02


def test_the_rivals_give_their_own_published_numbers():
    gib = gpu_poor(ONE, TrainingSetup(batch=1, checkpointing=False)) / GIB
    assert gib == pytest.approx(8.3, rel=0.03)
    assert gpu_poor(ONE, TrainingSetup(batch=1)) / GIB == pytest.approx(2.6, rel=0.05)
    assert base_and_a_fifth(EIGHT, TrainingSetup()) / 1e9 == pytest.approx(4.8, abs=0.1)
    seven = lesson(SEVEN, TrainingSetup(seq_len=2048)) / GIB
    assert seven == pytest.approx(3.9 * SEVEN.parameters / 7e9, rel=0.03)


def test_the_counted_cells_hold_what_was_counted():
    texts = [o.get("text", "") for c in nbformat.read(SOLVED, as_version=4).cells
             for o in c.get("outputs", [])]  # fmt: skip
    pairs = re.findall(r"predicted ([\d,]+) bytes(?: a token)?, counted ([\d,]+)", "".join(texts))
    assert len(pairs) == 2 and all(predicted == counted for predicted, counted in pairs)
    assert adapter_parameters(ONE, 16) == 11_272_192
