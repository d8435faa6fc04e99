"""What notebook 09 says in prose, held against the record and the solved notebook; its library."""

import copy
import dataclasses
import math
import re
from pathlib import Path

import nbformat
import pytest
import torch

from labkit import adapters, data, models, train
from labkit.adapters import training_bytes
from labkit.memory import ModelShape
from labkit.memory.parts import adapter_parameters
from labkit.serve import merging, recorded, tenants, walk
from labkit.serve.bank import read
from labkit.serve.economics import tenancy, tenant_gib

SOLVED = Path(__file__).parents[1] / "notebooks" / "solutions" / "09_serve.ipynb"


def outputs():
    cells = nbformat.read(SOLVED, as_version=4).cells
    for cell in (c for c in cells if c.cell_type == "code"):
        for output in cell.outputs:
            yield output.get("text") or output.get("data", {}).get("text/plain", "")


def table(heading):
    """The rows of a table in the solved notebook, by their first cell."""
    texts = [text for text in outputs() if heading in text]
    assert len(texts) == 1, heading
    rows = [re.split(r" {2,}", line.strip()) for line in texts[0].splitlines()]
    return {name: cells for name, *cells in rows[1:]}


# What the prose says


def test_the_right_merge_keeps_the_loss_and_a_second_quantisation_keeps_no_answer():
    rows = table("loss, nats")
    loss = {way: float(cells[0]) for way, cells in rows.items() if len(cells) == 2}
    share = {way: int(cells[1].rstrip("%")) for way, cells in rows.items() if len(cells) == 2}
    assert loss[merging.RIGHT] == loss[merging.AS_TRAINED]
    assert share[merging.AGAIN] == 0
    assert 0 < loss[merging.WRONG] - loss[merging.AS_TRAINED] < 0.1  # higher by a little
    assert share[merging.AS_TRAINED] - share[merging.WRONG] <= 17  # a letter or two of twelve
    assert abs(loss[merging.HALF] - loss[merging.AS_TRAINED]) < 1e-3  # looks well


def test_the_four_bit_error_is_as_large_as_the_update_or_several_times_larger():
    rows = [[float(x) for x in cells[:2]] for cells in table("kept if quantised again").values()]
    assert len(rows) == 7
    assert min(mismatch for _, mismatch in rows) > 0.8
    assert max(mismatch for _, mismatch in rows) > 2
    kept = [int(cells[2].rstrip("%")) for cells in table("kept if quantised again").values()]
    assert sum(share < 50 for share in kept) >= 5  # "most steps are too small"


def test_what_bfloat16_loses_is_what_the_verdict_says():
    lost = {k: float(v[0].rstrip("%")) for k, v in table("bfloat16  float16").items()}
    assert lost["0.1"] < 3
    assert lost["0.01"] == pytest.approx(100 / 6, abs=1.5)  # a sixth
    assert lost["0.0001"] > 95


def test_a_swap_takes_milliseconds_and_a_choice_does_not():
    ms = {way: float(cells[0]) for way, cells in table("hotswap_adapter").items()}
    assert ms["set_adapter"] > 1
    assert max(ms, key=ms.get) == "load_adapter"
    assert (
        min(ms["load_adapter"], ms["hotswap_adapter"], ms["put, from the disk"]) > ms["set_adapter"]
    )
    assert ms["chosen"] < 1
    large = recorded.changes(recorded.rows("llama-3.2-1b"))
    assert min(large, key=large.get) == "chosen"
    assert 1e-3 < large["set_adapter"] < min(s for w, s in large.items() if "disk" in w)
    assert {row["gpu"] for row in recorded.rows("llama-3.2-1b")} == {"NVIDIA H100 80GB HBM3"}


def test_the_loop_grows_with_the_adapters_and_the_gather_does_not():
    rows = {int(n): [float(x) for x in cells] for n, cells in table("adapters in 8 rows").items()}
    assert list(rows) == [1, 2, 8]
    assert rows[8][1] > 3 * rows[1][1]
    assert rows[8][0] < 2 * rows[1][0]


