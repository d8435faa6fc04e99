"""The quiz and the board: every choice has its reason, and the twins say the same."""

import asyncio
import re
import subprocess
import sys
from html import unescape

import nbformat
import pytest
from nbclient import NotebookClient

from labkit import project, widgets
from labkit.exercises import (
    Choice,
    Question,
    board,
    check,
    engine,
    exercises,
    overview,
    progress,
    questions,
    quiz,
)
from labkit.exercises.exercise import COLOURS
from labkit.exercises.overview import Board, Row, Section

EVERY = questions()
VIEW = "application/vnd.jupyter.widget-view+json"


def solved(out, in_, rank):
    return rank * (out + in_)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_HOME", str(tmp_path))
    monkeypatch.delenv("LABKIT_STRICT", raising=False)
    monkeypatch.delenv("LABKIT_FALLBACK", raising=False)


@pytest.fixture
def in_kernel(monkeypatch):
    """Let objects build their widgets as they do in a notebook; the list of those built."""
    built = []

    def shown(build):
        built.append(build())
        return {VIEW: {"model_id": built[-1].model_id}}

    monkeypatch.setattr(widgets, "shown", shown)
    return built


def read(html):
    """The text of some HTML, one line for each block."""
    blocks = re.sub(r"</(div|p)>|<(div|p)[ >]", lambda m: "\n" + m.group(), html)
    lines = unescape(re.sub(r"<[^>]*>", "", blocks)).splitlines()
    return [" ".join(line.split()) for line in lines if line.strip()]


def plain(text):
    return [line.strip().removeprefix("(").removesuffix(")") for line in text.splitlines()]


# --- quiz -------------------------------------------------------------------------------------


@pytest.mark.parametrize("question", EVERY, ids=lambda q: q.id)
def test_every_choice_has_a_reason_of_its_own_and_one_is_right(question):
    verdicts = [question.verdict(letter) for letter in question.letters]
    assert sorted(v.state for v in verdicts) == ["not yet"] * (len(verdicts) - 1) + ["passed"]
    assert len({v.message[3:] for v in verdicts}) == len(verdicts)
    assert min(len(v.message.split()) for v in verdicts) >= 6, "a reason is a sentence"


@pytest.mark.parametrize("question", EVERY, ids=lambda q: q.id)
def test_a_question_reads_the_same_as_text_html_and_widget(question, in_kernel):
    question._repr_mimebundle_()
    title, buttons, ask, reason, _ = in_kernel[0].children
    labels = [label for label, _ in buttons.options]
    shown = [*read(title.value), *labels, *read(ask.value)]
    assert plain("\n".join(shown)) == plain(str(question))
    assert plain("\n".join(read(question._repr_html_()))) == plain(str(question))
    assert (buttons.value, reason.value) == (None, "")


@pytest.mark.parametrize("question", EVERY, ids=lambda q: q.id)
def test_the_buttons_show_the_reason_of_the_chosen_letter(question, in_kernel):
    question._repr_mimebundle_()
    _, buttons, _, reason, _ = in_kernel[0].children
    for letter in question.letters:
        buttons.value = letter
        assert read(reason.value) == [str(question.verdict(letter))]
    assert progress.load().state(question.id) == "passed"


@pytest.mark.parametrize("question", EVERY, ids=lambda q: q.id)
def test_a_label_fits_beside_its_button(question):
    assert max(map(len, question.labels().values())) <= 80


def test_an_answer_from_python_is_recorded():
    assert quiz("00.q1").answer("a").state == "not yet"
    assert progress.load().state("00.q1") == "not yet"
    verdict = quiz("00.q1").answer(" C ")
    assert str(verdict).startswith("00.q1 passed: c) The model in this repository")
    assert progress.load().state("00.q1") == "passed"


def test_an_unknown_choice_or_question_is_answered_with_those_that_exist():
    with pytest.raises(project.LabkitError, match=r'00\.q1 has no choice "e"; answer a, b, c'):
        quiz("00.q1").answer("e")
    with pytest.raises(project.LabkitError, match=r'no question "00\.q9"; there are 00\.q1, 00'):
        quiz("00.q9")


CHOICES = (Choice("yes", "because", right=True), Choice("no", "since"))


