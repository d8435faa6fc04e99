"""What compares the variants of LoRA: the sweep, its reading, the guide, and the pictures."""

import argparse
import itertools
import random
from dataclasses import replace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from labkit import adalora, fair, grounds, guide, intervals, lora, train
from labkit.bench import variants as bench
from labkit.data import Encoded
from labkit.figures import picture
from labkit.figures import variants as draw
from labkit.history import Settings
from labkit.memory import ModelShape
from labkit.models import load
from labkit.sweep import frame, slower
from labkit.sweep import variants as sweep

SHAPE = {
    "vocab_size": 96, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
    "tie_word_embeddings": True,
}  # fmt: skip
ADAPTERS = [name for name in sweep.METHODS if name != "full"]


def small():
    torch.manual_seed(3)
    return LlamaForCausalLM(LlamaConfig(**SHAPE))


@pytest.fixture(scope="module")
def ids():
    return torch.arange(40).reshape(4, 10)


@pytest.fixture(scope="module")
def items():
    draws = random.Random(0)
    rows = [[draws.randrange(6, 96) for _ in range(12)] for _ in range(16)]
    return [Encoded(row, row) for row in rows]


# The sweep


def test_every_case_has_every_method_and_one_rank_less_run_serves_all_ranks():
    options = argparse.Namespace(steps=None, rank=None, methods=list(sweep.METHODS))
    found = sweep.groups(options)
    assert len(found) == len(set(found)) == 3 * len(sweep.METHODS) - 2
    assert all(spec.group == spec for spec in found)
    options.rank = [2]
    assert {spec.rank for spec in sweep.groups(options)} == {2, 0, sweep.VERA_RANK}
    assert set(fair.METHODS.values()) == set(sweep.METHODS)
    assert (grounds.VERA_RANK, grounds.WIDER) == (sweep.VERA_RANK, sweep.WIDER)
    cases = [(case.rank, case.steps) for case in fair.CASES]
    assert cases == list(sweep.CASES)
    with pytest.raises(ValueError, match="method='mora' is none of lora, dora"):
        sweep.group("mora", 2, 8)


def test_six_rates_a_factor_of_two_apart_around_the_methods_own():
    for method in sweep.METHODS:
        found = sweep.rates(sweep.group(method, 16, 20))
        assert [b / a for a, b in itertools.pairwise(found)] == pytest.approx([2] * 5)
        assert sweep.rates(sweep.group(method, 16, 8)) == pytest.approx([2 * r for r in found])
    plain, rs = (sweep.rates(sweep.group(name, 16, 20)) for name in ("lora", "rslora"))
    assert rs == pytest.approx([rate / 16**0.5 for rate in plain])


@pytest.mark.parametrize("method", [m for m in ADAPTERS if m not in sweep.ON_NF4])
def test_a_method_on_the_plain_base_starts_as_the_model_does(method, ids):
    model = small()
    before = model(ids).logits
    adapted = sweep.adapt(model, sweep.group(method, 4, 8))
    torch.testing.assert_close(adapted(ids).logits, before, rtol=1e-4, atol=1e-5)


def test_the_pair_on_nf4_differs_from_the_base_by_its_rounding_and_loftq_by_less():
    spec = sweep.group("qlora", 4, 8)
    models = {name: sweep.adapt(small(), replace(spec, method=name)) for name in sweep.ON_NF4}
    far = {name: 0.0 for name in models}
    for name, base in lora.linear_maps(small()).items():
        W = base.weight.detach()
        for method, model in models.items():
            layer = model.get_submodule(name)
            far[method] += (layer.base.weight + layer.delta() - W).square().sum().item()
        exact = models["qlora"].get_submodule(name).base.weight
        torch.testing.assert_close(exact, sweep.rounded(W))
    assert 0 < far["loftq"] < 0.98 * far["qlora"]


def test_the_rounded_values_are_those_that_bitsandbytes_stores():
    from labkit.linears import dense

    packed = load("tiny", "nf4", torch.float32).model
    plain = load("tiny", None, torch.float32).model
    name = "model.layers.3.mlp.up_proj"
    W = plain.get_submodule(name).weight.detach()
    torch.testing.assert_close(sweep.rounded(W), dense(packed.get_submodule(name)))


