"""Bars as inline SVG, whose parts add up: they follow the theme and the width of their column.

    bars({"loss": {"weights": 3.0, "logits": 5.0}}, "alternative text")

Lengths are percentages of the column and letters keep their size, so a narrow column shortens the
bars and nothing else. Each part has its name and number in a `<title>`, shown under the mouse. The
parts also differ in grey, and the legend keeps the order of the bar.
"""

from collections.abc import Callable, Mapping
from html import escape

GIB = 2**30
# As in labkit.figures, which a browser without matplotlib cannot import; a test compares them.
COLOURS = ("#2f7fc1", "#2f9e77", "#e69f00", "#b0529c", "#9a9a9a")
ROW, BAR, LETTERS = 46, 20, 13  # pixels: height of a row, of its bar, of its text
ROOM = 0.98  # the longest bar ends here, so that its edge is seen


def number(n: float) -> str:
    """Bytes as a number of GiB, with as many digits as a reader needs."""
    value = n / GIB
    return f"{value:,.3f}" if abs(value) < 0.9995 else f"{value:,.2f}"


def gib(n: float) -> str:
    """Bytes as GiB with the unit."""
    return f"{number(n)} GiB"


def bars(
    rows: Mapping[str, Mapping[str, float]],
    alt: str,
    marked: str = "",
    unit: Callable[[float], str] = gib,
) -> str:
    """One bar a row, its parts in order; all rows on one scale.

    Args:
        rows: name of a row -> name of a part -> bytes.
        alt: what a reader who cannot see it has to know.
        marked: the row whose name is set bold.
        unit: a value as the reader sees it.
    """
    names = list(dict.fromkeys(name for parts in rows.values() for name in parts))
    colours = dict(zip(names, COLOURS * len(names), strict=False))
    longest = max((sum(parts.values()) for parts in rows.values()), default=0) or 1
    drawn = "".join(
        _row(place * ROW, name, parts, colours, 100 * ROOM / longest, unit, name == marked)
        for place, (name, parts) in enumerate(rows.items())
    )
    return (
        f'<svg role="img" aria-label="{escape(alt)}" width="100%" height="{ROW * len(rows)}" '
        f'style="max-width:720px;display:block" font-size="{LETTERS}" font-family="sans-serif">'
        f"{drawn}</svg>{legend(colours)}"
    )


def _row(
    top: int,
    name: str,
    parts: Mapping[str, float],
    colours: Mapping[str, str],
    scale: float,
    unit: Callable[[float], str],
    bold: bool,
) -> str:
    """The name and the sum of a row over its bar; `scale` is percent of the column a byte."""
    weight = ' font-weight="bold"' if bold else ""
    text = f'y="{top + LETTERS}" fill="currentColor"{weight}'
    said = f'<text x="0" {text}>{escape(name)}</text>'
    said += f'<text x="100%" {text} text-anchor="end">{unit(sum(parts.values()))}</text>'
    left = 0.0
    for part, value in parts.items():
        wide = scale * value
        if value:
            said += (
                f'<rect x="{left:.2f}%" y="{top + LETTERS + 6}" width="{wide:.2f}%" '
                f'height="{BAR}" fill="{colours[part]}">'
                f"<title>{escape(part)}: {unit(value)}</title></rect>"
            )
        left += wide
    return said


def legend(colours: Mapping[str, str]) -> str:
    """The parts with their colours, in the order of the bars."""
    items = "".join(
        f'<span style="white-space:nowrap;margin-right:1.2em"><span aria-hidden="true" style="'
        f"display:inline-block;width:0.9em;height:0.9em;background:{colour};margin-right:0.4em"
        f'"></span>{escape(name)}</span>'
        for name, colour in colours.items()
    )
    return f'<div style="font-size:{LETTERS}px">{items}</div>'
