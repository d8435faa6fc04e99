"""The pictures of notebook 02: they draw what they were given, and their titles are true."""

import pytest
from matplotlib.figure import Figure

from labkit.budget.groups import moments
from labkit.figures import picture
from labkit.figures.memory import STACK, errors, timeline
from labkit.memory import GIB, ModelShape, TrainingSetup, estimate

ONE = ModelShape.preset("llama-3.2-1b")


def axes():
    return Figure().add_subplot()


@pytest.mark.parametrize("stack", ["transformers+peft", "trl"])
def test_the_timeline_is_as_high_as_the_peak_and_names_its_phase(stack):
    found = estimate(ONE, TrainingSetup(stack=stack))
    ax = timeline(axes(), moments(found.phases), list(found.phases), "a step")
    top = max(vertex[1] for area in ax.collections for vertex in area.get_paths()[0].vertices)
    assert top == pytest.approx(found.peak / GIB)
    title = ax.get_title() or ax.get_title(loc="left")
    assert title == f"a step: {found.peak / GIB:.2f} GiB at the peak, in {found.phase}"
    assert [label.get_text() for label in ax.get_xticklabels()] == list(found.phases)
    assert len(ax.collections) == len(STACK) == len(ax.get_legend().get_texts())


def test_the_picture_of_errors_counts_from_its_numbers():
    ax = errors(axes(), {"ours": [0.97, 1.01, 1.02], "dry run": [1.0], "a rule": [0.1, 4.0]})
    assert ax.get_title() == "ours: at most 3% off; other rules: up to a factor of 10"
    dots = [line for line in ax.get_lines() if line.get_marker() == "o"]
    assert [list(line.get_xdata()) for line in dots] == [[0.97, 1.01, 1.02], [1.0], [0.1, 4.0]]
    assert [text.get_text() for text in ax.texts] == ["1.01", "1.00", "2.05"]
    assert ax.get_xscale() == "log"
    assert "1.01" in picture("dots", lambda ax: errors(ax, {"a": [1.01], "b": [2.0]})).svg


@pytest.mark.parametrize("values", [[], [0.0, 1.0], [-1.0]])
def test_a_ratio_is_above_nothing(values):
    with pytest.raises(ValueError, match="a rule: ratios must be above 0"):
        errors(axes(), {"ours": [1.0], "a rule": values})