@pytest.mark.parametrize(
    ("id", "choices", "message"),
    [
        ("0.q1", CHOICES, "question id '0.q1'"),
        ("00.q1", CHOICES[1:], "00.q1: 0 choices are right; exactly one must be"),
        ("00.q1", CHOICES[:1] * 2, "00.q1: 2 choices are right"),
        ("00.q1", (*CHOICES, Choice("perhaps", " ")), "00.q1: a choice has no reason"),
    ],
)
def test_a_question_out_of_order_is_refused(id, choices, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        Question(id, "Is it?", choices)


# --- board ------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", engine.notebooks())
def test_the_board_lists_every_exercise_and_question_of_the_module(number):
    want = [
        (e.id, f"{e.title} ({e.minutes} min, difficulty {e.difficulty} of 5)")
        for e in exercises(number)
    ]
    want += [(q.id, q.text) for q in questions(number)]
    title, items = overview.outline(overview.source(number))
    assert sorted(items) == sorted(want)
    assert title == engine.module(number).TITLE
    lines = str(board()).splitlines()
    assert all(f"  [ ] {id} {headline}" in lines for id, headline in want)
    assert re.fullmatch(r"Progress: 0 of \d+ passed", lines[0])


def test_the_board_opens_without_the_heavy_libraries():
    code = (
        "import sys; sys.modules.update(torch=None, numpy=None, transformers=None, peft=None);"
        "from labkit.exercises import board; print(board())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == f"{board()}\n", done.stderr


def test_the_board_reads_the_same_as_text_html_and_widget(in_kernel):
    check("00.1", solved)
    quiz("00.q1").answer("a")
    board()._repr_mimebundle_()
    shown, text = board(), plain(str(board()))
    assert "[x] 00.1 count what LoRA trains (5 min, difficulty 1 of 5" in text
    assert "[~] 00.q1 Do you need a big GPU to start?" in text
    assert plain("\n".join(read(shown._repr_html_()))) == text
    assert plain("\n".join(read(in_kernel[0].value))) == text


def test_the_open_board_moves_when_a_check_passes(in_kernel):
    board()._repr_mimebundle_()
    before = in_kernel[0].value
    check("00.1", solved)
    assert in_kernel[0].value != before
    assert "[x] 00.1" in " ".join(read(in_kernel[0].value))


def test_a_board_shown_again_leaves_nothing_running_behind(in_kernel):
    listening = len(progress._listeners)
    for _ in range(3):
        board()._repr_mimebundle_()
    assert len(progress._listeners) <= listening + 1
    check("00.1", solved)
    assert "[x] 00.1" not in " ".join(read(in_kernel[0].value))
    assert "[x] 00.1" in " ".join(read(in_kernel[-1].value))


def test_the_open_board_moves_when_another_notebook_passes_a_check(in_kernel, monkeypatch):
    monkeypatch.setattr(widgets, "LOOK_EVERY", 0.01)

    async def session():
        board()._repr_mimebundle_()
        code = "from labkit.exercises import progress; progress.record('00.1', 'passed')"
        subprocess.run([sys.executable, "-c", code], check=True)
        for _ in range(100):
            await asyncio.sleep(0.02)
            if "[x] 00.1" in " ".join(read(in_kernel[0].value)):
                return True
        return False

    assert asyncio.run(session())


def test_a_bar_is_as_long_as_its_share_and_says_so():
    rows = tuple(Row(f"00.{n}", "t", "passed" if n < 2 else "not tried") for n in range(1, 4))
    html = Board((Section("00 Start", rows),))._repr_html_()
    assert 'role="img" aria-label="00 Start: 1 of 3"' in html
    assert 'width="80"' in html  # a third of 240 pixels


def test_text_on_the_board_is_escaped():
    html = Board((Section("<b>", (Row("00.1", "a < b & c", "passed"),)),), "<i>")._repr_html_()
    assert "a &lt; b &amp; c" in html
    assert "<b>" not in html
    assert "<i>" not in html


def test_every_colour_follows_the_theme_and_has_a_fallback():
    html = board()._repr_html_() + quiz("00.q1").answer("c")._repr_html_()
    colours = re.findall(r"(?:color|fill|solid)[: ]\s*([^;\"]+)", html)
    assert len(colours) > 5
    assert all(re.fullmatch(r"inherit|var\(--jp-[\w-]+, .+\)", c) for c in colours)
    assert set(COLOURS.values()) & set(colours)


def test_outside_a_kernel_no_widget_is_built():
    assert board()._repr_mimebundle_() == {}
    assert quiz("00.q1")._repr_mimebundle_() == {}


# --- a real kernel ----------------------------------------------------------------------------

CELLS = [
    "from labkit.exercises import board, check, quiz\nboard()",
    'quiz("00.q1")',
    'check("00.1", lambda out, in_, rank: rank * (out + in_))',
    "board()",
]


def test_in_a_kernel_widget_html_and_text_stand_side_by_side():
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in CELLS])
    NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    first, asked, verdict, last = (cell.outputs[0].data for cell in notebook.cells)
    for shown in (first, asked, last):
        assert {"text/plain", "text/html", VIEW} <= set(shown)
    assert "[ ] 00.1" in first["text/plain"]
    assert "[x] 00.1" in last["text/plain"]
    assert verdict["text/plain"].startswith("00.1 passed")
    state = notebook.metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"]
    opened = state[first[VIEW]["model_id"]]["state"]
    assert "[x]" in opened["value"], "the board that was already open must have moved"
