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


def test_several_drawings_stand_side_by_side_and_wrap_under_one_text():
    row = ElementTree.fromstring(picture("a & b", line, bars, width=10)._repr_html_())
    assert (row.tag, row.get("role"), row.get("aria-label")) == ("div", "img", "a & b")
    assert "flex-wrap:wrap" in row.get("style")
    assert [panel.get("width") for panel in row] == ["480", "480"]
    for panel in row:
        assert panel.get("aria-hidden") == "true" and panel.get("aria-label") is None
        assert "flex:1 1 336px" in panel.get("style")


def test_panels_begin_at_one_height_though_one_title_has_more_lines():
    svg = picture("a", line, lambda ax: ax.set_title("first\nsecond")).svg
    frames = re.findall(r'id="patch_2".*?d="(.*?)"', svg, re.S)  # M x y L x y, around the axes
    tops = [min(float(pair.split()[1]) for pair in re.split("[ML]", d)[1:]) for d in frames]
    assert len(tops) == 2
    assert tops[0] == pytest.approx(tops[1], abs=1)


@pytest.mark.parametrize("alt, drawings", [("", [line]), (" ", [line]), ("a", [])])
def test_a_picture_without_text_or_drawing_is_refused(alt, drawings):
    with pytest.raises(ValueError, match="needs a text in its place"):
        picture(alt, *drawings)
