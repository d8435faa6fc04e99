"""A picture follows the theme, says what it shows, and is the same every time."""

import re
from xml.etree import ElementTree

import pytest

from labkit.figures import BLUE, INK, ORANGE, picture


def line(ax):
    ax.plot([1, 2, 3], [1.0, 4.0, 9.0], color=BLUE, marker="o")
    ax.set(title="Squares & their like", xlabel="n", ylabel="n x n")


def bars(ax):
    ax.bar([0, 1], [3, 5], color=ORANGE)


def test_a_picture_is_one_svg_with_its_text():
    made = picture('it rises from 1 to 9, "fast"', line)
    root = ElementTree.fromstring(made._repr_html_())
    assert root.get("aria-label") == 'it rises from 1 to 9, "fast"'
    assert root.get("role") == "img"
    assert str(made) == 'picture: it rises from 1 to 9, "fast"'
    assert "Squares &amp; their like" in made.svg  # text stays text


def test_axes_and_text_take_the_ink_of_the_page_and_series_keep_their_colour():
    svg = picture("a", line).svg
    assert INK not in svg
    assert BLUE in svg
    assert not re.search(r"#(000000|ffffff)", svg), "black or white would vanish in one theme"
    assert "fill: currentColor" in svg and "stroke: currentColor" in svg


def test_nothing_leaks_into_the_page():
    svg = picture("a", line).svg
    assert "<style" not in svg and "<metadata" not in svg and "<?xml" not in svg


def test_it_shrinks_with_a_narrow_column():
    root = ElementTree.fromstring(picture("a", line).svg)
    assert "max-width:100%" in root.get("style") and root.get("height") is None
    assert float(root.get("width")) == pytest.approx(
        float(root.get("viewBox").split()[2]) / 0.75, abs=1
    )


def test_the_same_numbers_give_the_same_bytes():
    assert picture("a", line, bars).svg == picture("a", line, bars).svg


def test_several_drawings_stand_side_by_side():
    one, two = (
        float(ElementTree.fromstring(picture("a", *d).svg).get("width"))
        for d in ([line], [line, bars])
    )
    assert two > one


@pytest.mark.parametrize("alt, drawings", [("", [line]), (" ", [line]), ("a", [])])
def test_a_picture_without_text_or_drawing_is_refused(alt, drawings):
    with pytest.raises(ValueError, match="needs a text in its place"):
        picture(alt, *drawings)