def test_all_train_as_many_values_but_those_that_say_so():
    trained = {
        name: train.count(sweep.adapt(small(), sweep.group(name, 4, 8))).trainable
        for name in sweep.METHODS
    }
    same = {trained[n] for n in ("lora", "rslora", "lora_plus", "pissa", "olora", "qlora", "loftq")}
    assert same == {lora.parameter_count(LlamaConfig(**SHAPE), "all-linear", 4)}
    assert trained["vera"] != trained["lora"] < trained["dora"] < trained["full"]
    layers = 2 * 7
    wide = 1.5 * trained["lora"] + 6 * layers  # and e, which LoRA has not
    assert trained["adalora"] == wide


@pytest.fixture(scope="module")
def pruned(items):
    """AdaLoRA after a few steps: the model, its observer, and the run."""
    spec = replace(sweep.group("adalora", 2, 6), lr=0.05)
    model = sweep.adapt(small(), spec)
    watcher = sweep.observer(model, spec)
    history = train.fit(
        model, items, Settings(6, 4, spec.lr), on_step=watcher, **sweep.fitting(model, spec)
    )
    return model, watcher, history


def test_adalora_ends_with_the_ranks_that_the_others_have(pruned):
    model, watcher, _ = pruned
    assert sum(watcher.pruner.ranks()) == 2 * 14
    assert {layer.e.numel() for layer in adalora.triplets(model).values()} == {3}


def test_the_penalty_of_adalora_pulls_and_is_not_counted(items):
    spec = replace(sweep.group("adalora", 2, 6), lr=0.05)
    model = sweep.adapt(small(), spec)
    loss = sweep.fitting(model, spec)["loss"]
    batch = {
        "input_ids": torch.tensor([items[0].input_ids]),
        "attention_mask": torch.ones(1, 12, dtype=torch.long),
        "labels": torch.tensor([items[0].labels]),
    }
    found = loss(model, batch)
    assert found.item() == pytest.approx(sweep.causal_loss(model, batch).item())
    found.backward()
    layer = next(iter(adalora.triplets(model).values()))
    assert layer.P.grad.abs().sum() > 0  # e is zero, so the task itself moves only e


