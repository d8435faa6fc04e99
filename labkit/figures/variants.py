"""The pictures of notebook 07: differences from LoRA, rates, curves, ranks by layer, costs.

Each draws numbers on the Axes it is given. The title is the finding and is computed from the same
numbers. Eleven methods have no eleven colours here: LoRA is blue, what a picture is about orange,
all else grey, and every method has its name beside it.
"""

import math
import statistics
import textwrap
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from labkit import fair
from labkit.figures.base import BLUE, GREY, INK, ORANGE, Picture, picture
from labkit.intervals import Mean
from labkit.verdicts import Case

BARS = 0.72  # height of a bar, of 1
WIDE = 46  # letters of a title over one of two panels


def gap_points(
    ax: Axes, gaps: Mapping[str, Mean], seeds: Mapping[str, Sequence[float]], unit: str
) -> Axes:
    """The paired differences of each method: every seed a point, the mean with its interval.

    Args:
        gaps: by label, such as "PiSSA less LoRA"; `seeds` has the differences behind each.
        unit: of the value; a loss counts as better when it is lower.
    """
    lower = "loss" in unit
    for place, (name, gap) in enumerate(gaps.items()):
        apart = not gap.low <= 0 <= gap.high
        colour = ORANGE if apart else GREY
        n = len(seeds[name])
        spread = [place + 0.3 * (i / max(1, n - 1) - 0.5) for i in range(n)]
        ax.plot(seeds[name], spread, ".", color=colour, alpha=0.7, ms=5)
        ends = [[gap.middle - gap.low], [gap.high - gap.middle]]
        ax.errorbar([gap.middle], [place], xerr=ends, fmt="o", color=colour, capsize=4, ms=5)
    ax.axvline(0, color=INK, linewidth=0.8)
    better = [n for n, gap in gaps.items() if (gap.high < 0 if lower else gap.low > 0)]
    worse = [n for n, gap in gaps.items() if (gap.low > 0 if lower else gap.high < 0)]
    ax.set(title=_finding(better, worse, len(gaps)), xlabel=f"difference: {unit}")
    if not lower:
        ax.xaxis.set_major_formatter(PercentFormatter(1))
    ax.set_yticks(range(len(gaps)), list(gaps))
    ax.invert_yaxis()
    return ax


def _finding(better: Sequence[str], worse: Sequence[str], of: int) -> str:
    def named(names: Sequence[str]) -> str:
        short = [name.split(" less ")[0] for name in names]
        return ", ".join(short) if short else "none"

    rest = of - len(better) - len(worse)
    text = f"better: {named(better)}; worse: {named(worse)}; no difference shown: {rest} of {of}"
    return textwrap.fill(text, WIDE)


def gaps_picture(
    rows: Sequence[fair.Row], case: Case, values: Sequence[str] = ("task_loss", "regression")
) -> Picture:
    """Each method less what it is compared with: the loss, and the old skills kept."""
    drawn, told = [], []
    for value in values:
        unit, gaps, seeds = fair.VALUES[value], {}, {}
        for one, other in fair.compared(rows, case).items():
            name = f"{one} less {other}"
            gaps[name] = fair.difference(rows, one, other, case, value)
            seeds[name] = fair.differences(rows, one, other, case, value)
        drawn.append(lambda ax, g=gaps, s=seeds, u=unit: gap_points(ax, g, s, u))
        told.append(
            f"{unit}: " + "; ".join(f"{name} {gap.middle:+.3g}" for name, gap in gaps.items())
        )
    return picture(f"{case}, paired by seed. {'. '.join(told)}", *drawn, width=10.5, height=3.6)


def best_rates(ax: Axes, tried: Mapping[str, Mapping[float, tuple[float, float]]]) -> Axes:
    """The rates that each method had: the best one full, the others small; LoRA's as a line."""
    best = {name: min(found, key=lambda lr: found[lr][0]) for name, found in tried.items()}
    for place, (name, found) in enumerate(tried.items()):
        ax.plot(list(found), [place] * len(found), ".", color=GREY, ms=5)
        edge = best[name] in (min(found), max(found))
        colour = BLUE if name == "LoRA" else ORANGE
        ax.plot([best[name]], [place], "D" if edge else "o", color=colour, ms=8)
    if "LoRA" in best:
        ax.axvline(best["LoRA"], color=BLUE, linewidth=0.8)
    edges = sum(lr in (min(tried[n]), max(tried[n])) for n, lr in best.items())
    at = f"; {edges} at an edge of what was tried" if edges else ""
    span = max(best.values()) / min(best.values())
    ax.set(
        title=f"best rates lie within a factor of {span:.0f}{at}",
        xscale="log",
        xlabel="learning rate",
    )
    ax.set_yticks(range(len(tried)), list(tried))
    ax.invert_yaxis()
    return ax


