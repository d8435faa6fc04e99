"""The pictures of notebook 02: what is alive when, and how far predictions lie from the measured.

timeline   the bytes of one training step, stacked by kind, from its beginning to its end
errors     predicted over measured, one row of dots for each way to predict
"""

from collections.abc import Mapping, Sequence
from statistics import median

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullLocator

from labkit.figures.base import BLUE, GREEN, GREY, INK, ORANGE

GIB = 2**30
STACK = (BLUE, GREEN, ORANGE, "#b0529c", GREY)


def timeline(
    ax: Axes,
    moments: Sequence[tuple[float, Mapping[str, int]]],
    phases: Sequence[str],
    title: str = "",
) -> Axes:
    """Bytes alive along one step, stacked by group.

    Args:
        moments: places on the axis with bytes by group, as `labkit.budget.groups.moments` has them.
        phases: names of the phases, each one unit wide.
    """
    xs = [x for x, _ in moments]
    groups = list(moments[0][1])
    stacks = [[held[group] / GIB for _, held in moments] for group in groups]
    ax.stackplot(xs, stacks, labels=groups, colors=STACK, linewidth=0)
    place, top = max(((x, sum(held.values())) for x, held in moments), key=lambda pair: pair[1])
    finding = f"{top / GIB:.2f} GiB at the peak, in {phases[min(int(place), len(phases) - 1)]}"
    ax.set(
        title=f"{title}: {finding}" if title else finding,
        ylabel="bytes alive, GiB",
        xlim=(0, len(phases)),
        xticks=[number + 0.5 for number in range(len(phases))],
        xticklabels=list(phases),
    )
    for number in range(1, len(phases)):
        ax.axvline(number, color=INK, linewidth=0.6, alpha=0.4)
    ax.tick_params(axis="x", length=0)
    ax.legend(loc="upper right")
    ax.set_ylim(top=1.45 * top / GIB)  # room for the legend
    return ax


def errors(ax: Axes, ratios: Mapping[str, Sequence[float]]) -> Axes:
    """Predicted over measured peaks, one dot a configuration; a bar marks the median.

    Raises:
        ValueError: if a way to predict has no ratio, or one that is not above 0.
    """
    for name, values in ratios.items():
        if not values or min(values) <= 0:
            raise ValueError(f"{name}: ratios must be above 0, and there must be one")
    names = list(ratios)
    for row, values in enumerate(ratios.values()):
        colour = BLUE if row == 0 else GREY
        ax.plot(values, [row] * len(values), "o", color=colour, alpha=0.5, markersize=4)
        ax.plot([median(values)] * 2, [row - 0.32, row + 0.32], color=INK, linewidth=2)
        ax.annotate(f"{median(values):.2f}", (median(values), row - 0.38), ha="center", va="bottom")
    ax.axvline(1.0, color=INK, linewidth=0.8, alpha=0.6)
    ax.set(xscale="log", yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.4, -0.8))
    ax.set(xlabel="predicted peak over measured peak (1 is right)", title=_finding(ratios))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_locator(NullLocator())
    low, high = ax.get_xlim()
    ax.set_xticks(
        [t for t in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20) if low <= t <= high]
    )
    return ax


def _finding(ratios: Mapping[str, Sequence[float]]) -> str:
    """How far the first way lies off at worst, and how far the others do."""
    ours, *others = ratios.values()
    worst = max(abs(value - 1) for value in ours)
    far = max(max(value, 1 / value) for values in others for value in values)
    return (
        f"{next(iter(ratios))}: at most {worst:.0%} off; other rules: up to a factor of {far:.0f}"
    )
