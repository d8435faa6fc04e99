"""The pictures of notebook 01: an update by rank, scores by rank, activations kept.

Each draws numbers on the Axes it is given. The title is the finding and is computed from the same
numbers.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator, PercentFormatter

from labkit.figures.base import BLUE, GREEN, GREY, INK, ORANGE, Picture, picture
from labkit.intervals import Mean, by_rank, chosen
from labkit.spectra import energy

NEAR = 0.02  # two scores that differ by less are told as alike


def spectrum(ax: Axes, values: Sequence[float], rank: int) -> Axes:
    """Singular values of an update, largest first; those within `rank` stand out.

    Args:
        values: all of them, in any unit; they are drawn as shares of the largest.
    """
    kept = energy(torch.tensor(values), rank)
    shares = [value / values[0] for value in values]
    places = list(range(1, len(values) + 1))
    ax.fill_between(places[:rank], shares[:rank], color=BLUE, alpha=0.35, linewidth=0)
    ax.plot(places, shares, color=GREY)
    ax.plot(places[:rank], shares[:rank], color=BLUE, marker="o" if rank < 3 else "")
    ax.axvline(rank, color=INK, linewidth=0.8, linestyle=":")
    ax.set(
        title=f"Rank {rank} of {len(values)} keeps {kept:.0%} of the energy",
        xlabel="direction, largest first",
        ylabel="singular value / largest",
        ylim=(0, 1.05),
    )
    return ax


def truncation(
    ax: Axes, ranks: Sequence[int], shares: Sequence[float], right: Sequence[float]
) -> Axes:
    """Energy kept and answers still right, both shares, against the rank of the truncation."""
    enough, kept, score = first_enough(ranks, shares, right)
    ax.plot(ranks, shares, color=GREY, marker="s", label="energy kept")
    ax.plot(ranks, right, color=BLUE, marker="o", label="letters exactly right")
    _by_rank(ax, ranks)
    ax.set(
        title=f"Rank {enough}: {kept:.0%} of the energy, {score:.0%} of the letters",
        ylabel="share",
        ylim=(-0.03, 1.05),
    )
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    ax.legend(loc="lower right")
    return ax


def first_enough(
    ranks: Sequence[int], shares: Sequence[float], right: Sequence[float], near: float = NEAR
) -> tuple[int, float, float]:
    """The first rank whose answers come within `near` of the best, its energy and its answers."""
    place = next(i for i, share in enumerate(right) if share >= max(right) - near)
    return ranks[place], shares[place], right[place]


def scores(ax: Axes, by_rank: Mapping[int, Mean], full: Mean, of: str) -> Axes:
    """A score by rank beside full fine-tuning, both with their intervals over the seeds."""
    near = next((r for r, mean in by_rank.items() if mean.middle >= full.middle - NEAR), None)
    last, best = list(by_rank.items())[-1]
    title = (
        f"{of}: from rank {near} on within {NEAR:.0%} of full"
        if near
        else f"{of}: rank {last} reaches {best.middle:.0%}, full {full.middle:.0%}"
    )
    _beside_full(ax, by_rank, full)
    ax.set(title=title, ylabel="exactly right, mean of seeds", ylim=(-0.03, 1.05))
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    return ax


def losses(ax: Axes, by_rank: Mapping[int, Mean], full: Mean, of: str) -> Axes:
    """The loss on unseen examples by rank beside full fine-tuning, on a logarithmic axis."""
    first, loss = next(iter(by_rank.items()))
    _beside_full(ax, by_rank, full)
    ax.set(
        title=f"{of}: rank {first} ends at {loss.middle / full.middle:.1f} times full's",
        ylabel="loss, nats a token",
        yscale="log",
    )
    return ax


def _beside_full(ax: Axes, by_rank: Mapping[int, Mean], full: Mean) -> None:
    ranks, means = list(by_rank), list(by_rank.values())
    ax.fill_between(
        ranks, [m.low for m in means], [m.high for m in means],
        color=BLUE, alpha=0.2, linewidth=0,
    )  # fmt: skip
    ax.plot(ranks, [m.middle for m in means], color=BLUE, marker="o", label="LoRA")
    ax.axhspan(full.low, full.high, color=ORANGE, alpha=0.2, linewidth=0)
    ax.axhline(full.middle, color=ORANGE, linestyle="--", label="full fine-tuning")
    _by_rank(ax, ranks)


def point(ax: Axes, rank: int, value: float, label: str = "this machine, now") -> Axes:
    """One live point beside what was recorded."""
    ax.plot([rank], [value], color=GREEN, marker="D", markersize=7, linestyle="", label=label)
    ax.legend()
    return ax


def bars(ax: Axes, numbers: Mapping[str, float], unit: str, title: str, against: str) -> Axes:
    """Horizontal bars, each with its number and its ratio to the bar `against`."""
    names = list(numbers)
    colours = [GREY if name == against else BLUE for name in names]
    ax.barh(names, list(numbers.values()), color=colours)
    longest = max(numbers.values())
    for place, (name, value) in enumerate(numbers.items()):
        ratio = "" if name == against else f", {value / numbers[against]:.0%}"
        ax.text(value + 0.01 * longest, place, f"{value:,.0f}{ratio}", va="center")
    ax.invert_yaxis()
    ax.set(title=title, xlabel=unit, xlim=(0, 1.25 * longest))
    return ax


def activations(mib: Mapping[str, float]) -> Picture:
    """MiB kept for the backward pass, the first of them that of full fine-tuning."""
    full = next(iter(mib))
    most = max(mib, key=lambda name: mib[name])
    title = f"{most}: {mib[most] / mib[full]:.0%} of {full}"
    alt = "MiB kept for the backward pass: " + ", ".join(f"{n} {v:.0f}" for n, v in mib.items())
    unit = "MiB kept for the backward pass"
    return picture(alt, lambda ax: bars(ax, mib, unit, title, full), width=8)


def cut(values: Sequence[float]) -> Callable[[int], Picture]:
    """For each rank a picture of one update's directions by size; each is drawn once."""

    @functools.cache
    def show(rank: int) -> Picture:
        kept = energy(torch.tensor(values), rank)
        alt = f"Singular values of an update, largest first: rank {rank} keeps {kept:.0%} of energy"
        return picture(alt, lambda ax: spectrum(ax, values, rank))

    return show


