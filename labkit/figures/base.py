"""A picture as inline SVG that follows JupyterLab's theme, and what all pictures share.

    picture("what it shows", lambda ax: spectrum(ax, values), lambda ax: ...)

matplotlib draws on a transparent ground. What it drew in INK becomes `currentColor`, so axes and
text are dark on a light page and light on a dark one. Text stays text: it can be searched and
scales with the page. The same numbers give the same bytes.
"""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from html import escape

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

INK = "#1a2b3d"  # stands for the page's own text colour; drawn in nothing else
# Apart in hue and in grey, and readable on white and on JupyterLab's dark ground alike.
BLUE, ORANGE, GREEN, GREY = "#2f7fc1", "#e69f00", "#2f9e77", "#9a9a9a"

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
    """An SVG and the text in its place."""

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
    """Side by side, each drawing on an Axes of its own.

    Args:
        alt: what a reader who cannot see it has to know: the finding, with its numbers.
        width, height: in inches of 72 points; width 0 stands for 4.6 a drawing, at least 6.4.

    Raises:
        ValueError: if there is no text or no drawing.
    """
    if not alt.strip() or not drawings:
        raise ValueError("a picture needs a text in its place and at least one drawing")
    with rc_context(STYLE):
        figure = Figure((width or max(6.4, 4.6 * len(drawings)), height), layout="constrained")
        FigureCanvasSVG(figure)
        for number, draw in enumerate(drawings, 1):
            draw(figure.add_subplot(1, len(drawings), number))
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True)
    return Picture(alt, _themed(text.getvalue(), alt))


def _themed(svg: str, alt: str) -> str:
    """The `<svg>` element alone, in the page's ink, as wide as its column allows."""
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r"<style .*?</style>", "", svg, flags=re.S)  # it would style the whole page
    svg = svg.replace(INK, "currentColor")
    width = float(re.findall(r'width="([\d.]+)pt"', svg)[0]) * 96 / 72  # points to pixels
    head = (
        f'<svg role="img" aria-label="{escape(alt)}" stroke-linejoin="round" '
        f'style="max-width:100%;height:auto" width="{width:.0f}" '
    )
    svg = re.sub(r'(<svg[^>]*?) height="[\d.]+pt"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) width="[\d.]+pt"', r"\1", svg, count=1)
    return head + svg.removeprefix("<svg ")
