"""What notebook 07 says in prose, held against the rows on disk and the solved notebook."""

import itertools
import json
import re
from pathlib import Path

import nbformat
import peft
import pytest
import torch
from transformers import LlamaConfig

from labkit import fair, grounds, guide, lora, measure, variants

SOLVED = Path(__file__).parents[1] / "notebooks" / "solutions" / "07_variants.ipynb"
CELLS = nbformat.read(SOLVED, as_version=4).cells
RUNS = fair.runs()
SHORT, THIN, LONG = fair.CASES
VARIANTS = ("DoRA", "rsLoRA", "LoRA+", "PiSSA", "OLoRA", "AdaLoRA", "VeRA", "LoftQ")


def texts():
    for cell in CELLS:
        for output in cell.get("outputs", []):
            yield output.get("text", "") + output.get("data", {}).get("text/plain", "")


def table(heading):
    """The rows of the one table under a heading, by their names."""
    (found,) = [text for text in texts() if heading in text]
    lines = found[found.index(heading) :].splitlines()[1:]
    rows = [re.split(r" {2,}", line) for line in lines]
    return {name: cells for name, *cells in rows}


def prose():
    return " ".join(" ".join(c.source.split()) for c in CELLS if c.cell_type == "markdown")


# Sections 1 to 4: the tables of the solved notebook


def test_tied_to_the_rank_the_scale_of_rslora_rises_eightfold():
    rows = table("scale   ")
    tied = [float(cell) for cell in rows["rsLoRA, alpha = 2 rank"]]
    assert tied[-1] / tied[0] == 8
    assert float(rows["rsLoRA, alpha 16"][2]) == 16 / 8 == 128 / 64  # LoRA at alpha 128, rank 64


def test_the_rate_of_a_leaves_the_second_loss_and_helps_less_later():
    rows = {name: [float(c) for c in cells] for name, cells in table("  loss 1  loss 2").items()}
    one, a, b = rows["one rate"], rows["A's times 16"], rows["B's times 16"]
    assert one[1] == a[1] > b[1]
    assert one[-1] > a[-1] > b[-1]


def test_losses_beside_pefts_agree_and_fall():
    for heading in (
        "losses of three steps",
        "updates apart  bases apart",
        "three steps  losses, ours",
    ):
        for cells in table(heading).values():
            runs = [c for c in cells if c.count(" ") == 2]
            mine, its = ([float(loss) for loss in run.split()] for run in runs)
            assert mine == pytest.approx(its, abs=2e-4)
            assert mine[-1] < mine[0]


def test_other_starts_fall_faster_than_lora_at_one_rate():
    plain = float(table("  loss 1  loss 2")["one rate"][2])
    for cells in table("updates apart  bases apart").values():
        (mine, _) = (c for c in cells if c.count(" ") == 2)
        assert float(mine.split()[2]) < plain


def test_two_pissa_adapters_of_one_rank_share_their_base_and_of_two_ranks_do_not():
    W = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    rests = [
        variants.principal(W, rank, scale)[2] for rank, scale in ((2, 1.0), (2, 3.0), (3, 1.0))
    ]
    torch.testing.assert_close(rests[0], rests[1])
    assert not torch.allclose(rests[0], rests[2], atol=0.1)


def test_a_pissa_update_spoils_the_loaded_model_and_fits_once_converted():
    rows = {name: float(cells[0]) for name, cells in table("  loss, nats\nthe base").items()}
    assert rows["its update on the loaded model"] > rows["the base"]
    assert rows["converted, rank doubled"] == rows["trained, on its rest"] < rows["the base"]


def test_what_nf4_loses_is_not_far_from_noise_and_a_small_rank_wins_back_little():
    rows = {
        name: [float(c.rstrip("%")) for c in cells]
        for name, cells in table("energy held by").items()
    }
    W, lost, noise = (rows[name] for name in ("W", "what NF4 loses of W", "white noise"))
    assert all(abs(b - c) < abs(a - b) for a, b, c in zip(W, lost, noise, strict=True))
    back = table("rank  won back in 1 turn")
    assert all(float(cell.rstrip("%")) < 20 for cell in back["16"])
    assert any("NF4 alone is off by 9.3% of W" in text for text in texts())  # "a tenth or so"


def test_pefts_loftq_starts_as_far_off_as_rounding_where_alpha_is_twice_the_rank():
    rows = {name: float(cells[0]) for name, cells in table("PEFT's LoftQ at rank 16").items()}
    assert rows["alpha = 2 rank"] == 1.0
    assert min(rows, key=rows.get) == "alpha = 1 rank"


def test_adalora_ends_at_half_its_triplets_and_silence_prunes_nothing():
    (found,) = [text for text in texts() if "triplets in use after each step" in text]
    stay = json.loads(re.search(r"\[[\d, ]+\]", found)[0])
    assert stay[0] == 2 * stay[-1]
    falls = [a - b for a, b in itertools.pairwise(stay)]
    assert falls == sorted(falls, reverse=True)  # fast at first
    assert any("72 of 72 triplets in use after 8 steps, 36 were planned" in t for t in texts())


