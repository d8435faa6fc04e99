"""What is read from recorded adapters: sums, medians, cuts, overlaps, and the rows themselves."""

import statistics

import pytest

from labkit import readings
from labkit.readings import FIELDS, MAPS, PROJECTIONS


def row(rank=16, seed=0, **more):
    usual = {"split": "test", "method": "lora", "learns": "task", "steps": 100, "task": 0.9}
    scores = {"task_loss": 0.1, "regression": 0.8, "regression_loss": 0.3}
    numbers = {name: [float(i + seed) for i in range(len(MAPS))] for name in FIELDS}
    return usual | scores | numbers | {"rank": rank, "seed": seed} | more


def test_a_run_is_the_median_over_its_maps_a_count_the_sum_and_a_score_itself():
    assert readings.whole(row(), "effective") == 20.5
    assert readings.whole(row(), "noise") == sum(range(42))
    assert readings.whole(row(), "task") == 0.9
    found = readings.mean([row(), row(seed=2), row(rank=4)], "effective", rank=16)
    assert (found.middle, found.n) == (21.5, 2)


def test_a_grid_has_each_projection_in_every_layer():
    found = readings.grid([row(), row(seed=2)], "effective", rank=16)
    assert list(found) == list(PROJECTIONS)
    assert found["k_proj"] == [2.0, 9.0, 16.0, 23.0, 30.0, 37.0]  # at 1, 8, 15, ... plus 1


def test_the_values_of_a_map_come_from_the_run_that_kept_them():
    rows = [row(), row(seed=1, values={"0.q_proj": [3.0, 1.0]})]
    assert readings.values(rows, "0.q_proj", rank=16) == [3.0, 1.0]
    with pytest.raises(ValueError, match="is none of the maps of tiny"):
        readings.values(rows, "q_proj", rank=16)
    with pytest.raises(ValueError, match="kept its singular values"):
        readings.values(rows[:1], "0.q_proj", rank=16)


def test_labels_name_the_rank_and_the_rate():
    kinds = [row(), row(rank=0, method="full"), row(method="lora-hot")]
    assert list(map(readings.label, kinds)) == ["rank 16", "full", "rank 16, hot"]


def test_a_table_by_rank_ends_with_full():
    rows = [
        row(rank, seed, method="lora" if rank else "full") for rank in (0, 4) for seed in (0, 1)
    ]
    table = readings.by_rank(rows, "task", 100)
    assert [line[0] for line in table.rows] == ["rank 4", "full"]
    assert table.rows[0][:3] == ("rank 4", "2", "90.0% ± 0.0%")


def test_cuts_end_with_the_whole_adapter():
    rows = [
        row(seed=seed, task=0.9 + seed / 10, cut={"4": [0.5 + seed / 10, 0.3, 0.7, 0.1, 2.0]})
        for seed in (0, 1)
    ]
    small, whole = readings.cuts(rows, rank=16)
    assert (small.rank, small.task, small.naive_loss) == (4, pytest.approx(0.55), 2.0)
    assert (whole.rank, whole.task, whole.naive_task) == (16, 0.95, 0.95)
    with pytest.raises(ValueError, match="one rank above 4 at a time"):
        readings.cuts([*rows, row(rank=64, cut={})])
    with pytest.raises(ValueError, match="one rank above 4 at a time"):
        readings.cuts([row(rank=4)])


def test_the_rank_correlation_shares_the_ranks_of_equal_values():
    assert readings.rank_correlation([1, 2, 30], [10, 20, 21]) == pytest.approx(1)
    assert readings.rank_correlation([1, 2, 3], [5, 4, -9]) == pytest.approx(-1)
    # ranks 0.5 0.5 2 3 against 0 1 2 3, by hand
    want = statistics.correlation([0.5, 0.5, 2, 3], [0, 1, 2, 3])
    assert readings.rank_correlation([7, 7, 8, 9], [1, 2, 3, 4]) == pytest.approx(want)


def pair(seed, phi, **more):
    return {"pair": "seeds", "side": "left", "phi": {"0.q_proj": phi, "0.v_proj": [0, 0]}} | more


def test_shared_directions_are_means_over_maps_and_pairs_beside_chance():
    rows = [pair(0, [0.8, 0.6], n={"0.q_proj": 256, "0.v_proj": 128}), pair(1, [0.4, 0.2])]
    one, two = readings.shared(rows, "seeds", "left")
    assert (one.k, two.k) == (1, 2)
    assert (one.overlap.middle, two.overlap.middle) == (pytest.approx(0.3), pytest.approx(0.2))
    assert one.chance == pytest.approx((1 / 256 + 1 / 128) / 2)
    with pytest.raises(ValueError, match="no pair 'seeds' on the right side"):
        readings.shared(rows, "seeds", "right")


def test_a_whole_map_is_found_or_named():
    rows = [pair(0, [0, 0]), pair(1, [0, 0], whole={"2.v_proj": [[1.0]]})]
    assert readings.overlap_of(rows, "seeds", "left", "2.v_proj") == [[1.0]]
    with pytest.raises(ValueError, match=r"no whole map of 'seeds', left, 0.q_proj"):
        readings.overlap_of(rows, "seeds", "left", "0.q_proj")