def test_lora_plus_keeps_its_ratio_over_the_whole_schedule(items, monkeypatch):
    spec = replace(sweep.group("lora_plus", 4, 4), lr=1e-3)
    model = sweep.adapt(small(), spec)
    seen = []
    real = torch.optim.AdamW.step

    def spy(self, *args, **kwargs):
        seen.append([group["lr"] for group in self.param_groups])
        return real(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    settings = Settings(4, 4, spec.lr, warmup=0.5)
    train.fit(model, items, settings, **sweep.fitting(model, spec))
    assert [b / a for a, b in seen] == pytest.approx([sweep.RATIO] * 4)
    assert [a for a, _ in seen] == pytest.approx(
        [train.learning_rate(step, settings) for step in range(4)]
    )


def test_groups_that_are_not_what_trains_are_refused(items):
    model = sweep.adapt(small(), sweep.group("lora_plus", 4, 4))
    groups = sweep.fitting(model, replace(sweep.group("lora_plus", 4, 4), lr=1e-3))["groups"]
    with pytest.raises(ValueError, match="the groups hold 14 parameters and 28 train"):
        train.fit(model, items, Settings(1, 4), groups=groups[:1])


def test_only_the_first_seed_says_where_its_update_went(monkeypatch):
    model = small()
    monkeypatch.setattr(sweep, "plain_weights", lambda: sweep.weights_of(small()))
    spec = replace(sweep.group("pissa", 4, 8), seed=0)
    adapted = sweep.adapt(model, spec)
    moved = sweep.observer(adapted, spec).result()["moved"]
    assert set(moved) == {
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    }
    assert max(max(row) for row in moved.values()) < 1e-5  # PiSSA's start is no move
    with torch.no_grad():
        adapted.get_submodule("model.layers.1.mlp.up_proj").B.mul_(2)
    moved = sweep.observer(adapted, spec).result()["moved"]
    assert moved["up_proj"][1] > 0.1 > max(moved["up_proj"][0], *moved["down_proj"])
    assert sweep.observer(adapted, replace(spec, seed=1)).result() == {}


def test_the_starts_are_timed_beside_a_step():
    options = argparse.Namespace(sizes=["64x128"], rounds=6, tokens=4)
    rows = list(bench.rows(options))
    assert [row["name"] for row in rows] == list(bench.STARTS)
    assert all(len(row["seconds"]) == 6 and row["size"] == [64, 128] for row in rows)
    assert rows[0]["ratio"]["median"] < rows[-1]["ratio"]["median"]


# What the rows say

FEW, MORE = fair.CASES[0], fair.CASES[2]


SOME = ("LoRA", "DoRA", "PiSSA", "QLoRA", "LoftQ")


def toy(methods=tuple(fair.METHODS), **shift):
    """Rows of the methods in every case; a method's losses are moved by what `shift` says."""
    found = []
    for case in fair.CASES:
        for name in methods:
            method = fair.METHODS[name]
            rank = {"VeRA": 256, "full": 0}.get(name, case.rank)
            move = shift.get(method, 0.0)
            common = {
                "method": method, "rank": rank, "steps": case.steps, "learns": "task",
                "base": "nf4 values" if method in sweep.ON_NF4 else "float32", "trainable": 100,
            }  # fmt: skip
            for i, lr in enumerate((1e-3, 2e-3, 4e-3)):
                loss = (0.3, 0.1, 0.2)[i]
                found += [
                    common
                    | {"split": "validation", "seed": s, "lr": lr, "task_loss": loss, "task": 0.5}
                    for s in (100, 101)
                ]
            for seed in range(5):
                noise = random.Random(f"{method} {seed}").uniform(-0.01, 0.01)
                found.append(
                    common
                    | {
                        "split": "test", "seed": seed, "lr": 2e-3, "task": 0.9 - move,
                        "task_loss": 0.1 + move + noise, "regression": 0.8 + noise,
                        "losses": [1.0, 0.1],
                    }
                )  # fmt: skip
    return found


def test_a_difference_is_taken_seed_by_seed_whatever_the_order_of_the_rows():
    rows = toy(pissa=-0.05)
    gap = fair.difference(rows[::-1], "PiSSA", "LoRA", FEW, "task_loss")
    values = {
        name: [r["task_loss"] for r in fair.of(rows, name, FEW)] for name in ("PiSSA", "LoRA")
    }
    by_hand = [a - b for a, b in zip(values["PiSSA"], values["LoRA"], strict=True)]
    assert gap == intervals.mean_of(by_hand)
    assert gap.high < 0


def test_what_is_ahead_is_what_the_interval_shows_and_loftq_stands_beside_qlora():
    rows = toy(pissa=-0.05, vera=0.05, loftq=-0.05, qlora=0.02)
    assert fair.ahead(rows, FEW) == ["PiSSA", "LoftQ"]
    assert fair.ahead(rows, FEW, "task") == ["PiSSA", "LoftQ"]
    assert fair.compared(rows, FEW)["LoftQ"] == "QLoRA"
    text = str(fair.gaps(rows, FEW))
    assert "LoftQ less QLoRA" in text
    assert "30 intervals of 95%; 1.5 would miss zero" in text


def test_a_best_rate_at_the_end_of_what_was_tried_is_called_so():
    rows = toy()
    assert fair.best_rate(rows, "LoRA", FEW) == 2e-3
    assert not fair.at_edge(rows, "LoRA", FEW)
    cut = [r for r in rows if not (r["split"] == "validation" and r["lr"] == 4e-3)]
    assert fair.at_edge(cut, "LoRA", FEW)
    assert "(edge)" in str(fair.table(cut, FEW))
    assert "(edge)" not in str(fair.table(rows, FEW))


def test_a_run_that_stopped_has_no_score_and_its_rate_is_not_chosen():
    rows = toy()
    for row in rows:
        if row["method"] == "lora" and row["lr"] == 2e-3 and row["seed"] in (100, 0):
            del row["task"], row["task_loss"]
    assert fair.best_rate(rows, "LoRA", FEW) == 4e-3
    assert [row["seed"] for row in fair.of(rows, "LoRA", FEW)] == [1, 2, 3, 4]


def test_a_method_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="'MoRA' is none of LoRA, DoRA"):
        fair.of(toy(), "MoRA", FEW)
    with pytest.raises(ValueError, match=r"no run of LoRA in .* says 'ranks'"):
        fair.allocation(toy(), "LoRA", FEW, "ranks")


