"""A table as text and as HTML."""

import re
from html.parser import HTMLParser

import pytest

from labkit.table import Table

ODD = '<b>&"'


class Cells(HTMLParser):
    """The text of each cell and of the caption, as a browser would read it."""

    def __init__(self, html):
        super().__init__()
        self.open, self.found = [], []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.open.append((tag, dict(attributes)))
        if tag in ("th", "td", "p"):
            self.found.append((tag, dict(attributes).get("scope"), ""))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        tag, scope, text = self.found.pop()
        self.found.append((tag, scope, text + data))


def test_text_is_escaped_wherever_it_stands():
    html = Table(("", ODD), [(ODD, f"{ODD} cell")], ODD)._repr_html_()
    cells = Cells(html)
    assert cells.open == []
    assert cells.found == [
        ("p", None, ODD),
        ("th", "col", ""),
        ("th", "col", ODD),
        ("th", "row", ODD),
        ("td", None, f"{ODD} cell"),
    ]


def test_a_table_without_a_caption_has_none():
    table = Table(("a", "b"), [("1", "2")])
    assert "<p>" not in table._repr_html_()
    assert str(table) == "a  b\n1  2"


def test_the_columns_of_the_text_stand_under_each_other():
    table = Table(("", "bytes"), [("weights", "12"), ("all", "3,456")], "measured here")
    assert str(table).splitlines() == [
        "measured here",
        "         bytes",
        "weights  12",
        "all      3,456",
    ]
    assert repr(table) == str(table)


@pytest.mark.parametrize("row", [("one",), ("one", "two", "three"), ()])
def test_an_uneven_row_is_refused(row):
    with pytest.raises(ValueError, match=rf"a row of {len(row)} cells under 2 columns"):
        Table(("a", "b"), [("fine", "row"), row])


def test_numbers_stand_on_the_right_and_text_on_the_left():
    html = Table(("row", "n"), [("a", "1,024"), ("b", "-0.5"), ("c", "12 %"), ("d", "3 of 4")])
    sides = re.findall(r"<td style=.text-align:(\w+)", html._repr_html_())
    assert sides == ["right", "right", "right", "left"]
