"""What a learner sees and does: notebooks 00 and 04 in a real JupyterLab and Chromium.

LABKIT_BROWSER=required makes a missing Chromium a failure. LABKIT_SCREENSHOTS=folder keeps
pictures of both notebooks in both themes.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from browser import Lab, browser, find_chromium, server

from labkit.exercises import ex00, progress, questions, quiz

pytestmark = [pytest.mark.browser, pytest.mark.slow]

OUTPUT = ".jp-OutputArea-output"
MOVES = 10_000  # milliseconds that a widget may take to follow, on a busy machine
BADGES = ("/colab-badge.svg", "/badge_logo.svg")
TEXT = 4.5  # contrast that WCAG 2.2, 1.4.3, asks of text
STUB = "def pair_size(out_features"
# Screenshots: what each shows, and a piece of the code cell that it is scrolled to.
SHOTS = {
    "00": {
        "doctor": "doctor.report()",
        "answers": "evaluate.answers(",
        "exercise": STUB,
        "quiz": 'quiz("00.q1")',
        "board": "board()",
    },
    "04": {
        "bytes": "models.load(quantize=None)",
        "quiz": 'quiz("04.q3")',
        "curve": "with watch(STEPS)",
        "trl": "SFTConfig(",
        "before_after": "skills_before = evaluate",
        "card": "adapters.card(",
        "measured": "measure.measured()",
    },
}


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A server and a browser for all tests here."""
    if find_chromium() is None:
        say = "no Chromium or Chrome on this machine: install one, or name it in LABKIT_CHROMIUM"
        pytest.fail(say) if os.environ.get("LABKIT_BROWSER") == "required" else pytest.skip(say)
    with server(tmp_path_factory.mktemp("lab")) as place, browser() as chromium:
        yield chromium, place


@pytest.fixture(scope="module")
def ran_00(desk):
    lab = Lab(*desk)
    lab.open("00_start_here.ipynb")
    # Without a look at the file every two seconds, only what happens here can move the board.
    lab.in_kernel("import labkit.widgets as _w; _often, _w.LOOK_EVERY = _w.LOOK_EVERY, 3600.0")
    lab.run_all(90)
    return lab


@pytest.fixture(scope="module")
def ran_04(desk):
    lab = Lab(*desk)
    lab.open("04_qlora_finetune.ipynb")
    lab.run_all(400)
    return lab


@pytest.fixture
def start(ran_00):
    """Notebook 00 after a run, with nothing solved yet, whatever other tests did."""
    (ran_00.place.home / progress.FILE).unlink(missing_ok=True)
    ran_00.run("board()")
    says(ran_00, passed=0)
    return ran_00


def said(element):
    """Its text, also where it is scrolled out of view and so never laid out."""
    return " ".join(element.text_content().split())


def headline(lab):
    return lab.cell("board()").locator(".labkit-board strong")


def says(lab, passed):
    """Wait until the board says so many are passed."""
    sentence = re.compile(rf"Progress: {passed} of \d+ passed")
    headline(lab).filter(has_text=sentence).wait_for(timeout=MOVES)


def choose(lab, id, text):
    """Click the choice with that text as a learner does; what then stands under the question."""
    box = lab.page.locator(".widget-vbox").filter(has_text=f"Question {id}:")
    box.get_by_role("radio", name=text).click()
    letter = next(letter for letter, label in quiz(id).labels().items() if text in label)
    verdict = box.locator("[role=status]").filter(has_text=f": {letter})")
    verdict.wait_for(timeout=MOVES)
    return said(verdict)


def solve(lab, source):
    """Write an answer to exercise 00.1, run it and its check; the verdict."""
    lab.write("def pair_size", source)
    lab.run("def pair_size")
    return said(lab.run('check("00.1"').locator("[role=status]"))


@pytest.fixture
def stub(start):
    """Puts the stub of exercise 00.1 back after a test."""
    index = start.find(STUB)
    before = "".join(start.cells()[index]["source"])
    yield start
    start.write("def pair_size", before)


# --- Notebook 00 ------------------------------------------------------------------------------


def test_notebook_00_runs_to_its_end_and_the_board_begins_at_nothing(start):
    assert start.errors() == []
    assert start.noise() == []
    assert said(headline(start)).startswith("Progress: 0 of ")


def test_the_right_choice_gives_its_reason_and_moves_the_board_of_this_notebook(start):
    verdict = choose(start, "00.q1", "No, a laptop CPU will do")
    assert verdict == str(quiz("00.q1").verdict("c"))
    says(start, passed=1)


