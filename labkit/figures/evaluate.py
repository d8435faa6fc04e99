"""The pictures of notebook 08: gates and their margins, what is forgotten, whom to trust.

Each draws numbers on the Axes it is given. The title is the finding and is computed from the same
numbers.
"""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, PercentFormatter

from labkit.evaluate.judges import Agreement
from labkit.evaluate.recorded import Checkpoint, best_checkpoint
from labkit.evaluate.report import Line, Report
from labkit.figures.base import BLUE, GREEN, GREY, INK, ORANGE
from labkit.intervals import Mean

VERDICTS = {"pass": (GREEN, "o"), "undecided": (GREY, "s"), "fail": (ORANGE, "X")}
LINES = ((BLUE, "o", "-"), (ORANGE, "s", "-"), (GREEN, "^", "-"), (GREY, "D", "--"))
PERCENT = PercentFormatter(1, decimals=0)


def margin(line: Line) -> tuple[float, float, float]:
    """Low end, middle and high end of a gate's interval, in points above its limit."""
    gate = line.gate
    found, limit = (line.tuned, gate.minimum) if gate.minimum is not None else (line.change, None)
    below = limit if limit is not None else -(gate.may_fall or 0.0)
    return tuple(100 * (v - below) for v in (found.low, found.middle, found.high))


def margins(ax: Axes, report: Report) -> Axes:
    """Each gate's interval beside its limit, which is the line at 0."""
    for place, line in enumerate(report.lines):
        low, middle, high = margin(line)
        colour, mark = VERDICTS[line.verdict]
        ax.plot([low, high], [place, place], color=colour, linewidth=4, solid_capstyle="butt")
        ax.plot([middle], [place], mark, color=colour, mec=INK, ms=8)
        ax.annotate(line.verdict, (high, place), (6, 0), textcoords="offset points", va="center")
    ax.axvline(0, color=INK, linewidth=0.8)
    ax.set_yticks(range(len(report.lines)), [_label(line) for line in report.lines])
    ax.invert_yaxis()
    ax.margins(x=0.2, y=0.2)
    ax.set(title=_margins_title(report), xlabel="points above the limit, 95% interval")
    return ax


def _margins_title(report: Report) -> str:
    said = [line.verdict for line in report.lines]
    for word in ("fail", "undecided"):
        if word in said:
            names = ", ".join(line.gate.metric for line in report.lines if line.verdict == word)
            return f"{said.count(word)} of {len(said)} gates {word}:\n{names}"
    return f"all {len(said)} gates pass"


def _label(line: Line) -> str:
    gate = line.gate
    if gate.minimum is not None:
        return f"{gate.metric}\nat least {gate.minimum:.0%}"
    return f"{gate.metric}\nmay fall {100 * (gate.may_fall or 0.0):g} points"


def forgetting(ax: Axes, means: Mapping[str, Mapping[int, Mean]], what: str) -> Axes:
    """By method and number of steps: a share with its interval over the seeds."""
    for (name, by), (colour, mark, style) in zip(means.items(), LINES, strict=False):
        steps = list(by)
        ax.plot(steps, [by[s].middle for s in steps], style, color=colour, marker=mark, label=name)
        ends = [[max(0.0, by[s].low) for s in steps], [min(1.0, by[s].high) for s in steps]]
        ax.fill_between(steps, *ends, color=colour, alpha=0.15, linewidth=0)
    last = max(steps for by in means.values() for steps in by)
    ends = {name: by[last].middle for name, by in means.items() if last in by}
    low, high = min(ends, key=ends.__getitem__), max(ends, key=ends.__getitem__)
    ax.set(
        title=f"{what} after {last} steps:\n{ends[low]:.0%} ({low}) to {ends[high]:.0%} ({high})",
        xscale="log",
        xlabel="training steps",
        ylabel=what,
        ylim=(-0.03, 1.03),
    )
    _steps(ax, sorted({steps for by in means.values() for steps in by}))
    ax.yaxis.set_major_formatter(PERCENT)
    ax.legend(loc="lower left")
    return ax


