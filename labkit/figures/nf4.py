"""The pictures of notebook 03: where the levels stand, how they are used, and what they cost.

bell(ax, ...)        the levels under the normal distribution whose quantiles they are
used(ax, ...)        how often each level is taken
normality(ax, ...)   kurtosis of whole matrices beside that of their blocks
errors(ax, ...)      squared error of several codes by block size
tails(ax, ...)       squared error of several codes by distribution
outlier(ax, ...)     one block, its levels, and an outlier in it
harm(ax, ...)        a model's perplexity by block size and code
"""

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist, median

from matplotlib.axes import Axes

from labkit.figures.base import BLUE, GREEN, GREY, INK, ORANGE, Picture, picture
from labkit.outliers import Block

# One look for one code, in every picture: colour, marker, line.
LOOKS = {
    "NF4": (BLUE, "o", "-"),
    "FP4": (ORANGE, "s", "--"),
    "INT4": (GREEN, "^", "-."),
    "AF4": (GREY, "D", ":"),
}


def _style(name: str) -> dict[str, str]:
    colour, marker, line = LOOKS[name]
    return {"color": colour, "marker": marker, "linestyle": line, "label": name}


def bell(ax: Axes, code: Sequence[float], outermost: float) -> Axes:
    """The levels of `code`, stretched so that 1 is the quantile of `outermost`, under the bell."""
    normal = NormalDist()
    edge = normal.inv_cdf(outermost)
    xs = [i / 50 for i in range(-150, 151)]
    ax.plot(xs, [normal.pdf(x) for x in xs], color=GREY)
    for level in code:
        colour = INK if level == 0 else BLUE if level > 0 else ORANGE
        ax.plot([level * edge] * 2, [0, normal.pdf(level * edge)], color=colour)
    above, below = sum(x > 0 for x in code), sum(x < 0 for x in code)
    share = outermost - 0.5
    ax.set(
        title=f"{share / below:.2%} of the bell between two marks below zero, "
        f"{share / above:.2%} above",
        xlabel="weight, standard deviations",
        ylabel="density",
        ylim=(0, None),
    )
    return ax


def used(ax: Axes, code: Sequence[float], shares: Sequence[float]) -> Axes:
    """The share of weights that takes each level, beside the share of equal use."""
    bits = -sum(p * math.log2(p) for p in shares if p)
    ax.bar(range(len(code)), [100 * p for p in shares], color=BLUE)
    equal = 100 / len(code)
    ax.axhline(equal, color=ORANGE, linestyle="--")
    ax.annotate("equal use", (len(code) - 0.4, equal), ha="right", va="bottom", color=INK)
    ax.set_xticks(range(len(code)), [f"{x:.2f}" for x in code], rotation=60, fontsize=7.5)
    ax.set(
        title=f"The codes carry {bits:.3f} of {math.log2(len(code)):g} bits: "
        f"from {min(shares):.1%} to {max(shares):.1%}",
        xlabel="level",
        ylabel="weights that take it, %",
    )
    return ax


def normality(ax: Axes, whole: Sequence[float], blocks: Sequence[float], name: str) -> Axes:
    """Excess kurtosis of each matrix, whole and as the mean of its blocks, both sorted."""
    places = range(1, len(whole) + 1)
    squares = {"color": ORANGE, "marker": "s", "linestyle": "--", "markersize": 3}
    ax.plot(places, sorted(whole), label="whole matrices", **squares)
    ax.plot(places, sorted(blocks), color=BLUE, marker="o", markersize=3, label="blocks of 64")
    ax.axhline(0, color=GREY, linewidth=1)
    ax.legend(loc="upper left")
    ax.set_yscale("symlog", linthresh=1)
    ax.set_ylim(min(-0.5, *whole, *blocks) * 1.2, max(whole) * 1.6)
    ax.set(
        title=f"{name}: median {median(whole):.2f} for whole matrices, {median(blocks):.2f} within",
        xlabel="matrix, by kurtosis",
        ylabel="excess kurtosis (normal: 0)",
    )
    return ax


def kurtosis(whole: Sequence[float], blocks: Sequence[float], name: str) -> Picture:
    """`normality` as a picture, with its numbers in the text."""
    alt = (
        f"excess kurtosis of the {len(whole)} matrices of {name}: whole, from {min(whole):.2f} to "
        f"{max(whole):.2f}; in blocks of 64, from {min(blocks):.2f} to {max(blocks):.2f}"
    )
    return picture(alt, lambda ax: normality(ax, whole, blocks, name))


