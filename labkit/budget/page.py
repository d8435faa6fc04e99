"""The pieces of a calculator's page: tables and code that scroll in a narrow column."""

from html import escape

from labkit.table import Table


def section(title: str, table: Table) -> str:
    """A table under its title; what is wider than the column scrolls inside its own box."""
    box = f'<div style="overflow-x:auto" tabindex="0" role="region" aria-label="{escape(title)}">'
    return f"<p><strong>{escape(title)}</strong></p>{box}{table._repr_html_()}</div>"


def listing(title: str, code: str) -> str:
    """Code to copy: one click selects all of it."""
    style = "user-select:all;overflow-x:auto;white-space:pre;line-height:1.3;padding:4px"
    label = f'tabindex="0" role="region" aria-label="{escape(title)}"'
    return (
        f'<p><strong>{escape(title)}</strong></p><pre {label} style="{style}">{escape(code)}</pre>'
    )
