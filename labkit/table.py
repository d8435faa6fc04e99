"""A table that shows itself as text and as HTML."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape


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
        left = 'style="text-align:left;vertical-align:top"'
        head = "".join(f'<th scope="col" {left}>{escape(cell)}</th>' for cell in self.head)
        rows = "".join(
            f'<tr><th scope="row" {left}>{escape(name)}</th>'
            + "".join(f"<td {left}>{escape(cell)}</td>" for cell in cells)
            + "</tr>"
            for name, *cells in self.rows
        )
        caption = f"<caption>{escape(self.caption)}</caption>" if self.caption else ""
        return f"<table>{caption}<tr>{head}</tr>{rows}</table>"
