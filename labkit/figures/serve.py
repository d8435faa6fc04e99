"""The pictures of notebook 09: merges, rounding, many adapters at once, tenants, waiting.

Each draws numbers on the Axes it is given. The title is the finding and is computed from the same
numbers.
"""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes

from labkit.figures.base import BLUE, GREEN, GREY, INK, ORANGE, Picture, picture
from labkit.serve.economics import tenant_gib
from labkit.serve.load import Load
from labkit.serve.merging import AS_TRAINED, RIGHT, Merges, Rounded

Throughput = Mapping[str, Mapping[int, float]]  # way, number of adapters, tokens a second

WAYS = {  # colour, marker, line
    "gather": (BLUE, "o", "-"),
    "gather-graph": (BLUE, "s", "--"),
    "peft": (ORANGE, "^", "-"),
    "swap": (GREEN, "D", "-"),
    "merged": (GREY, "v", "-"),
}


def losses(ax: Axes, merges: Merges) -> Axes:
    """The loss of one adapter after each way to merge it, beside what it was trained to."""
    trained = merges.losses[AS_TRAINED]
    off = {way: loss - trained for way, loss in merges.losses.items()}
    worst = max(off, key=lambda way: off[way])
    for place, (way, more) in enumerate(off.items()):
        ax.barh(place, more, color=GREEN if way in (AS_TRAINED, RIGHT) else ORANGE)
        ax.text(max(more, 0), place, f" {merges.losses[way]:.4f}", va="center", fontsize=8)
    ax.axvline(0, color=INK, linewidth=0.8)
    ax.set(
        title=f"{worst}:\n{off[worst]:+.3f} nats a token",
        xlabel="loss beside that of training, nats a token",
        xlim=(min(0, *off.values()), 1.3 * off[worst]),
    )
    ax.set_yticks(range(len(off)), list(off))
    ax.invert_yaxis()
    return ax


def lost(ax: Axes, found: Sequence[Rounded]) -> Axes:
    """What a merge loses, by the size of the update, for each dtype."""
    marks = {"bfloat16": (ORANGE, "o"), "float16": (BLUE, "s"), "float32": (GREEN, "D")}
    for dtype in dict.fromkeys(one.dtype for one in found):
        some = [one for one in found if one.dtype == dtype]
        colour, mark = marks[dtype]
        ax.plot([o.size for o in some], [o.lost for o in some], marker=mark, color=colour,
                label=dtype)  # fmt: skip
    half = [one for one in found if one.dtype == "bfloat16"]
    small = min(half, key=lambda one: one.size)
    ax.set(
        title=f"At {small.size:g} of the weight bfloat16 loses {small.lost:.0%}",
        xscale="log",
        yscale="log",
        xlabel="size of the update, beside the weight",
        ylabel="share of it that the merge loses",
    )
    ax.axhline(1, color=INK, linewidth=0.6, linestyle=":")
    ax.legend()
    return ax


def throughput(ax: Axes, by: Throughput, what: str = "", unit: str = "tokens a second") -> Axes:
    """Speed by the number of adapters in one batch, for each way.

    Args:
        by: as `throughput` or `beside_base` of `labkit.serve.recorded` give it.
        what: the model and the device, for the title.
    """
    for name, (colour, mark, line) in WAYS.items():
        if name in by:
            ax.plot(list(by[name]), list(by[name].values()), color=colour, marker=mark,
                    linestyle=line, label=name)  # fmt: skip
    for name, line in (("base", ":"), ("base-graph", (0, (6, 2)))):
        if name in by:
            ax.plot(list(by[name]), list(by[name].values()), color=INK, linewidth=0.9,
                    linestyle=line, label=name)  # fmt: skip
    most = max(set(by["gather"]) & set(by["swap"]))
    times = by["gather"][most] / by["swap"][most]
    ax.set(
        title=f"{what + ': ' if what else ''}{most} adapters,\ngather {times:.1f} times swapping",
        xscale="log",
        yscale="log",
        xlabel="adapters in one batch",
        ylabel=unit,
    )
    ax.set_ylim(bottom=min(v for found in by.values() for v in found.values()) / 4)
    ax.set_xticks(list(by["gather"]), [str(n) for n in by["gather"]])
    ax.minorticks_off()
    ax.legend(fontsize=8, ncols=2, loc="lower left")
    return ax


def throughput_picture(by: Mapping[str, Throughput], unit: str = "tokens a second") -> Picture:
    """Side by side, each with its name; the text says where the gather overtakes swapping."""
    said = []
    for what, found in by.items():
        ahead = [n for n in found["gather"] if found["gather"][n] > found["swap"].get(n, 0)]
        from_ = f"from {min(ahead)} adapters on" if ahead else "nowhere"
        said.append(f"{what}: the gather is faster than swapping {from_}")
    return picture(
        f"{unit.capitalize()} by the number of adapters in one batch. {'; '.join(said)}",
        *(lambda ax, w=what, f=found: throughput(ax, f, w, unit) for what, found in by.items()),
        height=3.6,
    )


def tenants(
    ax: Axes, base_bytes: int, numbers: int, counts: Sequence[int] = (1, 5, 10, 50, 200, 1000)
) -> Axes:
    """GiB of one tenant by their number: a shared base with adapters, and a merged model each."""
    shared = [tenant_gib(base_bytes, numbers, n) for n in counts]
    merged = base_bytes / 2**30
    ax.plot(counts, shared, color=BLUE, marker="o", label="one base, an adapter each")
    ax.plot(counts, [merged] * len(counts), color=ORANGE, marker="s", label="a merged model each")
    ax.axhline(2 * numbers / 2**30, color=GREY, linestyle=":", label="the adapter alone")
    ax.set(
        title=f"{counts[-1]:,} tenants: {shared[-1]:.3f} GiB each,\n"
        f"{merged / shared[-1]:.0f} times less than a merged model",
        xscale="log",
        yscale="log",
        xlabel="tenants",
        ylabel="GiB a tenant",
    )
    ax.legend(fontsize=8, loc=(0.4, 0.6))
    return ax


def latencies(ax: Axes, load: Load) -> Axes:
    """The share of requests answered by each moment; p50 and p99 are marked."""
    found = [1e3 * s for s in load.latencies]
    ax.step(found, [(i + 1) / len(found) for i in range(len(found))], where="post", color=BLUE)
    for share, value in ((0.5, 1e3 * load.p50), (0.99, 1e3 * load.p99)):
        ax.plot([value], [share], "o", color=ORANGE)
        ax.annotate(f"p{100 * share:.0f}: {value:,.0f} ms", (value, share), (4, -11),
                    textcoords="offset points", fontsize=8)  # fmt: skip
    ax.set(
        title=f"{len(found)} of {len(load.answers)} answered, {load.lost} lost;\n"
        f"p99 {load.p99 / load.p50:.1f} times p50",
        xlabel="milliseconds from sending to the last byte",
        ylabel="share answered",
        xlim=(0, 1.35 * found[-1]),
    )
    return ax