def errors(ax: Axes, blocks: Sequence[int], mse: Mapping[str, Sequence[float]]) -> Axes:
    """Squared error of normal weights over their variance, by block size, a line for each code."""
    for name, values in mse.items():
        ax.plot(blocks, values, **_style(name))
    best = [min(mse, key=lambda name: mse[name][i]) for i in range(len(blocks))]
    wins = {name: best.count(name) for name in mse if name in best}
    most = max(wins, key=lambda name: wins[name])
    ax.set_xscale("log", base=2)
    ax.set_xticks(blocks, [f"{b}" for b in blocks])
    ax.set(
        title=f"Normal weights: {most} errs least at {wins[most]} of {len(blocks)} block sizes",
        xlabel="weights that share an absmax",
        ylabel="squared error / variance",
        ylim=(0, None),
    )
    ax.legend()
    return ax


def tails(ax: Axes, names: Sequence[str], mse: Mapping[str, Sequence[float]]) -> Axes:
    """Squared error at block 64 as a multiple of NF4's, by distribution."""
    for name, values in mse.items():
        ratio = [v / base for v, base in zip(values, mse["NF4"], strict=True)]
        ax.plot(names, ratio, **_style(name))
    best = [min(mse, key=lambda name: mse[name][i]) for i in range(len(names))]
    ax.set(
        title=f"Block 64: NF4 errs least on {best.count('NF4')} of {len(names)} distributions",
        xlabel="weights, from light to heavy tails",
        ylabel="squared error / NF4's",
        ylim=(0, None),
    )
    ax.legend()
    return ax


def compared(ax: Axes, mse: Mapping[str, float], weights: str, block: int) -> Axes:
    """Squared error over the variance as bars, a bar for each code of LOOKS."""
    names = list(mse)
    ax.barh(names[::-1], [mse[n] for n in names[::-1]], color=[LOOKS[n][0] for n in names[::-1]])
    best, worst = min(names, key=lambda n: mse[n]), max(names, key=lambda n: mse[n])
    ax.set(
        title=f"{weights}, block {block}: {best} errs least, {worst} "
        f"{mse[worst] / mse[best]:.2f} times as much",
        xlabel="squared error / variance",
    )
    return ax


def bars(mse: Mapping[str, float], weights: str, block: int) -> Picture:
    """`compared` as a picture, for a control to show."""
    said = ", ".join(f"{name} {value:.4f}" for name, value in mse.items())
    alt = f"squared error on {weights} weights in blocks of {block}: {said}"
    return picture(alt, lambda ax: compared(ax, mse, weights, block), height=2.0)


def outlier(
    ax: Axes, values: Sequence[float], back: Sequence[float], code: Sequence[float], usual: float
) -> Axes:
    """A block whose first value is the outlier: its values, the levels, and what comes back.

    Args:
        usual: root mean square error of the other values when the outlier is not there.
    """
    top = max(abs(v) for v in values)
    marks = [level * top for level in code]  # one artist, not sixteen: a control redraws it
    ax.hlines(marks, 0, 1, transform=ax.get_yaxis_transform(), color=GREY, linewidth=0.6)
    places = range(len(values))
    ax.plot(places, values, "o", color=BLUE, markersize=4, label="weight")
    ax.plot(places, back, "x", color=ORANGE, markersize=5, label="what comes back")
    rest = [(v - b) ** 2 for v, b in zip(values[1:], back[1:], strict=True)]
    rms = math.sqrt(sum(rest) / len(rest))
    dead = sum(b == 0 for b in back[1:])
    ax.set(
        title=f"An outlier of {values[0]:g}: the others err {rms / usual:.1f} times as much, "
        f"{dead} of {len(rest)} become zero",
        xlabel="place in the block",
        ylabel="weight, standard deviations",
        ylim=(-1.1 * top, 1.4 * top),  # the legend stands above the weights, not on them
    )
    ax.legend(loc="upper right", ncols=2)
    return ax


def block(found: Block, code: Sequence[float]) -> Picture:
    """`outlier` as a picture, for a control to show."""
    alt = (
        f"a block of {len(found.values)} weights whose first is {found.values[0]:g} standard "
        f"deviations, and what comes back of it: {found.back[0]:g} for the first"
    )
    return picture(alt, lambda ax: outlier(ax, found.values, found.back, code, found.usual))


def harm(
    ax: Axes, blocks: Sequence[str], perplexity: Mapping[str, Sequence[float]], plain: float
) -> Axes:
    """Perplexity by block size, a line for each code, and that of the model as it is."""
    for name, values in perplexity.items():
        ax.plot(blocks, values, **_style(name))
    ax.axhline(plain, color=INK, linewidth=1)
    ax.annotate("as it is", (len(blocks) - 1, plain), va="top", ha="right", color=INK)
    first = max(abs(values[0] / plain - 1) for values in perplexity.values())
    worst = max(perplexity, key=lambda name: perplexity[name][-1])
    last = perplexity[worst][-1] / plain - 1
    ax.set(
        title=f"At block {blocks[0]} perplexity moves by at most {first:.1%}; "
        f"{worst} at {blocks[-1]} costs {last:.1%}",
        xlabel="weights that share an absmax",
        ylabel="perplexity of a token",
    )
    ax.legend()
    return ax
