"""The pictures of notebook 06: what an update holds, what it shares, and what a cut costs.

Each draws numbers on the Axes it is given. The title is the finding and is computed from the same
numbers.
"""

from collections.abc import Mapping, Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator, PercentFormatter

from labkit.figures.base import BLUE, GREEN, GREY, INK, ORANGE, Picture, picture
from labkit.intervals import Mean
from labkit.readings import Cut, Shared, rank_correlation

LINES = ((BLUE, "-"), (ORANGE, "--"), (GREEN, "-."), (GREY, ":"))
MARKS = {"full": "D", "rank 4": "o", "rank 16": "s", "rank 64": "^"}
COLOURS = {"full": GREY, "rank 4": BLUE, "rank 16": ORANGE, "rank 64": GREEN}


def values(ax: Axes, by: Mapping[str, Sequence[float]], log: bool = True) -> Axes:
    """Singular values of a few updates, largest first, each as shares of its largest.

    Args:
        by: under the name of each update, its values in any unit; the smallest may be missing.
        log: a logarithmic axis shows the tail, a linear one the drop.
    """
    for (name, found), (colour, line) in zip(by.items(), LINES, strict=False):
        shares = [value / found[0] for value in found]
        mark = "o" if len(found) < 20 else ""
        ax.plot(
            range(1, len(found) + 1), shares, color=colour, linestyle=line, marker=mark,
            markersize=3, label=name,
        )  # fmt: skip
    ax.set(
        title=_fallen(by),
        xlabel="direction, largest first",
        ylabel="singular value / largest",
    )
    if log:
        ax.set_yscale("log")
        ax.yaxis.set_minor_locator(NullLocator())
    else:
        ax.set_ylim(0, 1.05)
    # Below the axes: lines that fall from corner to corner leave no room within.
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    return ax


def _fallen(by: Mapping[str, Sequence[float]]) -> str:
    """How far the values fall until the fourth; that needs no value after it."""
    place = min(4, *map(len, by.values()))
    shares = {name: found[place - 1] / found[0] for name, found in by.items()}
    low, high = min(shares, key=shares.__getitem__), max(shares, key=shares.__getitem__)
    told = f"Value {place} is {shares[low]:.2f} of the first ({low})"
    return told if low == high else f"{told}\nto {shares[high]:.2f} ({high})"


def grid(ax: Axes, by: Mapping[str, Sequence[float]], of: str, form: str = ".1f") -> Axes:
    """A number for every projection and layer: rows are layers, columns projections."""
    table = torch.tensor(list(by.values()), dtype=torch.float64).T  # (layers, projections)
    ax.imshow(
        table.numpy(), cmap="Blues", aspect="auto", vmin=0, vmax=1.6 * max(float(table.max()), 1e-9)
    )
    for layer, line in enumerate(table.tolist()):
        for place, number in enumerate(line):
            ax.text(
                place, layer, format(number, form), ha="center", va="center", fontsize=8,
                color="#10202f",
            )  # fmt: skip
    flat = {(n, i): v for n, line in by.items() for i, v in enumerate(line)}
    low, high = min(flat, key=flat.__getitem__), max(flat, key=flat.__getitem__)
    ax.set(
        title=f"{of}: {flat[low]:{form}} ({low[0]} {low[1]}) to {flat[high]:{form}} "
        f"({high[0]} {high[1]})",
        ylabel="layer",
    )
    ax.set_xticks(range(len(by)), [name.removesuffix("_proj") for name in by])
    ax.set_yticks(range(len(table)))
    return ax