def test_what_vera_trains_and_stores():
    rows = table("Llama-3.2-1B, seven projections")
    plain, vera = rows["LoRA, rsLoRA, LoRA+, LoftQ, rank 16"], rows["VeRA, rank 256"]
    trains = [int(cells[0].replace(",", "")) for cells in (plain, vera)]
    assert round(trains[0] / trains[1]) == 28
    assert trains[0] == lora.parameter_count(LlamaConfig(**measure.LLAMA_1B), "all-linear", 16)
    assert plain[1] == "86.0"
    assert float(vera[3].rstrip("%")) == pytest.approx(16 * float(plain[3].rstrip("%")), abs=0.8)
    vectors = 4 * trains[1] / 2**20
    assert vectors == pytest.approx(1.5, abs=0.05)
    assert float(vera[2]) - vectors == pytest.approx(16, abs=0.1)


def test_pissa_trains_what_lora_trains_and_saves_twice_as_much():
    rows = table("Llama-3.2-1B, seven projections")
    plain = rows["LoRA, rsLoRA, LoRA+, LoftQ, rank 16"]
    pissa = rows["PiSSA, OLoRA, rank 16, saved converted"]
    assert pissa[:2] == plain[:2]
    assert pissa[3] == plain[3]
    assert float(pissa[2]) == pytest.approx(2 * float(plain[2]), abs=0.1)


def test_peft_cuts_the_factors_of_adalora_when_it_saves():
    base = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 8))
    plan = {"init_r": 6, "target_r": 3, "total_step": 8, "tinit": 1, "tfinal": 2, "deltaT": 1}
    model = peft.get_peft_model(base, peft.AdaLoraConfig(target_modules=["0", "1"], **plan))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for step in range(1, 9):
        optimizer.zero_grad()
        model.base_model.model(torch.ones(4, 8)).square().sum().backward()
        optimizer.step()
        model.base_model.update_and_allocate(step)
    held, saved = (
        sum(v.numel() for k, v in state.items() if "lora_E" in k)
        for state in (model.state_dict(), peft.get_peft_model_state_dict(model))
    )
    assert (held, saved) == (12, 6)


def test_the_fields_of_adalora():
    own = set(peft.AdaLoraConfig.__dataclass_fields__) - set(peft.LoraConfig.__dataclass_fields__)
    assert len(own) == 9


def test_vera_counts_as_peft_counts_on_a_small_llama():
    config = LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, vocab_size=40,
    )  # fmt: skip
    with torch.device("meta"):
        from transformers import LlamaForCausalLM

        model = LlamaForCausalLM(config)
    names = list(lora.projections(config))
    vera = peft.VeraConfig(r=8, target_modules=names)
    its = peft.get_peft_model(model.to_empty(device="cpu"), vera)
    trained = sum(p.numel() for p in its.parameters() if p.requires_grad)
    assert trained == 2 * sum(8 + out for out, _ in lora.projections(config).values())


def test_what_the_starts_cost():
    rows = {(r["name"], tuple(r["size"])): r for r in grounds.rows_of("variants_starts.jsonl")}
    square = (2048, 2048)
    seconds = {n: min(rows[n, square]["seconds"]) for n in ("pissa", "olora", "loftq")}
    assert seconds["pissa"] == pytest.approx(0.22, abs=0.005)
    assert seconds["olora"] == pytest.approx(0.01, abs=0.002)
    assert seconds["loftq"] == pytest.approx(1.2, abs=0.05)
    assert min(rows["pissa", square]["step_seconds"]) == pytest.approx(0.002, abs=0.0003)
    assert "H100" in rows["pissa", square]["gpu"]


# Section 5: the rows


def ahead(value):
    return {case: set(fair.ahead(RUNS, case, value)) & set(VARIANTS) for case in fair.CASES}


def test_every_method_had_six_rates_with_the_best_inside_and_five_seeds():
    for case in fair.CASES:
        assert set(fair.methods(RUNS, case)) == set(fair.METHODS)
        for name in fair.METHODS:
            assert len(fair.of(RUNS, name, case)) == 5
            assert len(fair.tuning(RUNS, name, case)) == 6
            assert not fair.at_edge(RUNS, name, case), (name, case)


def test_the_rates_that_were_tried_lie_a_factor_of_two_apart():
    for name, case in itertools.product(fair.METHODS, fair.CASES):
        rates = list(fair.tuning(RUNS, name, case))
        assert [b / a for a, b in itertools.pairwise(rates)] == pytest.approx([2] * 5, rel=1e-5)


def test_with_a_hundred_steps_nearly_every_letter_is_right():
    rows = [r for r in grounds.rows_of("lora_ranks.jsonl") if r["steps"] == 100]
    assert min(r["task"] for r in rows if r["method"] == "lora" and r["rank"] == 16) > 0.98


def test_the_best_rates_lie_a_factor_of_256_apart():
    best = {name: fair.best_rate(RUNS, name, SHORT) for name in fair.METHODS}
    assert max(best.values()) / min(best.values()) == pytest.approx(256)
    assert best["LoRA"] == 0.008
    assert best["QLoRA"] == 0.004
    assert fair.best_rate(RUNS, "LoRA", LONG) == fair.best_rate(RUNS, "QLoRA", LONG) == 0.004