def tuning_curves(
    ax: Axes, tried: Mapping[str, Mapping[float, tuple[float, float]]], shown: str
) -> Axes:
    """Validation loss by rate over each method's own best rate; `shown` and LoRA in colour."""
    widest = 0.0
    for name, found in tried.items():
        best = min(found, key=lambda lr: found[lr][0])
        widest = max(widest, max(loss for loss, _ in found.values()) / found[best][0])
        ax.plot(
            [lr / best for lr in found], [loss for loss, _ in found.values()], marker=".",
            color=_colour(name, shown), zorder=_order(name, shown), label=_label(name, shown),
        )  # fmt: skip
    ax.set(
        title=f"off the best rate:\nup to {widest:,.0f} times the loss",
        yscale="log",
        xlabel="rate / the method's best rate",
        ylabel="validation loss, nats",
    )
    ax.set_xscale("log", base=2)
    ax.legend()
    return ax


def _colour(name: str, shown: str) -> str:
    return BLUE if name == "LoRA" else ORANGE if name == shown else GREY


def _order(name: str, shown: str) -> int:
    return 3 if name in ("LoRA", shown) else 2


def _label(name: str, shown: str) -> str | None:
    return name if name in ("LoRA", shown) else None


def loss_curves(ax: Axes, losses: Mapping[str, Sequence[Sequence[float]]], shown: str) -> Axes:
    """Training loss by step, the mean over the seeds; `shown` and LoRA in colour."""
    for name, runs in losses.items():
        mean = [statistics.mean(step) for step in zip(*runs, strict=True)]
        ax.plot(
            range(1, len(mean) + 1), mean, color=_colour(name, shown),
            zorder=_order(name, shown), label=_label(name, shown),
        )  # fmt: skip
    last = {name: statistics.mean(run[-1] for run in runs) for name, runs in losses.items()}
    ax.set(
        title=f"last step: LoRA {last['LoRA']:.3g}, {shown} {last[shown]:.3g} nats",
        yscale="log",
        xlabel="step",
        ylabel="training loss, nats",
    )
    ax.legend()
    return ax


def by_layer(ax: Axes, values: Mapping[str, Sequence[float]], name: str, what: str) -> Axes:
    """A map of a number for each projection (rows) and layer (columns), written in its cell."""
    rows = list(values.values())
    ax.imshow(rows, cmap="Blues", aspect="auto", vmin=0)
    top = max(max(row) for row in rows)
    for i, row in enumerate(rows):
        for j, value in enumerate(row):
            colour = "#ffffff" if value > 0.6 * top else "#000000"
            text = f"{value:g}" if isinstance(value, int) else f"{value:.1%}"
            ax.text(j, i, text, ha="center", va="center", color=colour, fontsize=8)
    means = {projection: statistics.mean(row) for projection, row in values.items()}
    most, least = (pick(means, key=means.__getitem__) for pick in (max, min))
    ax.set(title=f"{name}, {what}:\nmost in {most}, least in {least}", xlabel="layer")
    ax.set_yticks(range(len(values)), list(values))
    ax.set_xticks(range(len(rows[0])))
    ax.spines[:].set_visible(False)
    return ax


def cost_bars(ax: Axes, values: Mapping[str, float], what: str, plain: str = "LoRA") -> Axes:
    """One bar a method on a logarithmic axis, with its number; `plain` in blue.

    Args:
        what: the quantity with its unit, such as "parameters that train".
    """
    colours = [BLUE if name == plain else GREY for name in values]
    ax.barh(range(len(values)), list(values.values()), BARS, color=colours)
    for place, value in enumerate(values.values()):
        text = f"{value:,.0f}" if value >= 100 else f"{value:.2g}"
        ax.text(value * 1.08, place, text, va="center", fontsize=8)
    low, high = min(values.values()), max(values.values())
    most = max(values, key=values.__getitem__)
    times = high / values[plain]
    ax.set(
        title=f"{what}:\nat most {times:,.0f} times {plain}'s ({most})",
        xscale="log",
        xlim=(10 ** math.floor(math.log10(low)), 6 * high),
        xlabel=what,
    )
    ax.set_yticks(range(len(values)), list(values))
    ax.invert_yaxis()
    return ax