# The guide


def test_what_a_method_trains_is_counted_on_the_model_and_from_its_shape_alike():
    shape = ModelShape.from_config(LlamaConfig(**SHAPE))
    for name, method in fair.METHODS.items():
        counted = train.count(sweep.adapt(small(), sweep.group(method, 4, 8))).trainable
        assert grounds.trained(name, shape, 4) == counted, name


def test_what_is_left_holds_what_must_be_kept_to_answer_again():
    shape = ModelShape.preset("llama-3-8b")
    plain = grounds.kept("LoRA", shape, 16)
    assert plain == 83_886_080  # 41,943,040 values of 2 bytes
    assert grounds.kept("PiSSA", shape, 16) == 2 * plain
    assert grounds.kept("rsLoRA", shape, 16) == plain
    assert grounds.kept("LoftQ", shape, 16) > 50 * plain
    assert plain < grounds.kept("AdaLoRA", shape, 16) < 1.01 * plain
    assert grounds.kept("VeRA", shape, 16) < 0.05 * plain
    assert "41,943,040" in str(grounds.costs())


def test_every_path_ends_in_advice_with_reasons_and_sources():
    found = guide.paths(toy(SOME))
    assert len(found) == len({advice.answers for advice in found}) == 3 * 2**4
    for advice in found:
        assert advice.method in fair.METHODS
        assert len(advice.reasons) >= 4
        assert all(reason.text and reason.source for reason in advice.reasons)
        assert str(advice).startswith(f"Advice: {advice.method}\n- ")
        assert f"<strong>Advice: {advice.method}</strong>" in advice._repr_html_()


def test_the_plain_method_stays_unless_the_score_is_short_and_another_is_ahead():
    ahead = toy(SOME, pissa=-0.05, dora=-0.08, loftq=-0.05)
    for advice in guide.paths(ahead):
        answers = advice.answers
        if answers.quality != "short":  # the toy's old skills do not differ
            assert advice.method == answers.plain
        elif answers.memory == "tight":
            assert advice.method == "LoftQ"
        else:  # DoRA is further ahead, and vLLM does not load it
            assert advice.method == ("PiSSA" if answers.serving == "vllm" else "DoRA")
    assert guide.advise(guide.Answers(quality="short"), toy(SOME)).method == "LoRA"


def test_a_method_that_is_ahead_in_one_of_two_cases_is_not_advised():
    rows = [r for r in toy() if r["rank"] != 16] + [r for r in toy(olora=-0.05) if r["rank"] == 16]
    short = guide.Answers(quality="short")
    assert fair.ahead(rows, fair.CASES[0]) == ["OLoRA"]
    assert guide.advise(short, rows).method == "LoRA"
    assert "(in one of them: OLoRA)" in str(guide.advise(short, rows))
    assert guide.advise(replace(short, steps="more"), rows).method == "OLoRA"


def test_old_skills_choose_no_method_and_the_advice_says_who_keeps_more_and_at_what_rate():
    rows = toy()
    for row in rows:
        if row["split"] == "test" and row["method"] in ("olora", "dora"):
            row["regression"] += 0.1
    few = guide.Answers(quality="forgets")
    assert guide.advise(few, rows).method == "LoRA"
    text = str(guide.advise(few, rows))
    assert "more old skills are kept by DoRA, OLoRA of what is left" in text
    assert "kept by OLoRA of" in str(guide.advise(replace(few, serving="vllm"), rows))
    assert "kept by none of" in str(guide.advise(few, toy()))


def test_an_answer_that_is_none_is_refused():
    with pytest.raises(ValueError, match="tenants='few' is none of one, many"):
        guide.Answers(tenants="few")


