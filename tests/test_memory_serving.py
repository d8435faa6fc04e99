"""Cards, serving and cost: against published numbers, and what they refuse."""

import json
from dataclasses import replace

import pytest

from labkit import project
from labkit.memory import (
    ModelShape,
    SetupError,
    TrainingSetup,
    cache_per_token,
    cost,
    fits,
    gpu,
    gpus,
    roofline,
    serving,
)
from labkit.memory.gpus import RESERVED, TIGHT
from labkit.memory.pricing import work

ONE, EIGHT = ModelShape.preset("llama-3.2-1b"), ModelShape.preset("llama-3-8b")
MIB = 2**20

# --- cards ------------------------------------------------------------------------------------


def test_the_catalogue_is_sorted_and_every_price_has_a_date_and_a_source():
    assert [card.bytes for card in gpus()] == sorted(card.bytes for card in gpus())
    assert len({card.name for card in gpus()}) == len(gpus()) >= 10
    for card in gpus():
        assert (card.dollars is None) == (card.priced == ""), card.name
        assert card.dollars is None or card.priced.startswith("2026-")
        assert "https://" in card.priced or card.dollars is None
        assert 1e11 < card.bandwidth < 1e13 and 1e13 < card.flops < 1e16
    assert not gpu("t4").bf16 and gpu("L4").bf16


def test_a_card_fits_what_it_has_beside_its_drivers_own_share():
    card = gpu("T4")
    assert card.usable == 15360 * MIB - RESERVED
    assert card.usable < 14930 * MIB, "what PyTorch sees of a T4"
    by = {fit.gpu.name: fit for fit in fits(card.usable)}
    assert by["T4"].fits and by["T4"].free == 0 and by["T4"].verdict == "tight"
    assert by["L4"].verdict == "fits"
    assert [f.verdict for f in fits(card.usable + 1) if f.gpu.name == "T4"] == ["does not fit"]
    roomy = int(card.usable * (1 - TIGHT)) - 1
    assert [f.verdict for f in fits(roomy) if f.gpu.name == "T4"] == ["fits"]
    with pytest.raises(SetupError, match="need=-1: a number of bytes, at least 0"):
        fits(-1)


def test_an_unknown_card_is_refused_with_those_that_are_known():
    with pytest.raises(SetupError, match=r"gpu='T5': one of T4, A10, "):
        gpu("T5")


# --- serving ----------------------------------------------------------------------------------


def test_one_slot_is_as_large_as_vllm_allocates_it():
    slot = serving(ONE, 1, 16).kinds["adapter slots"]
    assert slot == 2 * 11_272_192  # 21.5 MiB
    assert serving(ONE, 1, 16, max_rank=64).kinds["adapter slots"] == 4 * slot
    assert serving(ONE, 50, 16, slots=3).kinds["adapter slots"] == 3 * slot


def test_the_cache_holds_a_key_and_a_value_a_layer():
    assert cache_per_token(ONE) == 32_768
    made = serving(ONE, requests=3, tokens=100, cache_dtype="float32")
    assert made.kinds["keys and values"] == 3 * 100 * 65_536


def test_merging_costs_a_base_for_each_adapter():
    made = serving(EIGHT, 50, 16)
    assert made.merged == 50 * 2 * EIGHT.parameters == 50 * made.kinds["base"]
    assert made.stored == 50 * 2 * 41_943_040
    assert made.total == sum(made.kinds.values()) < made.merged / 20
    assert serving(EIGHT, 50, 16, base="nf4").kinds["base"] == pytest.approx(5.7e9, rel=0.01)


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("adapters", 0, "adapters=0: a whole number, at least 1"),
        ("rank", -1, "rank=-1: a whole number, at least 1"),
        ("rank", True, "rank=True: a whole number"),
        ("slots", -1, "slots=-1: a whole number, at least 0"),
        ("max_rank", 8, "max_rank=8: a whole number, at least 16"),
        ("tokens", 10**6, "tokens=1000000: 1 to 131072 for llama-3.2-1b"),
        ("base", "int3", "base='int3': one of bfloat16, "),
        ("cache_dtype", "fp8", "cache_dtype='fp8': one of float32, "),
    ],
)
def test_what_cannot_be_served_is_refused(field, value, told):
    with pytest.raises(SetupError, match=told):
        serving(ONE, **{field: value})


@pytest.mark.parametrize("field", ["adapters", "rank", "requests", "tokens", "max_rank", "slots"])
def test_more_never_takes_less(field):
    start = {"adapters": 5, "rank": 8, "requests": 2, "tokens": 64, "max_rank": 64, "slots": 2}
    totals = [serving(ONE, **start | {field: start[field] * k}).total for k in (1, 2, 4)]
    assert totals == sorted(totals)


# --- cost -------------------------------------------------------------------------------------


def test_hours_and_money_by_hand():
    found = cost(7_200_000, 2000.0, 1.5)
    assert (found.hours, found.dollars) == (1.0, 1.5)


def test_the_work_of_a_step_counts_its_passes():
    setup = TrainingSetup(method="lora", checkpointing=False, seq_len=2)
    maps = ONE.linear + 128256 * 2048
    assert work(ONE, setup) == pytest.approx(4 * maps, rel=1e-3)
    assert work(ONE, replace(setup, checkpointing=True)) == 1.5 * work(ONE, setup)
    assert work(ONE, replace(setup, method="full")) == 1.5 * work(ONE, setup)
    longer = work(ONE, replace(setup, seq_len=4096)) - work(ONE, setup)
    assert longer == 2 * 2 * (4096 - 2) * 2048 * 16  # two passes over half of each square


def test_no_measured_run_beats_the_bound_of_its_card():
    rows = project.data("measurements", "qlora_1b.jsonl").read_text().splitlines()
    for row in map(json.loads, rows):
        setup = TrainingSetup(stack="labkit", checkpointing=row["setting"]["checkpointing"])
        bound = roofline(ONE, setup, gpu("H200"))
        assert 0.03 < row["tokens_per_second"] / bound < 0.5, row["name"]


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ((0, 1.0, 1.0), "tokens=0: a whole number, at least 1"),
        ((1, 0.0, 1.0), "tokens_per_second=0.0: a number above 0"),
        ((1, float("nan"), 1.0), "tokens_per_second=nan"),
        ((1, 1.0, -1.0), "dollars_per_hour=-1.0: a number, at least 0"),
    ],
)
def test_what_has_no_cost_is_refused(values, told):
    with pytest.raises(SetupError, match=told):
        cost(*values)


@pytest.mark.parametrize("share", [0, -0.1, 1.1, float("nan")])
def test_a_share_is_above_nothing_and_at_most_all(share):
    with pytest.raises(SetupError, match="share="):
        roofline(ONE, TrainingSetup(), gpu("H200"), share)
