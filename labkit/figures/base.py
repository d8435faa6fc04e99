"""A picture as inline SVG that follows JupyterLab's theme, and what all pictures share.

    picture("what it shows", lambda ax: spectrum(ax, values), lambda ax: ...)

matplotlib draws on a transparent ground. What it drew in INK becomes `currentColor`, so axes and
text are dark on a light page and light on a dark one. Text stays text: it can be searched and
scales with the page. The same numbers give the same bytes.
"""

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

INK = "#1a2b3d"  # stands for the page's own text colour; drawn in nothing else
# Apart in hue and in grey, and readable on white and on JupyterLab's dark ground alike.
BLUE, ORANGE, GREEN, GREY = "#2f7fc1", "#e69f00", "#2f9e77", "#9a9a9a"
LEAST = 0.7  # of its width that a panel keeps beside others; where less is left, it wraps

STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "labkit",
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": f"cycler('color', {[BLUE, ORANGE, GREEN, GREY]})",
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "grid.alpha": 0.3,
    "axes.axisbelow": True,
} | {
    f"{name}color": INK
    for name in ("text.", "axes.edge", "axes.label", "axes.title", "xtick.", "ytick.", "grid.")
}


@dataclass(frozen=True)
class Picture:
    """An SVG, or several in a row that wraps, and the text in its place."""

    alt: str
    svg: str

    def __str__(self) -> str:
        return f"picture: {self.alt}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.svg


def picture(
    alt: str, *drawings: Callable[[Axes], object], width: float = 0.0, height: float = 3.0
) -> Picture:
    """Side by side, each drawing on an Axes of its own; in a narrow column one under the other.

    Args:
        alt: what a reader who cannot see it has to know: the finding, with its numbers.
        width, height: in inches of 72 points; width 0 stands for 4.6 a drawing, at least 6.4.

    Raises:
        ValueError: if there is no text or no drawing.
    """
    if not alt.strip() or not drawings:
        raise ValueError("a picture needs a text in its place and at least one drawing")
    each = (width or max(6.4, 4.6 * len(drawings))) / len(drawings)
    with rc_context(STYLE):
        panels = [Figure((each, height), layout="constrained") for _ in drawings]
        axes = [panel.add_subplot() for panel in panels]
        for ax, draw in zip(axes, drawings, strict=True):
            draw(ax)
        _level(axes)
        found = [_svg(panel) for panel in panels]
    label = f'role="img" aria-label="{escape(alt)}"'
    if len(found) == 1:
        return Picture(alt, _themed(found[0], label, "max-width:100%"))
    shown = "".join(
        _themed(
            svg,
            'aria-hidden="true"',
            f"flex:1 1 {LEAST * 96 * each:.0f}px;min-width:0;max-width:{96 * each:.0f}px",
        )
        for svg in found
    )
    row = "display:flex;flex-wrap:wrap;align-items:flex-start;gap:4px"
    return Picture(alt, f'<div {label} style="{row}">{shown}</div>')


def _level(axes: Sequence[Axes]) -> None:
    """Titles of as many lines, so that axes side by side begin at one height."""
    titles = [ax.get_title("left") for ax in axes]
    most = max(title.count("\n") for title in titles)
    for ax, title in zip(axes, titles, strict=True):
        ax.set_title("\n" * (most - title.count("\n")) + title, loc="left")


def _svg(figure: Figure) -> str:
    FigureCanvasSVG(figure)
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True)
    return text.getvalue()


def _themed(svg: str, label: str, style: str) -> str:
    """The `<svg>` element alone, in the page's ink, at most as wide as it was drawn."""
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r"<style .*?</style>", "", svg, flags=re.S)  # it would style the whole page
    svg = svg.replace(INK, "currentColor")
    width = float(re.findall(r'width="([\d.]+)pt"', svg)[0]) * 96 / 72  # points to pixels
    head = f'<svg {label} stroke-linejoin="round" style="{style};height:auto" width="{width:.0f}" '
    svg = re.sub(r'(<svg[^>]*?) height="[\d.]+pt"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) width="[\d.]+pt"', r"\1", svg, count=1)
    return head + svg.removeprefix("<svg ")