def test_the_twin_of_the_menus_has_every_path():
    rows = toy(SOME, pissa=-0.05, dora=-0.08)
    table = guide.table(rows)
    assert len(table.rows) * (len(table.head) - 1) == len(guide.paths(rows))
    by_hand = {
        "16 bits: it fits; short: the score; steps: a few": ["DoRA", "PiSSA"] * 2,
        "16 bits: it does not; short: the score; steps: a few": ["QLoRA"] * 4,
    }
    found = {line: cells for line, *cells in table.rows}
    assert by_hand.items() <= found.items()
    assert table.head[1:3] == ("one, merged into the base", "one, unmerged, by vLLM")
    menus = guide.explorer().controls
    assert [menu.name for menu in menus] == list(guide.QUESTIONS)
    for menu in menus:
        assert {value for _, value in menu.options} == set(guide.QUESTIONS[menu.name][1])


# The pictures


def test_the_title_of_the_differences_names_what_is_apart():
    rows = toy(pissa=-0.05, vera=0.05)
    made = draw.gaps_picture(rows, FEW, ["task_loss"])
    gap = fair.difference(rows, "PiSSA", "LoRA", FEW, "task_loss")
    assert "better: PiSSA; worse: VeRA" in made.svg
    assert f"PiSSA less LoRA {gap.middle:+.3g}" in made.alt


def test_rates_curves_maps_and_costs_say_their_finding():
    rows = toy()
    tried = {name: fair.tuning(rows, name, FEW) for name in ("LoRA", "VeRA")}
    assert "within a factor of 1<" in picture("a", lambda ax: draw.best_rates(ax, tried)).svg
    assert "up to 3 times" in picture("a", lambda ax: draw.tuning_curves(ax, tried, "VeRA")).svg
    losses = {"LoRA": [[1.0, 0.2], [1.0, 0.4]], "PiSSA": [[1.0, 0.1]]}
    assert (
        "LoRA 0.3, PiSSA 0.1" in picture("a", lambda ax: draw.loss_curves(ax, losses, "PiSSA")).svg
    )
    ranks = {"q_proj": [1, 2], "v_proj": [3, 2]}
    made = picture("a", lambda ax: draw.by_layer(ax, ranks, "AdaLoRA", "triplets kept"))
    assert "most in v_proj, least in q_proj" in made.svg
    costs = {"LoRA": 100.0, "VeRA": 5.0, "full": 1000.0}
    made = picture("a", lambda ax: draw.cost_bars(ax, costs, "values that train"))
    assert "at most 10 times LoRA" in made.svg


# The rows themselves

ROWS = fair.runs()


def test_every_group_was_tuned_over_its_six_rates_and_then_run_with_five_seeds():
    options = argparse.Namespace(steps=None, rank=None, methods=list(sweep.METHODS))
    groups = sweep.groups(options)
    tuned, final = {}, {}
    for row in ROWS:
        spec = frame.spec_of(row)
        where = tuned if row["split"] == "validation" else final
        where.setdefault(spec.group, []).append((spec.lr, spec.seed))
    best = frame.best_rates([row for row in ROWS if row["split"] == "validation"])
    assert set(tuned) == set(final) == set(groups)
    for group in groups:
        wanted = {(lr, seed) for lr in sweep.rates(group) for seed in frame.TUNING_SEEDS}
        assert set(tuned[group]) == wanted and len(tuned[group]) == len(wanted)
        assert sorted(final[group]) == [(best[group], seed) for seed in frame.SEEDS]
    assert {row["gpu"] for row in ROWS} == {"NVIDIA H100 80GB HBM3"}
    assert not [row for row in ROWS if "stopped" in row]


def test_every_best_rate_lies_inside_what_was_tried_and_they_span_256():
    for case in fair.CASES:
        names = fair.methods(ROWS, case)
        assert names == list(fair.METHODS)
        assert not [name for name in names if fair.at_edge(ROWS, name, case)]
    best = {name: fair.best_rate(ROWS, name, FEW) for name in fair.METHODS}
    assert best["VeRA"] / best["LoRA+"] == pytest.approx(256)
    assert best["LoRA"] / best["rsLoRA"] == pytest.approx(4)  # the ratio of their scales


