"""What notebook 06 says in prose, held against the rows on disk and the solved notebook."""

import json
import re
import statistics
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest

from labkit import project, readings, verdicts
from labkit.figures import readings as show
from labkit.lora import projections

SOLVED = Path(__file__).parents[1] / "notebooks" / "solutions" / "06_adapter_spectra.ipynb"
RUNS, PAIRS = readings.runs(), readings.pairs()


def mean(field, rank, method="lora", **more):
    return readings.mean(RUNS, field, method=method, rank=rank, **show.LETTERS | more).middle


# What the recorded adapters say


def test_the_last_layer_uses_fewer_directions_than_the_first_in_six_of_seven_projections():
    by = readings.grid(RUNS, "effective", method="lora", rank=16, **show.LETTERS)
    assert sum(layers[-1] < layers[0] for layers in by.values()) == 6
    flat = {(name, layer): v for name, layers in by.items() for layer, v in enumerate(layers)}
    assert min(flat, key=flat.get) == ("o_proj", 5)
    assert max(flat, key=flat.get) in {("gate_proj", 0), ("up_proj", 0), ("down_proj", 0)}


@pytest.fixture(scope="module")
def directions():
    told = project.data("models", "tiny", "config.json").read_text(encoding="utf-8")
    table = show.directions(RUNS, projections(SimpleNamespace(**json.loads(told))))
    return [dict(zip(table.head[1:], map(int, row[1:]), strict=True)) for row in table.rows]


def test_full_fine_tuning_takes_many_more_directions_than_an_adapter(directions):
    full, lora = ([row[kind] for row in directions] for kind in ("full", "rank 16"))
    assert (min(full), max(full)) == (18, 52)
    assert (min(lora), max(lora)) == (4, 7)
    shares = [row["full"] / row["at most"] for row in directions]
    assert min(shares) == pytest.approx(1 / 12, abs=0.01)
    assert max(shares) == pytest.approx(1 / 5, abs=0.01)
    assert all(row["rank 64"] <= row["rank 16"] for row in directions)
    assert all(row["full, shuffled"] == pytest.approx(row["full"], rel=0.2) for row in directions)


def test_the_flat_spectrum_of_rank_4_is_enough_for_the_letters():
    assert mean("energy90", 4) == 3
    assert mean("effective", 4) > 3.5
    assert mean("task", 4) > 0.995
    assert mean("first", 16) == pytest.approx(0.87, abs=0.006)
    assert mean("first", 64) == pytest.approx(0.93, abs=0.006)


def test_the_drop_is_the_same_where_no_rank_answers_a_letter():
    for rank, first in ((16, 0.90), (64, 0.94)):
        assert mean("first", rank, learns="shuffled") == pytest.approx(first, abs=0.006)
        assert mean("task", rank, learns="shuffled") == 0


def test_on_the_codes_rank_4_answers_none_in_a_hundred_and_full_fine_tuning_half():
    found, codes = verdicts.runs(), verdicts.CASES[-1]
    assert (codes.rank, codes.learns) == (4, "codes")
    assert max(row["task"] for row in verdicts.of(found, "LoRA", codes)) < 0.01
    full = verdicts.mean(found, "full", codes, "task")
    assert full.middle == pytest.approx(0.5, abs=0.05)


def test_a_cut_to_one_direction_keeps_the_letters_and_gives_old_skills_back():
    one, *_, whole = readings.cuts(RUNS, method="lora", rank=64, **show.LETTERS)
    assert one.rank == 1
    assert one.task == pytest.approx(0.997, abs=0.0005)
    assert (one.regression, whole.regression) == (
        pytest.approx(0.84, abs=0.006), pytest.approx(0.68, abs=0.006),
    )  # fmt: skip
    assert 8 < one.loss / whole.loss < 12


def test_the_prose_on_pairs_reads_their_overlaps_rightly():
    table = show.pair_table(PAIRS)
    rows = {name: [float(cell.split()[0]) for cell in cells] for name, *cells in table.rows}
    assert min(rows["full"]) > 0.85
    assert rows["seeds"] == [pytest.approx(0.5, abs=0.03), pytest.approx(0.2, abs=0.03)]
    assert rows["labels"][0] == pytest.approx(0.25, abs=0.01)
    assert rows["labels"][0] / rows["seeds"][0] == pytest.approx(0.5, abs=0.03)
    assert rows["labels, one A"][1] == pytest.approx(0.54, abs=0.02)


def test_scrambled_updates_bring_in_as_many_intruders_as_trained_ones():
    usual = [mean(count, rank) for rank in (4, 16, 64) for count in ("intruders", "scrambled")]
    assert max(usual) < 4
    hot = {c: [mean(c, r, "lora-hot") for r in (4, 16, 64)] for c in ("intruders", "scrambled")}
    ends = [round(end) for found in hot.values() for end in (min(found), max(found))]
    assert ends == [54, 160, 52, 140]
    for method in ("full", "full-hot"):
        assert mean("intruders", 0, method) == mean("scrambled", 0, method) == 0
    assert mean("strength", 0, "full-hot") < mean("strength", 16)