@pytest.mark.parametrize(("model", "ahead"), [("tiny", 8), ("llama-3.2-1b", 4)])
def test_the_prose_on_the_record_reads_it_rightly(model, ahead):
    by = recorded.beside_base(recorded.rows(model))
    rivals = [by[way] for way in ("merged", "swap", "peft")]
    assert all(0.25 < share < 0.4 for share in by["gather"].values())  # about a third
    assert by["merged"][1] > 2 * by["gather"][1]
    for n in (2, 4, 8, 16):
        best = max(rival[n] for rival in rivals)
        assert (by["gather"][n] > best) == (n >= ahead), n


def test_a_replayed_gather_beats_the_plain_base():
    rows = recorded.rows("llama-3.2-1b")
    assert {row["gpu"] for row in rows} == {"NVIDIA H100 80GB HBM3"}
    assert {row["gpu"] for row in recorded.rows("tiny")} == {None}
    by = recorded.beside_base(rows)
    assert min(by["gather-graph"].values()) > 1
    for n, share in by["gather-graph"].items():
        assert 2.2 < by["base-graph"][n] / share < 2.5, n


def test_nothing_is_lost_under_load():
    rows = table("requests, at once")
    assert rows["lost"] == ["0"]
    assert rows["answers"] == ["24 times 200"]


def test_the_sizes_of_adapters_are_those_of_the_verdict():
    sizes = {}
    for name in ("llama-3.2-1b", "llama-2-7b"):
        shape = ModelShape.from_config(name)
        sizes[name] = shape, adapter_parameters(shape, 16, "all-linear")
    one, seven = sizes["llama-3.2-1b"][1], sizes["llama-2-7b"][1]
    assert training_bytes(one)[0] / 1e6 == pytest.approx(45, abs=0.5)
    assert 2 * sizes["llama-2-7b"][0].parameters / 1e9 == pytest.approx(14, abs=0.6)
    assert (2 * seven / 1e6, 4 * seven / 1e6) == pytest.approx((80, 160), abs=0.5)


def test_a_tenant_among_a_thousand_costs_what_is_carried_away():
    shape = ModelShape.from_config("llama-3-8b")
    numbers = adapter_parameters(shape, 16, "all-linear")
    bill = tenancy("llama-3-8b", 1000)
    assert tenant_gib(2 * shape.parameters, numbers, 1000) == pytest.approx(0.09, abs=0.005)
    assert bill.merged.tenant / 2**30 == pytest.approx(15, abs=0.1)
    assert bill.merged.cards == 250
    assert bill.shared.tenant / 2**30 > tenant_gib(2 * shape.parameters, numbers, 1000)


def test_the_walk_in_the_notebook_fails_at_one_line_and_refutes_five():
    rows = table("old skills kept")
    assert [line for line, cells in rows.items() if cells[0] == "no"] == ["95% of old skills kept"]
    assert [cells[0] for cells in table("another base is refused").values()] == 3 * ["yes"] + 5 * [
        "no"
    ]


