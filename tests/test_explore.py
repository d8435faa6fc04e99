"""Controls over a function: what they show, what they refuse, and their twin."""

import ipywidgets as w
import pytest

from labkit import widgets
from labkit.explore import Explorer, Menu, Real, Whole
from labkit.table import Table

CONTROLS = [
    Whole("rank", "rank r", 1, 64, value=8),
    Real("rate", "learning rate", 1e-5, 1e-1, value=1e-3, log=True),
    Real("share", "share", 0.0, 1.0, value=0.5),
    Menu("base", "base weights", [("bf16", 16.0), ("NF4", 4.127)], value=16.0),
]


def show(rank, rate, share, base):
    if rank > 60:
        raise ValueError(f"rank={rank} is above 60 <here>")
    return Table(
        ("rank", "rate", "share", "bits"), [(f"{rank}", f"{rate:g}", f"{share:g}", f"{base:g}")]
    )


def built():
    box = widgets.explorer(CONTROLS, Explorer(CONTROLS, show).html)
    return box.children[:-2], box.children[-2]  # what marks the keys comes last


def test_the_twin_shows_the_first_values_as_text_and_as_html():
    explorer = Explorer(CONTROLS, show)
    assert str(explorer) == str(show(8, 1e-3, 0.5, 16.0))
    assert explorer._repr_html_() == show(8, 1e-3, 0.5, 16.0)._repr_html_()
    assert explorer._repr_mimebundle_() == {}  # no kernel, no widget


def test_a_plain_result_is_escaped():
    assert Explorer([], lambda: "<b>")._repr_html_() == "<pre>&lt;b&gt;</pre>"


def test_each_control_moves_the_area():
    rows, area = built()
    fields = [row.children[0] for row in rows]
    for field, value, said in zip(
        fields, (32, 1e-2, 0.25, "NF4"), ("32", "0.01", "0.25", "4.127"), strict=True
    ):
        assert f">{said}<" not in area.value
        setattr(field, "label" if isinstance(value, str) else "value", value)
        assert f">{said}<" in area.value


def test_a_menu_may_hold_nothing_as_a_value_and_start_at_it():
    menu = Menu("stack", "stack", [("trl", "trl"), ("by hand", None), ("pair", ["a", "b"])], None)
    box = widgets.explorer([menu], Explorer([menu], lambda stack: repr(stack)).html)
    field, area = box.children[0].children[0], box.children[-2]
    assert field.label == "by hand" and "<pre>None</pre>" in area.value
    field.label = "pair"
    assert "[&#x27;a&#x27;, &#x27;b&#x27;]" in area.value


def test_a_question_as_a_label_is_not_cut():
    menu = Menu("serving", "How will it be served?", [("merged", 1)], 1)
    box = widgets.explorer([menu], Explorer([menu], lambda serving: "").html)
    field = box.children[0].children[0]
    assert field.description == menu.label
    assert (field.style.description_width, field.layout.flex_flow) == ("auto", "row wrap")


def test_the_keys_are_left_to_the_controls():
    box = widgets.explorer(CONTROLS, Explorer(CONTROLS, show).html)
    (shown,) = box.children[-1].outputs
    assert "data-lm-suppress-shortcuts" in shown["data"]["application/javascript"]


def test_a_slider_and_its_box_move_together_and_the_box_has_the_name():
    rows, _ = built()
    for row, control in zip(rows[:3], CONTROLS, strict=False):
        field, slider = row.children
        assert field.description == control.label
        slider.value = slider.max if isinstance(slider, w.IntSlider) else slider.value * 0.5
        assert field.value == pytest.approx(slider.value)
        field.value = control.high
        assert slider.value == pytest.approx(control.high)


def test_a_refused_value_says_why_in_the_area():
    rows, area = built()
    rows[0].children[0].value = 64
    assert 'role="alert"' in area.value and "rank=64 is above 60 &lt;here&gt;" in area.value
    rows[0].children[0].value = 8
    assert "alert" not in area.value


def test_an_error_of_another_kind_is_not_hidden():
    with pytest.raises(KeyError):
        Explorer([], lambda: {}["missing"]).html()


@pytest.mark.parametrize(
    "controls, told",
    [
        ([CONTROLS[0], CONTROLS[0]], "share a name"),
        ([Whole("r", "r", 1, 4, value=5)], "r=5 is none"),
        ([Menu("m", "m", [("a", 1)], value=2)], "m=2 is none"),
    ],
)
def test_controls_that_cannot_be_are_refused(controls, told):
    with pytest.raises(ValueError, match=told):
        Explorer(controls, show)
