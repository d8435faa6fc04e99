"""The pictures of notebook 05: how rows move, what DoRA costs, and what it scores.

Each draws numbers on the Axes it is given. The title is the finding and is computed from the same
numbers.
"""

import statistics
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes

from labkit.figures.base import BLUE, GREEN, GREY, INK, ORANGE, Picture, picture
from labkit.intervals import Mean
from labkit.verdicts import Cost

Points = Sequence[tuple[int, float, float]]  # step, change of length, change of direction
COLOURS = {"full": GREY, "LoRA": BLUE, "DoRA": ORANGE, "QLoRA": BLUE, "QDoRA": ORANGE}
MARKS = {"full": "D", "LoRA": "o", "DoRA": "s", "QLoRA": "o", "QDoRA": "s"}


def correlation(points: Points) -> float:
    """Of the change of length with the change of direction."""
    return statistics.correlation([m for _, m, _ in points], [d for *_, d in points])


def moves(ax: Axes, name: str, points: Points) -> Axes:
    """One method: each map at each moment, by how far its rows turned and how much they grew."""
    last = max(step for step, *_ in points)
    sizes = [15 + 45 * step / last for step, *_ in points]
    ax.scatter(
        [d for *_, d in points], [m for _, m, _ in points], s=sizes, marker=MARKS[name],
        color=COLOURS[name], alpha=0.75, linewidths=0,
    )  # fmt: skip
    ax.set(
        title=f"{name}: r = {correlation(points):+.2f}",
        xlabel="change of direction, 1 - cosine",
        ylabel="change of length",
    )
    ax.ticklabel_format(style="sci", scilimits=(-2, 2))
    ax.margins(0.1)
    return ax


def moves_picture(points: Mapping[str, Points]) -> Picture:
    """Every method side by side."""
    told = ", ".join(f"{name} {correlation(p):+.2f}" for name, p in points.items())
    return picture(
        f"Change of length against change of direction of query weights; correlations: {told}",
        *(lambda ax, n=name, p=p: moves(ax, n, p) for name, p in points.items()),
        width=9.6,
    )


def cost_bars(ax: Axes, costs: Sequence[Cost], what: str) -> Axes:
    """DoRA over LoRA, ours beside PEFT's. `what` is "time" or "memory"."""
    ways = list(dict.fromkeys(c.way for c in costs))
    by = {(c.whose, c.way): getattr(c, what) for c in costs}
    for number, (whose, colour) in enumerate((("ours", GREEN), ("peft", GREY))):
        places = [i + 0.38 * (number - 0.5) for i, way in enumerate(ways) if (whose, way) in by]
        values = [by[whose, way] for way in ways if (whose, way) in by]
        ax.barh(places, values, 0.36, color=colour, label=whose)
        for place, value in zip(places, values, strict=True):
            ax.text(value + 0.02, place, f"{value:.2f}", va="center", fontsize=8)
    ax.axvline(1, color=INK, linewidth=0.8)
    largest = {
        whose: max(v for (w, _), v in by.items() if w == whose) for whose in ("ours", "peft")
    }
    ax.set(
        title=f"{what}: ours up to {largest['ours']:.2f}, PEFT's up to {largest['peft']:.2f}",
        xlabel=f"{what} of DoRA / {what} of LoRA",
        xlim=(0, 1.15 * max(largest.values())),
    )
    ax.set_yticks(range(len(ways)), ways)
    ax.invert_yaxis()
    ax.legend(loc="lower right")
    return ax


def quality(ax: Axes, means: Mapping[str, Mean], of: str, unit: str) -> Axes:
    """The methods of one case with their intervals."""
    for place, (name, mean) in enumerate(means.items()):
        ends = [[mean.middle - mean.low], [mean.high - mean.middle]]
        hollow = "none" if name.startswith("Q") else COLOURS[name]
        ax.errorbar(
            [place], [mean.middle], ends, fmt=MARKS[name], color=COLOURS[name], capsize=4,
            markerfacecolor=hollow,
        )  # fmt: skip
    best = min(means, key=lambda name: means[name].middle)
    alike = [n for n, mean in means.items() if n != best and mean.low <= means[best].high]
    told = (
        f"\nwithin its interval {', '.join(alike)}" if alike else ""
    )  # else it meets the next title
    title = f"{of}: lowest {best}{told}"
    ax.set(title=title, ylabel=unit, xlim=(-0.5, len(means) - 0.5))
    ax.set_xticks(range(len(means)), list(means))
    return ax


def rates(ax: Axes, by: Mapping[str, Mapping[float, tuple[float, float]]], what: str) -> Axes:
    """Validation loss by learning rate; a ring marks each method's best.

    Args:
        by: for each method, by rate: loss and score.
    """
    best = {name: min(found, key=lambda lr: found[lr][0]) for name, found in by.items()}
    for name, found in by.items():
        losses = [loss for loss, _ in found.values()]
        ax.plot(
            list(found), losses, color=COLOURS[name], marker=MARKS[name], label=name,
            linestyle="--" if name.startswith("Q") else "-",
        )  # fmt: skip
        ax.plot([best[name]], [min(losses)], "o", ms=13, mfc="none", mec=COLOURS[name])
    lowest = {name: found[best[name]][0] for name, found in by.items()}
    spread = max(lowest.values()) / min(lowest.values())
    worst = max(max(loss for loss, _ in found.values()) / lowest[n] for n, found in by.items())
    ax.set(
        title=f"{what}: best within a factor {spread:.1f}, worst rate {worst:,.0f} times",
        xscale="log",
        yscale="log",
        xlabel="learning rate",
        ylabel="validation loss, nats",
    )
    ax.legend()
    return ax