def test_full_fine_tuning_forgets_a_fifth_more_without_an_intruder():
    usual, hot = mean("regression", 0, "full"), mean("regression", 0, "full-hot")
    assert 1 - hot / usual == pytest.approx(0.2, abs=0.025)


def test_the_size_goes_with_forgetting_better_than_the_count():
    found = [float(row[1]) for row in show.links(RUNS).rows]
    intruders, scrambled, strength, _ = found
    assert intruders == pytest.approx(scrambled, abs=0.05)
    assert strength > intruders + 0.1


def test_what_is_carried_away_are_the_numbers_of_the_rows():
    assert mean("effective", 0, "full") == pytest.approx(114, abs=0.6)
    assert mean("effective", 64) == pytest.approx(21, abs=0.6)
    for method, rank in (("full", 0), ("lora", 64)):
        shuffled = mean("effective", rank, method, learns="shuffled")
        assert shuffled == pytest.approx(mean("effective", rank, method), rel=0.1)
    one, *_, whole = readings.cuts(RUNS, method="lora", rank=64, **show.LETTERS)
    assert one.regression - whole.regression == pytest.approx(0.15, abs=0.005)
    hot = [mean(count, 64, "lora-hot") for count in ("scrambled", "intruders")]
    assert [round(n) for n in hot] == [140, 160]


def test_the_amplification_falls_from_above_4_to_below_1():
    four, sixteen, most = (mean("amplified_all", rank) for rank in (4, 16, 64))
    assert four > 4
    assert four > sixteen > most
    assert sixteen < 1


# What the solved notebook shows


@pytest.fixture(scope="module")
def texts():
    cells = nbformat.read(SOLVED, as_version=4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    return [o.get("text") or o.get("data", {}).get("text/plain", "") for o in outputs]


def table(texts, heading):
    """The rows under a heading in the solved notebook, by their names."""
    (text,) = [text for text in texts if heading in text]
    lines = text[text.index(heading) :].splitlines()
    rows = [re.split(r" {2,}", line) for line in lines]
    return {name: cells for name, *cells in rows if cells}


def numbers(cells):
    return [[float(n) for n in re.findall(r"\d+\.?\d*", cell)] for cell in cells]


def test_the_dense_route_takes_hundreds_of_times_as_long(texts):
    (text,) = [text for text in texts if "at 1024 x 1024" in text]
    slow, fast = map(float, re.findall(r"([\d.]+) ms", text))
    assert slow / fast > 200


def test_shuffled_answers_concentrate_as_much_as_letters(texts):
    rows = {n: numbers(c) for n, c in table(texts, "letters     shuffled").items() if "_" in n}
    assert len(rows) == 7
    for letters, shuffled, drawn in rows.values():
        assert shuffled[0] == pytest.approx(letters[0], rel=0.12)
        assert max(letters[0], shuffled[0]) < drawn[0] - 2
    ratios = [letters[0] / letters[1] for letters, *_ in rows.values()]
    assert statistics.mean(ratios) == pytest.approx(2, abs=0.3)


def test_one_direction_answers_every_letter_and_the_naive_cut_to_four_none(texts):
    rows = table(texts, "energy kept")
    assert float(rows["1"][0].rstrip("%")) < 50
    assert rows["1"][1].startswith("100%,")
    assert rows["4"][2].startswith("0%,")
    assert numbers(rows["1"])[1][1] > 3 * numbers(rows["16"])[1][1]


def test_the_two_live_runs_read_alike_because_of_their_start(texts):
    rows = [numbers(cells) for name, cells in table(texts, "read, with A").items() if "_" in name]
    written, read, begun = (statistics.mean(row[i][0] for row in rows) for i in range(3))
    assert written == pytest.approx(1 / 3, abs=0.05)
    assert read == pytest.approx(0.5, abs=0.06)
    assert begun == pytest.approx(0.75, abs=0.04)


def test_grown_updates_bring_in_about_as_many_intruders_as_scrambled_ones(texts):
    rows = {n: [int(c) for c in cells] for n, cells in table(texts, "1 times the").items()}
    assert max(rows["1 times the update"]) == 0
    for factor in (4, 16):
        trained, scrambled, noise = rows[f"{factor} times the update"]
        assert abs(trained - scrambled) <= 0.35 * trained
        assert noise < 0.7 * scrambled


def test_noise_alone_makes_intruders_of_a_random_matrix_and_some_of_others(texts):
    found = {n: int(cells[-1]) for n, cells in table(texts, "values that fall").items()}
    falls, keys, drawn = list(found.values())[:3]
    assert drawn == 10
    assert 0 < falls < 6
    assert 0 < keys < 8


def test_a_random_pair_is_amplified_more_in_every_projection(texts):
    rows = table(texts, "trained  random")
    pairs = [list(map(float, cells)) for name, cells in rows.items() if "_proj" in name]
    assert len(pairs) == 7
    assert all(trained < drawn for trained, drawn in pairs)
