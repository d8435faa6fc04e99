"""Explorers over adapters: the spectrum of any map, and the overlap of two adapters in any map.

    spectrum_explorer(adapters)      layer, projection, log or linear: every adapter's values
    overlap_explorer(one, other)     layer, projection, side: phi of the first i and j directions

The decompositions are made once for each map, when it is first looked at.
"""

import functools
from collections.abc import Mapping

from labkit import spectra
from labkit.explore import Explorer, Menu
from labkit.figures import spectra as draw
from labkit.figures.base import Picture
from labkit.updates import Adapter, Update

MOST = 32  # directions on each axis of an overlap map


def _places(adapters: Mapping[str, Adapter]) -> tuple[list[int], list[str]]:
    """Layers and projections that all of the adapters have.

    Raises:
        ValueError: if there is no adapter, or they share no layer or no projection.
    """
    if not adapters:
        raise ValueError("there is no adapter to look at")
    first, *others = adapters.values()
    layers = [n for n in first.layers if all(n in a.layers for a in others)]
    projections = [p for p in first.projections if all(p in a.projections for a in others)]
    if not layers or not projections:
        raise ValueError("these adapters share no layer and projection, so nothing can be compared")
    return layers, projections


def _menus(adapters: Mapping[str, Adapter]) -> list[Menu]:
    layers, projections = _places(adapters)
    middle = layers[len(layers) // 2]
    return [
        Menu("layer", "layer", [(str(layer), layer) for layer in layers], middle),
        Menu("projection", "projection", [(name, name) for name in projections], projections[0]),
    ]


def spectrum_explorer(adapters: Mapping[str, Adapter]) -> Explorer:
    """The singular values of one map at a time, of up to four adapters, with its effective rank.

    Raises:
        ValueError: if they share no map.
    """

    @functools.cache
    def values(layer: int, projection: str) -> dict[str, list[float]]:
        found = {}
        for name, adapter in adapters.items():
            u = adapter.at(layer, projection)
            S = spectra.singular_values(u.A, u.B, u.scale)
            found[f"{name}, effective rank {spectra.effective_rank(S):.1f}"] = S.tolist()
        return found

    @functools.cache
    def show(layer: int, projection: str, log: bool) -> Picture:
        return draw.values_picture(values(layer, projection), log, f"{projection} in layer {layer}")

    axis = Menu("log", "axis", [("logarithmic", True), ("linear", False)], True)
    return Explorer([*_menus(adapters), axis], show)


def overlap_explorer(one: Adapter, other: Adapter) -> Explorer:
    """The overlap map of two adapters, one map of the model and one side at a time.

    Raises:
        ValueError: if they share no map.
    """

    @functools.cache
    def sides(layer: int, projection: str) -> tuple[spectra.Spectrum, spectra.Spectrum]:
        pair: list[Update] = [a.at(layer, projection) for a in (one, other)]
        return pair[0].spectrum(), pair[1].spectrum()

    @functools.cache
    def show(layer: int, projection: str, side: str) -> Picture:
        U1, U2 = (getattr(s, side)[:, :MOST] for s in sides(layer, projection))
        phi = spectra.overlap_map(U1, U2).tolist()
        return draw.overlap_picture(phi, len(U1), f"{projection} in layer {layer}, {side}")

    menu = Menu("side", "side", [("left: writes", "left"), ("right: reads", "right")], "left")
    return Explorer([*_menus({"one": one, "other": other}), menu], show)
