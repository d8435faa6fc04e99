"""The pictures and explorers of notebook 06: titles that follow from the numbers."""

import pytest
import torch
from matplotlib.figure import Figure

from labkit import browse, spectra
from labkit.figures import spectra as draw
from labkit.intervals import Mean
from labkit.readings import Cut, Shared
from labkit.updates import Adapter, Update


def axes():
    return Figure().add_subplot()


def mean(value):
    return Mean(value, value - 0.1, value + 0.1, 3)


def test_values_are_told_by_how_far_the_fourth_has_fallen_and_drawn_as_shares():
    by = {"one": [4.0, 4, 4, 4, 1], "two": [8.0, 4, 3, 2]}
    ax = draw.values(axes(), by, log=False)
    assert ax.get_title() == "Value 4 is 0.25 of the first (two)\nto 1.00 (one)"
    assert "value 4 over the first: one 1.00, two 0.25" in draw.values_picture(by, True, "q").alt
    ax = draw.values(axes(), {"one": [4.0, 2.0]}, log=False)
    assert ax.get_title() == "Value 2 is 0.50 of the first (one)"
    ax = draw.values(axes(), {"one": [4.0, 4.0]}, log=False)
    assert list(ax.lines[0].get_ydata()) == [1, 1]
    assert ax.get_yscale() == "linear"
    assert draw.values(axes(), {"one": [4.0, 2.0]}).get_yscale() == "log"


def test_a_grid_names_its_smallest_and_largest_place():
    ax = draw.grid(axes(), {"q_proj": [1.0, 5.0], "v_proj": [2.0, 9.5]}, "effective rank")
    assert ax.get_title() == "effective rank: 1.0 (q_proj 0) to 9.5 (v_proj 1)"
    shown = {t.get_position(): t.get_text() for t in ax.texts}
    assert shown[(1, 0)] == "2.0" and shown[(0, 1)] == "5.0"  # (projection, layer)


def test_an_overlap_map_is_told_against_chance_and_marked_on_its_diagonal():
    phi = [[1.0, 0.5, 0.3, 0.3]] * 3 + [[0.1, 0.2, 0.3, 0.75]]
    ax = draw.overlaps(axes(), phi, 50, "v_proj")
    assert ax.get_title() == "v_proj: first 4 share 0.75, by chance 0.08"
    assert [t.get_text() for t in ax.texts] == ["1.00", "0.50", "0.30", "0.75"]
    assert "two random subspaces 0.08" in draw.overlap_picture(phi, 50, "v_proj").alt


def test_shared_directions_are_told_by_the_first_one():
    by = {
        "seeds": [Shared(1, mean(0.7), 0.004), Shared(2, mean(0.5), 0.008)],
        "labels": [Shared(1, mean(0.2), 0.004)],
    }
    ax = draw.shared(axes(), by)
    assert ax.get_title() == "First direction: seeds 0.70, by chance 0.00"
    assert list(ax.lines[-1].get_ydata()) == [0.004, 0.008]


def test_intruders_are_told_beside_their_control():
    ax = draw.intruders(axes(), {"rank 4": (30, 12, 0), "full": (2, 1, 0)}, 420)
    assert ax.get_title() == "rank 4: 30 of 420 vectors, 12 at random"
    assert [p.get_height() for p in ax.patches] == [30, 2, 12, 1, 0, 0]


def test_two_numbers_of_runs_are_told_by_their_rank_correlation():
    points = {"rank 4": [(1.0, 2.0), (2.0, 3.0)], "full": [(3.0, 90.0)]}
    ax = draw.against(axes(), points, "intruders", "loss")
    assert ax.get_title() == "3 runs, rank correlation +1.00"


def test_scores_of_several_kinds_are_told_from_the_lowest_rank_to_the_highest():
    by = {"letters": {4: mean(0.9), 64: mean(1.0)}, "codes": {4: mean(0.1), 64: mean(0.6)}}
    ax = draw.scores(axes(), by, {"letters": mean(1.0), "codes": mean(0.5)})
    assert ax.get_title() == "From rank 4 to 64: letters 90% to 100%, codes 10% to 60%"


def test_a_cut_names_the_first_rank_that_keeps_the_score():
    cuts = [Cut(k, task, 0.1, 0.8, 0.0, 1.0) for k, task in ((1, 0.5), (4, 0.97), (16, 0.98))]
    assert draw.cut(axes(), cuts).get_title() == "Cut from 16 to 4: 97.0% of 98.0% stay"


def adapter(rank, seed, layers=(0, 1)):
    generator = torch.Generator().manual_seed(seed)
    updates = {}
    for name in (f"model.layers.{n}.self_attn.{p}" for n in layers for p in ("q_proj", "v_proj")):
        A, B = (torch.randn(*size, generator=generator) for size in ((rank, 20), (30, rank)))
        updates[name] = Update(name, A, B, 0.5)
    return Adapter(f"rank {rank}", updates)


def test_the_spectrum_explorer_shows_any_map_of_every_adapter():
    one, two = adapter(2, 0), adapter(6, 1)
    explorer = browse.spectrum_explorer({"small": one, "large": two})
    assert explorer.first() == {"layer": 1, "projection": "q_proj", "log": True}
    u = two.at(0, "v_proj")
    rank = spectra.effective_rank(torch.linalg.svdvals(0.5 * u.B @ u.A)[:6])
    linear = explorer.html(layer=0, projection="v_proj", log=False)
    assert f"large, effective rank {rank:.1f}" in linear
    assert f"large, effective rank {rank:.1f}" in str(explorer.show(0, "v_proj", False))
    assert explorer.html(layer=0, projection="v_proj", log=True) != linear


def test_the_overlap_explorer_takes_the_side_that_is_asked():
    one, two = adapter(2, 0), adapter(6, 1)
    explorer = browse.overlap_explorer(one, two)
    u, v = one.at(0, "v_proj"), two.at(0, "v_proj")
    for side, factor, n in (("left", lambda w: w.B, 30), ("right", lambda w: w.A.T, 20)):
        U = spectra.spectrum(u.A, u.B).left if side == "left" else spectra.spectrum(u.A, u.B).right
        assert U.shape == factor(u).shape
        alt = explorer.show(0, "v_proj", side).alt
        assert f"two random subspaces {2 / n:.2f}" in alt
    dense = [0.5 * w.B.double() @ w.A.double() for w in (u, v)]
    left = [torch.linalg.svd(D).U[:, :2] for D in dense]
    assert f"both share {spectra.overlap(*left):.2f}" in explorer.show(0, "v_proj", "left").alt


def test_adapters_that_share_no_map_are_refused():
    with pytest.raises(ValueError, match="share no layer and projection"):
        browse.overlap_explorer(adapter(2, 0, (0,)), adapter(2, 0, (1,)))
    with pytest.raises(ValueError, match="there is no adapter"):
        browse.spectrum_explorer({})
