"""The pictures of the recorded adapters: their words are the numbers of the rows."""

import re
import statistics

import pytest

from labkit import readings
from labkit.figures import readings as show

RUNS, PAIRS = readings.runs(), readings.pairs()
LETTERS = [row for row in RUNS if row["learns"] != "codes"]
SIZES = {name: (100 + place, 50 + place) for place, name in enumerate(readings.PROJECTIONS)}


def as_codes(row):
    """A row on the letters as one on the codes."""
    return row | {"learns": "codes", "steps": 200}


USUAL = [
    row for row in LETTERS
    if (row["learns"], row["steps"]) == ("task", 100) and "hot" not in row["method"]
]  # fmt: skip
BOTH = [*LETTERS, *map(as_codes, USUAL)]


def test_the_map_of_layers_names_every_map_of_the_model():
    alt = show.by_layer(RUNS).alt
    assert all(name in alt for name in readings.PROJECTIONS)
    assert len(re.findall(r"\d+\.\d", alt)) == len(readings.MAPS)
    rank16 = [r for r in USUAL if r["rank"] == 16]
    last = statistics.mean(r["effective"][-1] for r in rank16)  # down_proj of the last layer
    assert alt.endswith(f", {last:.1f}")


def test_directions_are_means_over_the_layers_beside_the_most_there_can_be():
    table = show.directions(RUNS, SIZES)
    assert [row[:2] for row in table.rows] == [(n, str(i)) for n, (_, i) in SIZES.items()]
    seeds = [r["energy90"] for r in USUAL if r["method"] == "full"]
    keys = [values[1 :: len(SIZES)] for values in seeds]  # k_proj of every layer
    want = statistics.mean(v for layers in keys for v in layers)
    assert table.rows[1][2] == f"{want:.0f}"
    assert {row[-1] for row in table.rows} == {"3"}  # of rank 4


def test_values_tell_of_full_and_of_every_rank():
    alt = show.values(RUNS, "2.v_proj").alt
    assert all(name in alt for name in ("full", "rank 4", "rank 16", "rank 64"))
    with pytest.raises(ValueError, match="none of the maps"):
        show.values(RUNS, "9.v_proj")


def test_a_case_that_was_not_recorded_is_left_out():
    assert list(show.cases(LETTERS)) == ["letters"]
    assert list(show.cases(BOTH)) == ["letters", "codes"]
    assert [len(show.tables(rows)) for rows in (LETTERS, BOTH)] == [1, 2]
    assert "codes" not in show.ranks(LETTERS).alt
    assert "codes" not in show.cuts(LETTERS).alt


def test_scores_and_cuts_tell_of_both_cases():
    right = statistics.mean(r["task"] for r in USUAL if r["rank"] == 4)
    alt = show.ranks(BOTH).alt
    assert alt.count(f"rank 4 {right:.1%}") == 2
    one = statistics.mean(r["cut"]["1"][0] for r in USUAL if r["rank"] == 64)
    assert show.cuts(BOTH).alt.count(f"rank 1 {one:.1%}") == 2
    assert "codes: rank kept" in show.cuts(BOTH).svg


def test_pairs_are_told_with_chance_and_shown_on_both_sides():
    table = show.pair_table(PAIRS)
    phi = [
        statistics.mean(line[2] for line in row["phi"].values())  # of the first 4
        for row in PAIRS
        if (row["pair"], row["side"]) == ("full", "right")
    ]
    cells = {name: cells for name, *cells in table.rows}
    assert list(table.head) == ["", "written", "read"]  # left, right
    assert cells["full"][1].startswith(f"{statistics.mean(phi):.2f} (chance 0.0")
    picture = show.pairs(PAIRS)
    assert all(f"{side}: overlap" in picture.svg for side in ("written", "read"))
    assert cells["labels"][0] in picture.alt


def test_intruders_stand_beside_both_controls():
    alt = show.counted(RUNS).alt
    hot = [r for r in RUNS if r["method"] == "lora-hot" and r["rank"] == 16]
    told = (statistics.mean(sum(r[count]) for r in hot) for count in readings.COUNTS)
    assert f"rank 16, hot {', '.join(f'{n:.0f}' for n in told)}" in alt
    assert "of 420 vectors" in alt


def test_forgetting_is_told_of_the_real_and_of_the_scrambled_updates():
    links = show.links(RUNS)
    learnt = [r for r in RUNS if r["learns"] == "task"]
    want = readings.rank_correlation(
        [sum(r["scrambled"]) for r in learnt], [r["regression_loss"] for r in learnt]
    )
    assert links.rows[1][1] == f"{want:+.2f}"
    assert links.caption == f"{len(learnt)} runs"
    alt = show.forgetting(RUNS).alt
    assert all(row[1] in alt for row in links.rows[:2])