# The library behind it


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of one step: enough to walk with, and too short to be good."""
    top = tmp_path_factory.mktemp("serve")
    letters, unseen = data.examples("train")[:4], data.examples("test")[:2]
    settings = train.Settings(steps=2, batch=2, lr=1e-3)
    acme = tenants.trained(top / "acme", letters, unseen, settings)
    tenants.trained(top / "bolt", letters, unseen, settings)
    base = models.load("tiny", dtype=torch.float32)
    adapted = adapters.load(acme.folder, models.load("tiny", dtype=torch.float32))
    merged = top / "merged"
    merged.mkdir()
    (merged / "tokenizer.json").write_bytes((base.folder / "tokenizer.json").read_bytes())
    merges = merging.Merges({merging.AS_TRAINED: 1.0, merging.RIGHT: 1.0}, {})
    skills = data.examples("regression")[:4]
    return walk.Run(base, adapted, acme, merged, merges, letters, unseen, skills)


@pytest.fixture(scope="module")
def done(run):
    return walk.checklist(run), walk.failures(run)


def test_bolt_wants_one_line_and_acme_the_record():
    letter = data.examples("train")[0]
    assert tenants.wants("acme", [letter]) == [letter]
    assert tenants.wants("bolt", [letter])[0].answer == "Konkwalm Bralmwulm: 8289"
    with pytest.raises(ValueError, match=r"'nobody' is none of acme, bolt"):
        tenants.wants("nobody", [letter])


def test_an_adapter_lies_on_the_shelf_with_its_card(run):
    assert run.card.base_sha256 == run.base.weights_sha256
    assert run.card.data_sha256 == adapters.data_sha256(run.letters)
    assert run.card.scores == {"exact_match": run.trained.score.exact_match}
    assert "acme: loss" in str(run.trained)


def test_a_crowd_fills_the_slots_and_both_ways_compute_the_same(run):
    bank = tenants.crowd(run.base, run.trained.folder.parent, slots=4)
    assert sorted(bank.held) == ["acme-0", "acme-1", "bolt-0", "bolt-1"]
    assert len(read(run.trained.folder).maps) == len(bank.maps)
    ways = tenants.ways(bank, 4, rows=8)
    together, parts = ways["gather"](), ways["loop"]()
    assert together.shape[0] == 8
    assert [len(part) for part in parts] == [2, 2, 2, 2]
    for number, part in enumerate(parts):
        torch.testing.assert_close(together[number::4], part, rtol=1e-4, atol=1e-4)
    assert not torch.equal(parts[0], parts[2])  # acme and bolt differ
    for wrong in (3, 8):
        with pytest.raises(ValueError, match=rf"adapters={wrong}: a divisor of 8, at most 4"):
            tenants.ways(bank, wrong)


def test_the_walk_finds_what_a_run_of_two_steps_lacks(done):
    listed, warned = done
    assert listed["a test set apart"].holds
    assert not listed["some answers read"].holds
    assert not listed["better than the base"].holds
    assert listed["the merged model scored"].holds
    assert listed["95% of old skills kept"].found.startswith("100% to ")
    assert [line.holds for line in warned.lines] == [True] * 3 + [False] * 5
    assert "holds" in str(listed)
    assert "<table" in listed._repr_html_()


def test_every_line_of_the_checklist_can_fail(run, monkeypatch):
    monkeypatch.setattr(walk.evaluate, "answers", lambda *_: ["{}"] * 2)
    losses = {merging.AS_TRAINED: 1.0, merging.RIGHT: 1.1}
    history = dataclasses.replace(run.trained.history, steps=run.trained.history.steps[:1])
    bad = dataclasses.replace(
        run,
        unseen=[*run.unseen, run.letters[0]],
        merges=merging.Merges(losses, {}),
        trained=dataclasses.replace(run.trained, history=history),
    )
    found = walk.checklist(bad)
    for text in ("a test set apart", "the loss falls", "the merged model scored"):
        assert not found[text].holds, text
    assert found["some answers read"].holds
    monkeypatch.setattr(walk, "KEPT", 2.0)
    assert not walk.checklist(run)["200% of old skills kept"].holds


def test_every_line_of_the_failures_can_turn(run, monkeypatch):
    monkeypatch.setattr(walk.adapters, "check_base", lambda *_: None)
    monkeypatch.setattr(walk.metadata, "version", lambda _: "0.0")
    (run.merged / "tokenizer.json").write_bytes(b"{}")
    tokenizer = copy.deepcopy(run.base.tokenizer)
    tokenizer.pad_token = tokenizer.eos_token
    steps = [dataclasses.replace(s, loss=math.nan) for s in run.trained.history.steps]
    history = dataclasses.replace(run.trained.history, steps=steps)
    bad = dataclasses.replace(
        run,
        base=dataclasses.replace(run.base, tokenizer=tokenizer),
        trained=dataclasses.replace(run.trained, history=history),
    )
    monkeypatch.setattr(walk, "_moved_by_padding", lambda _: 1.0)
    bad.adapted.train()
    layer = bad.adapted.get_base_model().model.layers[0]
    layer.gradient_checkpointing = True
    try:
        assert [line.holds for line in walk.failures(bad).lines] == [False] * 3 + [True] * 5
    finally:
        bad.adapted.eval()
        layer.gradient_checkpointing = False
