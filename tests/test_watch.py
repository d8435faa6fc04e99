"""A training run as it goes: lines, a bar on a terminal, a drawing in a notebook."""

import io
import itertools
import re
import sys
from html.parser import HTMLParser

import nbformat
import pytest
from nbclient import NotebookClient

from labkit import watch
from labkit.history import Step


def step(number, of=4, loss=2.5, seconds=3.0):
    return Step(number, of, loss, 1e-3, 64, seconds)


def elements(html):
    """The elements of a drawing by name, each with its attributes; refuses a lost end tag."""
    found, opened = {}, []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attributes):
            found[tag] = dict(attributes)
            opened.append(tag)

        def handle_startendtag(self, tag, attributes):
            found[tag] = dict(attributes)

        def handle_endtag(self, tag):
            assert opened.pop() == tag

    Reader().feed(html)
    assert not opened
    return found


# Without a terminal


@pytest.mark.parametrize(
    ("of", "numbers"),
    [
        (100, [*range(10, 101, 10)]),
        (4, [1, 2, 3, 4]),
        (25, [3, 6, 9, 12, 15, 18, 21, 24, 25]),
        (19, [2, 4, 6, 8, 10, 12, 14, 16, 18, 19]),
    ],
)
def test_a_run_into_a_file_prints_at_most_ten_lines_and_always_the_last(capsys, of, numbers):
    with watch.watch(of) as on_step:
        for number in range(1, of + 1):
            on_step(step(number, of, loss=1 / number))
    printed = capsys.readouterr()
    assert printed.err == ""
    lines = printed.out.splitlines()
    assert [int(line.split()[1]) for line in lines] == numbers
    assert lines[-1] == f"step {of:4d} of {of}  loss {1 / of:.4f}"


# On a terminal


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_gets_one_bar_with_the_steps_and_the_loss(monkeypatch, capsys):
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    with watch.watch(4) as on_step:
        for number in (1, 2, 3, 4):
            on_step(step(number, loss=number / 8))
    last = screen.getvalue().split("\r")[-1]
    assert "training: 100%" in last
    assert "4/4" in last
    assert "loss=0.5000" in last
    assert capsys.readouterr().out == ""


def test_the_bar_of_a_resumed_run_begins_where_the_run_does(monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    with watch.watch(4) as on_step:
        on_step(step(3))
    assert "3/4" in screen.getvalue().split("\r")[-1]


# In a notebook


def test_a_drawing_without_any_step_is_an_empty_bar():
    found = elements(watch.drawing([], 7))
    assert found["progress"] == {"value": "0", "max": "7", "aria-label": "training"}
    assert found["svg"]["aria-label"]
    assert "polyline" not in found
    assert "step 0 of 7, 0 s<" in watch.drawing([], 7)


def test_a_drawing_says_steps_loss_and_the_time_left():
    html = watch.drawing([step(1, loss=2.0), step(2, loss=1.25)], 4)
    found = elements(html)
    assert found["progress"]["value"] == "2"
    assert len(found["polyline"]["points"].split()) == 2
    assert "step 2 of 4, loss 1.2500, 6 s, 6 s to go" in html


def test_the_drawing_of_a_resumed_run_counts_the_steps_before_it():
    html = watch.drawing([step(9, of=10, seconds=2.0)], 10)
    assert elements(html)["progress"]["value"] == "9"
    assert "step 9 of 10, loss 2.5000, 2 s, 2 s to go" in html


def test_a_notebook_is_redrawn_four_times_a_second_at_most(monkeypatch):
    import IPython.display

    drawn, now = [], [0.0]

    class Handle:
        def update(self, html):
            drawn.append((now[0], html.data))

    monkeypatch.setattr(watch, "in_kernel", lambda: True)
    monkeypatch.setattr(watch.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(IPython.display, "display", lambda html, display_id: Handle())
    with watch.watch(40) as on_step:
        for number in range(1, 41):
            now[0] += 0.1
            on_step(step(number, 40))
    times = [at for at, _ in drawn[:-1]]
    assert 4 <= len(times) <= 4.0 * watch.REDRAW
    assert min(b - a for a, b in itertools.pairwise(times)) >= 1 / watch.REDRAW
    assert "step 40 of 40" in drawn[-1][1]


CELLS = {
    "whole": """\
from labkit.history import Step
from labkit.watch import watch
with watch(3) as on_step:
    for n in (1, 2, 3):
        on_step(Step(n, 3, 2.0 / n, 1e-3, 64, 0.01))""",
    "broken off": """\
with watch(9) as on_step:
    for n in (1, 2):
        on_step(Step(n, 9, 2.0 / n, 1e-3, 64, 0.01))
    raise KeyboardInterrupt""",
}


@pytest.fixture(scope="module")
def pages():
    """What each cell leaves on the page, run in a fresh kernel."""
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(code) for code in CELLS.values()]
    )
    NotebookClient(notebook, kernel_name="python3", timeout=120, allow_errors=True).execute()
    return dict(zip(CELLS, (cell.outputs for cell in notebook.cells), strict=True))


@pytest.mark.parametrize(
    ("cell", "value", "most", "points"), [("whole", "3", "3", 3), ("broken off", "2", "9", 2)]
)
def test_what_stays_on_the_page_is_the_curve_of_every_step(pages, cell, value, most, points):
    shown = [output for output in pages[cell] if output.output_type == "display_data"]
    assert len(shown) == 1
    found = elements(shown[0].data["text/html"])
    assert found["progress"] == {"value": value, "max": most, "aria-label": "training"}
    assert found["svg"]["role"] == "img"
    assert re.search(r"loss", found["svg"]["aria-label"])
    assert len(found["polyline"]["points"].split()) == points


def test_a_run_that_breaks_off_still_says_why(pages):
    assert [o.output_type for o in pages["whole"]] == ["display_data"]
    assert pages["broken off"][-1].ename == "KeyboardInterrupt"