def test_at_the_rate_of_lora_three_variants_fail_that_do_well_at_their_own():
    said = {"rsLoRA": 0.60, "PiSSA": 0.06, "LoRA+": 0.0}
    for name, share in said.items():
        tried = fair.tuning(RUNS, name, SHORT)
        assert tried[0.008][1] == pytest.approx(share, abs=0.0051)
        assert tried[fair.best_rate(RUNS, name, SHORT)][1] >= 0.97
    plain = fair.tuning(RUNS, "LoRA", SHORT)
    assert plain[0.008][1] - plain[0.016][1] == pytest.approx(0.29, abs=0.005)
    assert plain[0.004][1] >= plain[0.008][1]  # "where no more letters were right"


def test_one_variant_is_ahead_in_loss_once_and_none_in_letters():
    assert ahead("task_loss") == {SHORT: set(), THIN: {"OLoRA"}, LONG: set()}
    gap = fair.difference(RUNS, "OLoRA", "LoRA", THIN, "task_loss")
    assert gap.middle == pytest.approx(-0.004, abs=0.0005)
    assert not any(ahead("task").values())
    assert round(len(VARIANTS) * len(fair.CASES) * fair.MISSES) == 1


def test_who_is_behind():
    behind = {
        one
        for one, other in fair.compared(RUNS, SHORT).items()
        if fair.difference(RUNS, one, other, SHORT, "task_loss").low > 0
    }
    assert behind == {"AdaLoRA", "VeRA"}
    letters = fair.difference(RUNS, "LoftQ", "QLoRA", SHORT, "task")
    assert letters.middle == pytest.approx(-0.004, abs=0.0005)
    assert letters.high < 0
    worse = 0
    for case in fair.CASES:
        for value in fair.VALUES:
            gap = fair.difference(RUNS, "LoftQ", "QLoRA", case, value)
            worse += gap.low > 0 if value == "task_loss" else gap.high < 0
    assert worse == 3


def test_the_old_skills_of_lora_are_behind_six_variants_and_qlora_only_at_another_rate():
    found = fair.ahead(RUNS, SHORT, "regression")
    assert set(found) == {"rsLoRA", "LoRA+", "PiSSA", "OLoRA", "AdaLoRA", "VeRA", "QLoRA"}
    gaps = [fair.difference(RUNS, n, "LoRA", SHORT, "regression").middle for n in found]
    assert 0.028 < min(gaps) < max(gaps) < 0.062
    level = fair.difference(RUNS, "QLoRA", "LoRA", LONG, "regression")
    assert level.low <= 0 <= level.high


def test_lora_at_half_its_rate_keeps_as_many_old_skills():
    rows = fair.slower()
    gained, loss = fair.halved(rows, "regression"), fair.halved(rows, "task_loss")
    assert gained.middle == pytest.approx(0.04, abs=0.005)
    assert gained.low > 0
    assert gained.n == 3
    assert loss.low <= 0 <= loss.high
    assert {row["gpu"] for row in rows} == {None}
    assert any(str(gained) in text and "at half its rate" in text for text in texts())


def test_the_table_names_who_is_ahead_as_the_rows_do():
    rows = table("shown ahead in")
    for case in fair.CASES:
        said = [set(cell.split(", ")) - {"none"} for cell in rows[str(case)]]
        assert said == [set(fair.ahead(RUNS, case, value)) for value in fair.VALUES]


def test_the_run_made_again_is_the_recorded_one():
    (found,) = [text for text in texts() if text.startswith("here and recorded:")]
    pairs = [tuple(map(float, p.split())) for p in found.split(":")[1].split(";") if p.strip()]
    told = fair.of(RUNS, "PiSSA", SHORT)[0]["losses"]
    assert [b for _, b in pairs] == pytest.approx(told, abs=6e-4)
    assert all(a == pytest.approx(b, rel=0.1) for a, b in pairs[:3])


def test_the_rows_say_where_they_were_made():
    assert {row["gpu"] for row in RUNS} == {"NVIDIA H100 80GB HBM3"}


# Section 6: the guide


def test_half_of_all_answers_end_at_lora_and_half_at_qlora_by_memory_alone():
    paths = guide.paths()
    assert {(a.answers.memory, a.method) for a in paths} == {("fits", "LoRA"), ("tight", "QLoRA")}
    (found,) = [text for text in texts() if "all sets of answers" in text]
    said = dict(re.findall(r"'(\w+)': (\d+)", found.split("all sets of answers")[1]))
    assert said == {"LoRA": str(len(paths) // 2), "QLoRA": str(len(paths) // 2)}


def test_where_old_skills_are_short_the_rate_is_named():
    for steps in guide.CASES:
        said = str(guide.advise(guide.Answers(quality="forgets", steps=steps)))
        assert "old skills" in said
        assert "rate" in said.split("old skills", 1)[1]
