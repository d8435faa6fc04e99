"""The training calculator of notebook 02 in a real JupyterLab: dragged, typed at, and read.

What the page then says is compared with `labkit.memory.estimate` for the values on the page.
LABKIT_SCREENSHOTS=folder keeps pictures of the calculators in both themes.
"""

import os
from pathlib import Path

import pytest
from browser import CONTRAST, Lab, browser, find_chromium, server

from labkit.budget.training import training

pytestmark = [pytest.mark.browser, pytest.mark.slow]

OUTPUT = ".jp-OutputArea-output"
CELL = "training.explorer()"
QUIET = 10  # tenths of a second without a change
MOVES = 10_000  # milliseconds that a page may take to follow, on a busy machine
TEXT = 4.5  # contrast that WCAG 2.2, 1.4.3, asks of text
NARROW = {"width": 620, "height": 900}
SHOTS = {
    "parameters": "counting.explorer()",
    "timeline": "draw.timeline,",
    "training": CELL,
    "serving": "serving.explorer()",
    "cost": "pricing.explorer()",
    "errors": "draw.errors(",
}


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Notebook 02 in a browser, run to its end."""
    if find_chromium() is None:
        say = "no Chromium or Chrome on this machine: install one, or name it in LABKIT_CHROMIUM"
        pytest.fail(say) if os.environ.get("LABKIT_BROWSER") == "required" else pytest.skip(say)
    with server(tmp_path_factory.mktemp("lab")) as place, browser() as chromium:
        lab = Lab(chromium, place)
        lab.open("02_where_memory_goes.ipynb")
        lab.run_all(240)
        yield lab


@pytest.fixture
def calculator(lab):
    """The cell of the training calculator, made anew: every control at its first value."""
    cell = lab.run(CELL)
    cell.locator("[role=status]").wait_for(timeout=MOVES)
    return cell


def says(cell, **values):
    """Wait until the page says what the estimate says for these values."""
    wanted = training(**values)
    status = cell.locator("[role=status]").filter(has_text=wanted.headline)
    status.wait_for(timeout=MOVES)
    return wanted


def number(cell, label):
    """The box for a number with that label."""
    return cell.get_by_label(label, exact=True)


def drag(cell, label, share):
    """Drag the handle of the slider beside a box along its track, as a mouse does."""
    page, row = cell.page, number(cell, label).locator("xpath=ancestor::*[.//*[@role='slider']][1]")
    row.scroll_into_view_if_needed()
    handle = row.locator(".noUi-handle").bounding_box()
    track = row.locator(".noUi-base").bounding_box()
    page.mouse.move(handle["x"] + handle["width"] / 2, handle["y"] + handle["height"] / 2)
    page.mouse.down()
    for part in (0.5 * share, share):
        page.mouse.move(track["x"] + part * track["width"], track["y"] + track["height"] / 2)
    page.mouse.up()
    return settled(number(cell, label))


def settled(box):
    """The number in a box once it has stopped moving: box and slider meet in the kernel."""
    seen, quiet = box.input_value(), 0
    while quiet < QUIET:
        box.page.wait_for_timeout(100)
        now = box.input_value()
        seen, quiet = now, quiet + 1 if now == seen else 0
    return int(seen)


def test_notebook_02_runs_to_its_end(lab):
    assert lab.errors() == []
    assert lab.noise() == []
    assert lab.console == []


def test_it_opens_with_the_estimate_of_the_lessons_setting(calculator):
    says(calculator)


def test_dragging_rank_and_sequence_moves_the_total(calculator):
    before = says(calculator).breakdown.peak
    rank = drag(calculator, "rank", 0.5)
    assert 100 < rank < 160
    says(calculator, rank=rank)
    length = drag(calculator, "sequence, tokens", 0.25)
    assert 6_000 < length < 10_500 and length % 128 == 0
    wanted = says(calculator, rank=rank, seq_len=length)
    assert wanted.breakdown.peak > 2 * before
    label = calculator.locator("svg[role=img]").first.get_attribute("aria-label")
    assert label.endswith(f"{wanted.headline}.")


def test_it_works_with_the_keyboard_alone(lab, calculator):
    box = number(calculator, "rank")
    box.focus()
    for key in ("ControlOrMeta+a", "6", "4", "Tab"):
        calculator.page.keyboard.press(key)
    says(calculator, rank=64)
    menu, cells = number(calculator, "stack"), len(lab.cells())
    menu.focus()
    for _ in range(2):
        calculator.page.keyboard.press("ArrowDown")
    says(calculator, rank=64, stack="trl")
    for key in "bm":  # JupyterLab's own: insert a cell, make it Markdown
        calculator.page.keyboard.press(key)
    says(calculator, rank=64)  # the menu took "b" for "by hand"
    assert len(lab.cells()) == cells
    handle = calculator.locator("[role=slider]").first
    handle.focus()
    calculator.page.keyboard.press("ArrowRight")
    says(calculator, rank=65)


def test_what_cannot_be_is_said_in_a_sentence(calculator):
    number(calculator, "model").select_option("tiny")
    number(calculator, "sequence, tokens").fill("4096")
    calculator.page.keyboard.press("Tab")
    alert = calculator.locator("[role=alert]")
    alert.wait_for(timeout=MOVES)
    assert alert.text_content().startswith("seq_len=4096: ")
    number(calculator, "sequence, tokens").fill("512")
    calculator.page.keyboard.press("Tab")
    says(calculator, model="tiny", seq_len=512)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_calculators_are_readable_in_both_themes(lab, calculator, theme):
    lab.theme(theme)
    for text in (CELL, "serving.explorer()", "counting.explorer()", "pricing.explorer()"):
        cell = lab.cell(text)
        cell.scroll_into_view_if_needed()
        found = cell.locator(f"{OUTPUT} .widget-html").evaluate_all(CONTRAST)
        assert len(found) > 10, text
        assert [pair for pair in found if pair[0] < TEXT] == [], text


def test_it_fits_a_narrow_column(lab, calculator):
    lab.page.set_viewport_size(NARROW)
    calculator.scroll_into_view_if_needed()
    wide = calculator.locator(f"{OUTPUT} .widget-html").last
    room, needs = wide.evaluate("box => [box.clientWidth, box.scrollWidth]")
    lab.page.set_viewport_size({"width": 1280, "height": 900})
    assert needs <= room + 1


def test_every_control_has_a_name(calculator):
    fields = calculator.locator(f"{OUTPUT} input:visible, {OUTPUT} select:visible")
    names = fields.evaluate_all("all => all.map(one => (one.labels[0]?.innerText ?? '').trim())")
    assert len(names) == 16 and all(names)


@pytest.mark.skipif("LABKIT_SCREENSHOTS" not in os.environ, reason="LABKIT_SCREENSHOTS is not set")
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_screenshots(lab, theme):
    folder = Path(os.environ["LABKIT_SCREENSHOTS"])
    folder.mkdir(parents=True, exist_ok=True)
    lab.theme(theme)
    for name, text in SHOTS.items():
        lab.screenshot(folder / f"02_{name}_{theme}.png", text)