def losses(ax: Axes, curve: Sequence[Checkpoint], what: str) -> Axes:
    """Loss on the letters learnt from and on unseen ones, step by step; a ring marks the lowest."""
    steps = [c.step for c in curve]
    seen, unseen = ([getattr(c, k) for c in curve] for k in ("train_loss", "validation_loss"))
    ax.plot(steps, seen, "-o", color=BLUE, label="letters it learns from")
    ax.plot(steps, unseen, "--s", color=ORANGE, label="unseen letters")
    best, last = min(curve, key=lambda c: c.validation_loss), curve[-1]
    ax.plot([best.step], [best.validation_loss], "o", ms=13, mfc="none", mec=ORANGE)
    ax.set(
        title=f"{what}: unseen loss lowest at step {best.step},\nat step {last.step} "
        f"{last.validation_loss / last.train_loss:.3g} times the loss of letters learnt",
        xscale="log", yscale="log", xlabel="training steps", ylabel="loss, nats a token",
    )  # fmt: skip
    _steps(ax, steps)
    ax.legend()
    return ax


SCORES = {
    "validation_score": "unseen letters right",
    "regression": "old skills kept",
    "refused": "secrets refused",
}


def scores(ax: Axes, curve: Sequence[Checkpoint], what: str) -> Axes:
    """The same run by what counts; a ring marks the best validation score."""
    steps = [c.step for c in curve]
    for (key, label), (colour, mark, style) in zip(SCORES.items(), LINES, strict=False):
        values = [getattr(c, key) for c in curve]
        ax.plot(steps, values, style, marker=mark, color=colour, label=label)
    best, last = best_checkpoint(curve), curve[-1]
    ax.plot([best.step], [best.validation_score], "o", ms=13, mfc="none", mec=LINES[0][0])
    ax.set(
        title=f"{what}: best score {best.validation_score:.0%} at step {best.step},\n"
        f"{last.validation_score:.0%} at step {last.step}, old skills {last.regression:.0%}",
        xscale="log", xlabel="training steps", ylabel="share", ylim=(-0.03, 1.03),
    )  # fmt: skip
    _steps(ax, steps)
    ax.yaxis.set_major_formatter(PERCENT)
    ax.legend(loc="best")
    return ax


def refusals(ax: Axes, means: Mapping[int, Mapping[int, Mean]]) -> Axes:
    """By number of adversarial examples and of steps: the share of secrets still refused."""
    for (n, by), (colour, mark, style) in zip(means.items(), LINES, strict=False):
        name = f"{n} example{'s' * (n > 1)}"
        values = [mean.middle for mean in by.values()]
        ax.plot(list(by), values, style, color=colour, marker=mark, label=name)
    fewest = min(means)
    undone = [steps for steps, mean in means[fewest].items() if mean.middle < 0.05]
    told = f"{fewest} example, {undone[0]} steps:\nunder 5% refused" if undone else "never under 5%"
    ax.set(title=told, xlabel="training steps", ylabel="secrets refused", ylim=(-0.03, 1.03))
    ax.yaxis.set_major_formatter(PERCENT)
    ax.legend(loc="upper right")
    return ax


def agreements(ax: Axes, found: Sequence[Agreement], bar: float = 0.9) -> Axes:
    """Judges by their agreement with the rule; a judge is trusted if its interval is past `bar`."""
    for place, one in enumerate(found):
        colour = GREEN if one.share.low >= bar else ORANGE
        ax.barh([place], [one.share.middle], 0.5, color=colour)
        ax.plot([one.share.low, one.share.high], [place, place], color=INK, marker="|", ms=9)
        ax.text(0.02, place - 0.36, f"kappa {one.kappa:.2f}", va="center", fontsize=8.5)
    ax.axvline(bar, color=INK, linewidth=0.8, linestyle=":")
    good = [one.judge for one in found if one.share.low >= bar]
    title = f"{len(good)} of {len(found)} judges above {bar:.0%}"
    ax.set(title=title, xlabel="agreement with the rule", xlim=(0, 1.03))
    ax.set_yticks(range(len(found)), [one.judge.replace(", ", ",\n") for one in found])
    ax.set_ylim(len(found) - 0.5, -0.6)
    ax.xaxis.set_major_formatter(PERCENT)
    return ax


def _steps(ax: Axes, steps: Sequence[int]) -> None:
    """Ticks at the steps themselves, in plain numbers; none where two would touch."""
    shown = [s for i, s in enumerate(steps) if i + 1 == len(steps) or steps[i + 1] > 1.4 * s]
    ax.set_xticks(shown)
    ax.minorticks_off()
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