def truncations(ranks: Sequence[int], shares: Sequence[float], right: Sequence[float]) -> Picture:
    """Energy kept and letters right, by the rank that the updates were cut to."""
    rows = zip(ranks, shares, right, strict=True)
    alt = "; ".join(f"rank {r}: {e:.0%} of the energy, {s:.0%} right" for r, e, s in rows)
    return picture(alt, lambda ax: truncation(ax, ranks, shares, right))


def best_rates(rows: Sequence[Mapping[str, Any]], steps: int) -> dict[int, float]:
    """The learning rate of each rank (0: full fine-tuning) with the lowest mean loss on the
    validation letters."""
    tuned: dict[int, dict[float, list[float]]] = {}
    for row in chosen(rows, split="validation", steps=steps):
        tuned.setdefault(row["rank"], {}).setdefault(row["lr"], []).append(row["task_loss"])
    return {
        rank: min(by, key=lambda lr: sum(by[lr]) / len(by[lr]))
        for rank, by in sorted(tuned.items())
    }


def by_rate(ax: Axes, rows: Sequence[Mapping[str, Any]], steps: int, ranks: Sequence[int]) -> Axes:
    """The score on the validation letters by learning rate, a line for full and for each rank."""
    best = best_rates(rows, steps)
    full, lora = best.pop(0), sorted(set(best.values()))
    kinds = zip((0, *ranks), (ORANGE, BLUE, GREEN, GREY), ("--", "-", "-.", ":"), strict=False)
    for rank, colour, line in kinds:
        found: dict[float, list[float]] = {}
        for row in chosen(rows, split="validation", steps=steps, rank=rank):
            found.setdefault(row["lr"], []).append(row["task"])
        means = {lr: sum(found[lr]) / len(found[lr]) for lr in sorted(found)}
        label = f"rank {rank}" if rank else "full fine-tuning"
        ax.plot(means.keys(), means.values(), color=colour, linestyle=line, marker="o", label=label)
    where = f"{lora[0]:g} at every rank" if len(lora) == 1 else f"{lora[0]:g} to {lora[-1]:g}"
    ax.set(
        title=f"Best rate: {where}, {lora[0] / full:.0f} times full's",
        xlabel="learning rate",
        ylabel="exactly right, validation",
        xscale="log",
        ylim=(-0.03, 1.05),
    )
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    ax.legend()
    return ax


def sweep(rows: Sequence[Mapping[str, Any]], steps: int, rank: int, live: float) -> Picture:
    """Recorded runs: score by learning rate; score and loss by rank, each at its tuned rate.

    Args:
        steps: of the runs.
        rank, live: of the run that was made here, its score on the test letters.
    """

    def means(value: str) -> tuple[dict[int, Mean], Mean]:
        full = by_rank(rows, value, method="full", steps=steps)
        return by_rank(rows, value, method="lora", steps=steps), full[0]

    found, full = means("task")
    best = ", ".join(f"rank {r or 'full'} {lr:g}" for r, lr in best_rates(rows, steps).items())
    right = ", ".join(f"rank {r} {mean.middle:.1%}" for r, mean in found.items())
    return picture(
        f"Best learning rates: {best}. Letters right: {right}, full {full.middle:.1%}",
        lambda ax: by_rate(ax, rows, steps, (1, 8, 64)),
        lambda ax: point(scores(ax, found, full, "At its rate"), rank, live),
        lambda ax: losses(ax, *means("task_loss"), "Loss"),
    )


def _by_rank(ax: Axes, ranks: Sequence[int]) -> None:
    ax.set_xscale("log", base=2)
    ax.set_xticks(list(ranks), [str(rank) for rank in ranks])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("rank")