def test_a_wrong_choice_says_not_yet_with_its_reason_and_leaves_the_board(start):
    verdict = choose(start, "00.q2", "Your answer is wrong")
    assert verdict == str(quiz("00.q2").verdict("a"))
    assert verdict.startswith("00.q2 not yet: a)")
    row = start.cell("board()").get_by_text("[~] 00.q2")
    row.wait_for(timeout=MOVES)
    assert said(headline(start)).startswith("Progress: 0 of ")


def test_a_slip_is_named_and_the_right_code_then_passes_and_moves_the_board(stub):
    slip = ex00.EXERCISES[0].wrong[0]
    verdict = solve(stub, slip.answer)
    assert verdict.startswith("00.1 not yet: ") and slip.message in verdict
    says(stub, passed=0)
    verdict = solve(stub, "def pair_size(out, in_, rank):\n    return rank * in_ + out * rank\n")
    assert verdict.startswith("00.1 passed: ")
    says(stub, passed=1)


def test_the_board_follows_what_another_process_records(start):
    start.in_kernel("_w.LOOK_EVERY = _often")
    start.run("board()")
    record = "from labkit.exercises import progress; progress.record('00.q2', 'passed')"
    env = os.environ | {"LABKIT_HOME": str(start.place.home)}
    subprocess.run([sys.executable, "-c", record], env=env, check=True)
    says(start, passed=1)
    start.in_kernel("_w.LOOK_EVERY = 3600.0")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_board_quiz_and_verdict_are_readable(start, theme):
    choose(start, "00.q1", "Yes, 24 GB or more")
    start.theme(theme)
    quizzes = f".jp-Cell:has(input[type=radio]) {OUTPUT}"
    measured = start.contrast(f".labkit-board, {quizzes}, {OUTPUT} [role=status]")
    assert len(measured) > 20
    assert [pair for pair in measured if pair[0] < TEXT] == []


def test_every_radio_button_has_the_name_of_its_choice(start):
    page, names = (
        start.page,
        [label for question in questions("00") for label in question.labels().values()],
    )
    assert page.locator("input[type=radio]").count() == len(names)
    for name in names:
        assert page.get_by_role("radio", name=name, exact=True).count() == 1


def test_the_keys_belong_to_a_question_that_has_the_focus(start):
    """JupyterLab's own would move to another cell, insert one and make it Markdown."""
    choose(start, "00.q1", "Yes, 24 GB or more")
    cells, box = len(start.cells()), start.page.locator(".widget-vbox")
    for key in ("ArrowDown", "b", "m"):
        start.page.keyboard.press(key)
    moved = box.filter(has_text="Question 00.q1:").locator("[role=status]").filter(has_text=": b)")
    moved.wait_for(timeout=MOVES)
    assert len(start.cells()) == cells


# --- Notebook 04 ------------------------------------------------------------------------------


def test_notebook_04_runs_to_its_end(ran_04):
    assert ran_04.errors() == []
    assert ran_04.noise() == []


def test_the_live_curve_of_notebook_04_is_drawn_to_its_end(ran_04):
    cell = ran_04.cell("with watch(STEPS)")
    curve = cell.locator('svg[role=img][aria-label^="loss"]')
    assert curve.count() == 1
    steps = len(curve.locator("polyline").get_attribute("points").split())
    bar = cell.locator("progress")
    assert bar.evaluate("bar => [bar.value, bar.max, bar.position]") == [steps, steps, 1]
    assert steps > 1 and f"step {steps} of {steps}," in said(cell)


# --- Both -------------------------------------------------------------------------------------


def test_every_picture_in_an_output_has_a_text(ran_00, ran_04):
    pictures = []
    for lab in (ran_00, ran_04):
        found = lab.page.locator(f"{OUTPUT} img, {OUTPUT} svg[role=img]")
        pictures += found.evaluate_all(
            "all => all.map(one => [one.outerHTML.slice(0, 80),"
            " one.getAttribute(one.tagName === 'IMG' ? 'alt' : 'aria-label')])"
        )
    assert len(pictures) >= 3, "the board's bars and the curve"
    assert [html for html, text in pictures if not (text or "").strip()] == []


def test_the_console_has_no_error_and_only_badges_come_from_elsewhere(ran_00, ran_04):
    for lab in (ran_00, ran_04):
        assert lab.console == []
        assert [url for url in lab.asked if not url.endswith(BADGES)] == []


@pytest.mark.skipif("LABKIT_SCREENSHOTS" not in os.environ, reason="LABKIT_SCREENSHOTS is not set")
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_screenshots(start, ran_04, theme):
    folder = Path(os.environ["LABKIT_SCREENSHOTS"])
    folder.mkdir(parents=True, exist_ok=True)
    for number, lab in {"00": start, "04": ran_04}.items():
        lab.theme(theme)
        for name, text in {"top": None, **SHOTS[number]}.items():
            lab.screenshot(folder / f"{number}_{name}_{theme}.png", text)