def test_no_variant_is_ahead_of_lora_in_loss_but_one_in_one_case():
    found = {str(case): fair.ahead(ROWS, case) for case in fair.CASES}
    assert list(found.values()) == [[], ["OLoRA", "full"], []]
    behind = [fair.behind(ROWS, case) for case in fair.CASES]
    assert behind == [["AdaLoRA", "VeRA"], ["VeRA", "LoftQ"], ["AdaLoRA"]]


def test_at_20_steps_every_method_has_the_task():
    for name in fair.METHODS:
        assert fair.mean(ROWS, name, MORE, "task").middle > 0.98, name


def test_old_skills_differ_where_the_loss_does_not():
    found = [fair.ahead(ROWS, case, "regression") for case in fair.CASES]
    assert found[0] == ["rsLoRA", "LoRA+", "PiSSA", "OLoRA", "AdaLoRA", "VeRA", "QLoRA"]
    assert found[1] == ["AdaLoRA", "VeRA"]
    assert found[2] == ["rsLoRA", "LoRA+", "OLoRA", "AdaLoRA", "VeRA", "full"]
    assert fair.behind(ROWS, fair.CASES[1], "regression") == ["LoRA+", "PiSSA"]


def test_half_of_its_rate_lets_lora_itself_keep_more_with_no_higher_loss():
    control = fair.slower()
    groups = slower.groups(None)
    assert {frame.spec_of(row).group for row in control} == set(groups)
    for row in control:
        assert row["lr"] == slower.rates(frame.spec_of(row).group)[0]
    assert slower.rates(groups[0])[0] == 2 * slower.rates(groups[1])[0]
    assert fair.halved(control, "regression").low > 0.02
    assert fair.halved(control, "task_loss").low < 0


def test_adalora_spends_the_ranks_it_was_given():
    for case in fair.CASES:
        ranks = fair.allocation(ROWS, "AdaLoRA", case, "ranks")
        assert sum(map(sum, ranks.values())) == 42 * case.rank


def test_the_guide_on_the_rows_advises_lora_or_by_the_memory_qlora():
    found = guide.paths()
    assert all(advice.method == advice.answers.plain for advice in found)
    assert {advice.method for advice in found} == {"LoRA", "QLoRA"}


def test_a_number_in_the_advice_is_that_of_the_rows():
    text = str(guide.advise(guide.Answers(quality="forgets", steps="more", tenants="many")))
    pairs = {(r["method"], r["seed"]): r["regression"] for r in fair.slower()}
    gap = sum(pairs["half", s] - pairs["whole", s] for s in range(3)) / 3
    assert f"half of its rate changes what LoRA itself keeps by {gap:+.1%}" in text
    tried = fair.tuning(ROWS, "LoRA", MORE)
    worst = max(loss for loss, _ in tried.values()) / min(loss for loss, _ in tried.values())
    assert f"{worst:,.0f} times the loss of the best" in text
    shape = ModelShape.preset("llama-3-8b")
    assert f"{2 * lora_numbers(shape, 16) / 1e6:.1f} MB" in text
    assert f"{2 * shape.parameters / 1e9:.1f} GB" in text


def lora_numbers(shape, rank):
    """From the shapes of the maps, by hand."""
    h, i, k = shape.hidden, shape.intermediate, shape.kv_heads * shape.head_dim
    return shape.layers * rank * (2 * (h + h) + 2 * (h + k) + 3 * (h + i))


def test_an_svd_costs_more_than_a_qr_and_loftq_five_of_them():
    rows = {
        row["name"]: row["ratio"]
        for row in grounds.rows_of("variants_starts.jsonl")
        if row["size"] == [8192, 2048]
    }
    assert rows["lora"]["high"] < rows["qlora"]["low"] < rows["olora"]["low"]
    assert rows["olora"]["high"] < rows["pissa"]["low"]
    assert rows["loftq"]["median"] / rows["pissa"]["median"] == pytest.approx(5, rel=0.05)
    size, ratio = grounds.start("LoftQ")
    assert (size, ratio) == ("8192 x 2048", rows["loftq"]["median"])
