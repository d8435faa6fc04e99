"""A table that shows itself as text and as HTML."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

NUMBER = re.compile(r"[-+]?[\d,]*\.?\d+ ?%?")
ROW = ' scope="row"'


@dataclass(frozen=True)
class Table:
    """A header and rows of text, each as long as the header; the first column names the row."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.head):
                raise ValueError(f"a row of {len(row)} cells under {len(self.head)} columns: {row}")

    def __str__(self) -> str:
        lines = [list(self.head), *(list(row) for row in self.rows)]
        wide = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
        texts = ["  ".join(c.ljust(w) for c, w in zip(line, wide, strict=True)) for line in lines]
        return "\n".join([*([self.caption] if self.caption else []), *(t.rstrip() for t in texts)])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        head = "".join(_cell("th", name, ' scope="col"') for name in self.head)
        rows = "".join(
            f"<tr>{_cell('th', name, ROW)}{''.join(_cell('td', cell) for cell in cells)}</tr>"
            for name, *cells in self.rows
        )
        caption = f"<p>{escape(self.caption)}</p>" if self.caption else ""
        return f"{caption}<table><tr>{head}</tr>{rows}</table>"


def _cell(tag: str, text: str, more: str = "") -> str:
    """A cell: numbers end in one line on the right, text begins on the left."""
    side = "right" if NUMBER.fullmatch(text) else "left"
    weight = ";font-weight:normal" if more == ROW else ""
    style = f"text-align:{side};vertical-align:top;white-space:pre-line;padding:1px 8px{weight}"
    return f'<{tag}{more} style="{style}">{escape(text)}</{tag}>'