def overlaps(ax: Axes, phi: Sequence[Sequence[float]], n: int, of: str) -> Axes:
    """phi of the first i directions of one update and the first j of another.

    Args:
        phi: at place (i - 1, j - 1).
        n: dimensions of the space; two random subspaces would give max(i, j) / n.
    """
    table = torch.tensor(phi, dtype=torch.float64)
    rows, columns = table.shape
    ax.imshow(
        table.numpy(), cmap="Blues", vmin=0, vmax=1.6, origin="lower", aspect="auto",
        extent=(0.5, columns + 0.5, 0.5, rows + 0.5),
    )  # fmt: skip
    side = min(rows, columns)
    marked = [side * share // 4 for share in (1, 2, 3, 4)] if side >= 4 else range(1, side + 1)
    for place in marked:
        ax.text(
            place, place, f"{table[place - 1, place - 1]:.2f}", color="#10202f", fontsize=8,
            ha="center", va="center",
        )  # fmt: skip
    k = min(4, rows, columns)
    ax.set(
        title=f"{of}: first {k} share {table[k - 1, k - 1]:.2f}, by chance {k / n:.2f}",
        xlabel="first j directions of the other",
        xticks=_whole(columns),
        yticks=_whole(rows),
        ylabel="first i directions of one",
    )
    return ax


def shared(ax: Axes, by: Mapping[str, Sequence[Shared]]) -> Axes:
    """The overlap of the first k directions, for several kinds of pairs, beside chance."""
    for (name, found), (colour, line) in zip(by.items(), LINES, strict=False):
        ks = [s.k for s in found]
        means = [s.overlap for s in found]
        ax.fill_between(
            ks, [m.low for m in means], [m.high for m in means], color=colour, alpha=0.2,
            linewidth=0,
        )  # fmt: skip
        ax.plot(ks, [m.middle for m in means], color=colour, linestyle=line, marker="o", label=name)
    longest = max(by.values(), key=len)
    ax.plot([s.k for s in longest], [s.chance for s in longest], color=INK, lw=0.9, label="chance")
    first = {name: found[0].overlap.middle for name, found in by.items()}
    best = max(first, key=first.__getitem__)
    ax.set(
        title=f"First direction: {best} {first[best]:.2f}, by chance {longest[0].chance:.2f}",
        xlabel="directions k of each",
        ylabel="overlap, 0 to 1",
        xscale="log",
        ylim=(0, 1.4),  # the legend stands above the lines
        yticks=(0, 0.25, 0.5, 0.75, 1),
    )
    _ticks(ax, [s.k for s in longest])
    ax.legend(loc="upper left", ncols=2)
    return ax


def intruders(ax: Axes, by: Mapping[str, tuple[float, float, float]], of: int) -> Axes:
    """Intruders of each kind of run beside its two controls.

    Args:
        by: trained, scrambled, noise; counts over all maps.
        of: how many vectors were looked at.
    """
    for number, (name, colour) in enumerate(
        (("trained", BLUE), ("same values, random directions", ORANGE), ("noise, same norm", GREY))
    ):
        heights = [counts[number] for counts in by.values()]
        places = [i + 0.27 * (number - 1) for i in range(len(by))]
        ax.bar(places, heights, 0.25, color=colour, label=name)
        for place, height in zip(places, heights, strict=True):
            ax.text(place, height, f"{height:.0f}", ha="center", va="bottom", fontsize=8)
    most = max(by, key=lambda name: by[name][0])
    trained, control, _ = by[most]
    ax.set(
        title=f"{most}: {trained:.0f} of {of} vectors, {control:.0f} at random",
        ylabel=f"intruders of {of}",
    )
    ax.margins(y=0.15)
    ax.set_xticks(range(len(by)), [name.replace(", ", "\n") for name in by])
    ax.legend()
    return ax


def against(ax: Axes, points: Mapping[str, Sequence[tuple[float, float]]], x: str, y: str) -> Axes:
    """Two numbers of every run against each other; the title is Spearman's correlation.

    Args:
        points: under "full", "rank 4", "rank 16" or "rank 64": (x, y) of each run.
    """
    for name, found in points.items():
        ax.plot(
            *zip(*found, strict=True), linestyle="", marker=MARKS[name], color=COLOURS[name],
            alpha=0.8, label=name,
        )  # fmt: skip
    xs, ys = zip(*(point for found in points.values() for point in found), strict=True)
    ax.set(
        title=f"{len(xs)} runs, rank correlation {rank_correlation(xs, ys):+.2f}",
        xlabel=x,
        ylabel=y,
    )
    ax.legend()
    return ax


def scores(ax: Axes, by: Mapping[str, Mapping[int, Mean]], full: Mapping[str, Mean]) -> Axes:
    """The score by rank for several kinds of answers, each beside its full fine-tuning."""
    for (name, found), (colour, _) in zip(by.items(), LINES, strict=False):
        ranks, means = list(found), list(found.values())
        ax.fill_between(
            ranks, [m.low for m in means], [m.high for m in means], color=colour, alpha=0.2,
            linewidth=0,
        )  # fmt: skip
        ax.plot(ranks, [m.middle for m in means], color=colour, marker="o", label=name)
        ax.axhline(full[name].middle, color=colour, linestyle=":", label=f"{name}, full")
    told = (
        f"{name} {found[min(found)].middle:.0%} to {found[max(found)].middle:.0%}"
        for name, found in by.items()
    )
    some = next(iter(by.values()))
    ax.set(
        title=f"From rank {min(some)} to {max(some)}: " + ", ".join(told),
        xlabel="rank",
        ylabel="exactly right",
        xscale="log",
        ylim=(-0.03, 1.05),
    )
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    _ticks(ax, list(some))
    ax.legend()
    return ax


def cut(ax: Axes, cuts: Sequence[Cut]) -> Axes:
    """What is left of the scores when an adapter is cut after training."""
    ranks = [c.rank for c in cuts]
    ax.plot(ranks, [c.task for c in cuts], color=BLUE, marker="o", label="task, best pair")
    ax.plot(
        ranks, [c.naive_task for c in cuts], color=ORANGE, marker="s", linestyle="--",
        label="task, first rows",
    )  # fmt: skip
    ax.plot(
        ranks, [c.regression for c in cuts], color=GREY, marker="D", linestyle=":",
        label="old skills, best pair",
    )  # fmt: skip
    whole = cuts[-1]
    first = next(c for c in cuts if c.task >= whole.task - 0.02)
    ax.set(
        title=f"Cut from {whole.rank} to {first.rank}: {first.task:.1%} of {whole.task:.1%} stay",
        xlabel="rank kept",
        ylabel="exactly right",
        xscale="log",
        ylim=(-0.03, 1.05),
    )
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    _ticks(ax, ranks)
    ax.legend(loc="lower right")
    return ax


def _whole(most: int) -> range:
    """At most five places from 1 to `most`."""
    step = -(-most // 5)
    return range(step, most + 1, step)


def _ticks(ax: Axes, places: Sequence[int]) -> None:
    ax.set_xticks(list(places), [str(place) for place in places])
    ax.xaxis.set_minor_locator(NullLocator())


def values_picture(by: Mapping[str, Sequence[float]], log: bool, of: str) -> Picture:
    """One panel of `values`, with its text."""
    place = min(4, *map(len, by.values()))
    told = ", ".join(f"{name} {found[place - 1] / found[0]:.2f}" for name, found in by.items())
    return picture(
        f"Singular values of {of}; value {place} over the first: {told}",
        lambda ax: values(ax, by, log),
        height=3.5,
    )


def overlap_picture(phi: Sequence[Sequence[float]], n: int, of: str) -> Picture:
    """One panel of `overlaps`, with its text."""
    k = min(4, len(phi), len(phi[0]))
    alt = (
        f"Overlap of {of}: the first {k} directions of both share {phi[k - 1][k - 1]:.2f}, two "
        f"random subspaces {k / n:.2f}"
    )
    return picture(alt, lambda ax: overlaps(ax, phi, n, of), height=3.6)
