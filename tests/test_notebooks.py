"""The notebooks: their form, that they are what their sources give, and that they run.

Run means a fresh kernel under nbval. The solved notebooks run in full and in strict mode, the
learner's with fewer training steps; and once without the library's fallback, where exactly the
check cells may fail, each with a sentence.
"""

import os
import re
import statistics
import subprocess
import sys
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import pytest

from labkit import build, exercises

FOLDER = Path(__file__).parents[1] / "notebooks"
NAMES = [path.stem for path in build.sources()]
LEARNER = {name: FOLDER / f"{name}.ipynb" for name in NAMES}
SOLVED = {name: FOLDER / "solutions" / f"{name}.ipynb" for name in NAMES}
EVERY = {f"{name}{kind}": path for kind, paths in (("", LEARNER), ("-solved", SOLVED))
         for name, path in paths.items()}  # fmt: skip
LONGEST_CODE, MEDIAN_CODE, IN_A_ROW, MOST_CELLS = 20, 6, 3, 70
LONGEST_CLASS = 40  # an exercise that is a class: the library's own, docstrings included
LONGEST_PROSE = 120  # words, folded hints apart
RATIO = (0.9, 1.8)  # of Markdown cells to code cells
MINUTES = 2  # on two CPU cores
SECONDS = 540  # the longest that one notebook may take here
FORBIDDEN = r"\b(just|simply|obviously|easy|easily|powerful)\b|!(?!=|\[)|[\U0001F300-\U0001FAFF]"


@cache
def cells(path, kind=None):
    found = nbformat.read(path, as_version=4).cells
    return [cell for cell in found if kind in (None, cell.cell_type)]


def prose(text):
    """The words that a learner reads, without folded hints, links and code."""
    text = re.sub(r"<details>.*?</details>", "", text, flags=re.S)
    return re.sub(r"`[^`]*`|\]\([^)]*\)|\$[^$]*\$", "", text)


every = pytest.mark.parametrize("path", EVERY.values(), ids=EVERY)
learner = pytest.mark.parametrize("path", LEARNER.values(), ids=LEARNER)


# What it looks like


@every
def test_no_code_cell_is_longer_than_a_screen(path):
    def limit(source):
        return LONGEST_CLASS if source.startswith("class ") else LONGEST_CODE

    sources = [cell.source for cell in cells(path, "code")]
    assert [s for s in sources if len(s.splitlines()) > limit(s)] == []


@learner  # a solved cell is as long as the library's own function
def test_half_of_the_code_cells_are_short(path):
    lines = [len(cell.source.splitlines()) for cell in cells(path, "code")]
    assert statistics.median(lines) <= MEDIAN_CODE


@every
def test_no_prose_cell_is_long(path):
    long = [
        c.source for c in cells(path, "markdown") if len(prose(c.source).split()) > LONGEST_PROSE
    ]
    assert long == []


@every
def test_code_and_prose_take_turns(path):
    kinds = "".join(cell.cell_type[0] for cell in cells(path))
    assert "c" * (IN_A_ROW + 1) not in kinds
    assert RATIO[0] <= kinds.count("m") / kinds.count("c") <= RATIO[1]
    assert len(kinds) <= MOST_CELLS


@every
def test_no_cell_is_empty_and_ids_are_unique(path):
    assert all(cell.source.strip() for cell in cells(path))
    ids = [cell.id for cell in cells(path)]
    assert len(set(ids)) == len(ids)


@learner
def test_the_voice_is_plain(path):
    for cell in cells(path, "markdown"):
        assert not re.search(FORBIDDEN, prose(cell.source), re.I), cell.source


@learner
def test_it_begins_with_a_question_and_ends_with_what_to_carry_away(path):
    first, last = cells(path)[0].source, cells(path)[-1].source
    assert re.match(r"# .+\?\n", first)
    assert all(part in first for part in ("**You will**", "**You need**", "**Time:**"))
    assert "## What to carry away" in last
    assert "**Source" in last
    assert "**Next:**" in last
    assert len(re.findall(r"^- ", last, re.M)) == 3


@learner
def test_it_has_three_to_six_sections_a_prediction_and_folklore(path):
    text = "\n".join(cell.source for cell in cells(path, "markdown"))
    assert 3 <= len(re.findall(r"^## \d\. ", text, re.M)) <= 6
    assert "**Predict first:**" in text
    assert "### Folklore" in text or "**Folklore" in text


@learner
def test_every_exercise_and_question_of_its_module_is_in_it(path):
    number = path.stem[:2]
    text = "\n".join(cell.source for cell in cells(path))
    for exercise in exercises.exercises(number):
        assert f"### Exercise {exercise.id}: {exercise.title}" in text
        assert f'check("{exercise.id}", {exercise.stub})' in text
        assert f'use("{exercise.id}", {exercise.stub})' in text
        assert exercises.folded_hints(exercise) in text
    for question in exercises.questions(number):
        assert f'quiz("{question.id}")' in text


@learner
def test_links_to_other_notebooks_lead_somewhere(path):
    text = "\n".join(cell.source for cell in cells(path, "markdown"))
    for target in re.findall(r"\]\(([\w./]+\.ipynb)\)", text):
        assert (path.parent / target).is_file(), target


@every
def test_names_are_defined_before_they_are_used(path):
    if path in LEARNER.values():
        path = SOLVED[path.stem]
    found = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--isolated", "--select=F63,F7,F821,F822", path],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stdout


# What is built


def test_they_are_what_their_sources_give():
    assert build.stale() == []


@learner
def test_the_learners_notebook_holds_stubs_and_no_outputs(path):
    assert all(cell.outputs == [] for cell in cells(path, "code"))
    stubs = [cell for cell in cells(path, "code") if "raise NotImplementedError" in cell.source]
    assert len(stubs) == len(exercises.exercises(path.stem[:2]))


@pytest.mark.parametrize("path", SOLVED.values(), ids=SOLVED)
def test_the_solved_notebook_is_executed_and_shows_itself_without_a_kernel(path):
    outputs = [output for cell in cells(path, "code") for output in cell.outputs]
    assert any("text/html" in output.get("data", {}) for output in outputs)
    assert all(build.WIDGET_VIEW not in output.get("data", {}) for output in outputs)
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    assert "widgets" not in nbformat.read(path, as_version=4).metadata
    numbers = [cell.execution_count for cell in cells(path, "code")]
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize("path", SOLVED.values(), ids=SOLVED)
def test_every_picture_has_a_text_in_its_place(path):
    pages = [o.data["text/html"] for c in cells(path, "code") for o in c.outputs
             if "text/html" in o.get("data", {})]  # fmt: skip
    for page in pages:
        for svg in re.findall(r"<svg.*?</svg>", page, re.S):
            root = ElementTree.fromstring(svg)  # a hidden one is a panel of a picture with a text
            assert root.get("aria-label") or root.get("aria-hidden") == "true", svg[:200]
        assert all(re.findall(r'role="img" aria-label="([^"]*)"', page))
        assert not re.search(r"<img(?![^>]*alt=\"[^\"])", page)


@pytest.mark.parametrize("path", SOLVED.values(), ids=SOLVED)
def test_cells_that_are_compared_have_an_output_to_compare_with(path):
    tagged = [c for c in cells(path, "code") if "nbval-check-output" in c.metadata.get("tags", [])]
    assert tagged
    assert all(cell.outputs for cell in tagged)


@pytest.mark.parametrize("name", NAMES)
def test_the_measured_time_is_within_two_minutes(name):
    assert build.timings()[name]["cpu"]["seconds"] <= 60 * MINUTES


def table(name, heading):
    """The rows of a table in a solved notebook, by their names, as it shows itself in text."""
    texts = [o.data["text/plain"] for c in cells(SOLVED[name], "code") for o in c.outputs
             if heading in o.get("data", {}).get("text/plain", "")]  # fmt: skip
    assert len(texts) == 1
    rows = [re.split(r" {2,}", line) for line in texts[0].splitlines()]
    return {name: cells for name, *cells in rows}


def test_the_prose_on_rank_and_alpha_reads_its_table_rightly():
    rows = table("04_qlora_finetune", "loss at last")
    right = {name: int(cells[-1].split()[0]) for name, cells in rows.items() if "of" in cells[-1]}
    start, q_and_v, both, rank, alpha = right.values()
    low = float(rows["seven projections, rank 16, alpha 32"][1])
    assert low < 0.1
    assert start < 0.9 * 20  # "a loss far below 0.1, and many letters still wrong"
    assert q_and_v < start
    assert rank <= start < both
    assert abs(alpha - both) <= 1


def test_the_prose_on_the_untaught_token_reads_its_table_rightly():
    rows = table("04_qlora_finetune", "an answer begins")
    alone, three, whole = (int(cells[1].split()[0]) for cells in list(rows.values())[1:])
    assert alone == 0
    assert min(three, whole) >= 18
    numbers = [int(cells[0].replace(",", "")) for cells in list(rows.values())[1:]]
    assert 0 < numbers[1] - numbers[0] < 1000 < numbers[2] - numbers[0]


# That they run


def run(path, tmp_path, **switches):
    """Run a notebook under nbval; what pytest said, and the numbers of the cells that failed."""
    report = tmp_path / "report.xml"
    home = {"LABKIT_HOME": str(tmp_path / "home"), "LABKIT_RUNS": str(tmp_path / "runs")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-c", os.devnull,
         "--rootdir", str(path.parent), "--nbval-lax", "--nbval-current-env",
         "--nbval-cell-timeout=400", f"--junitxml={report}", "-q", str(path)],
        capture_output=True, text=True, check=False, timeout=SECONDS,
        env=os.environ | home | {"LABKIT_MODEL": "tiny"} | switches, cwd=path.parent,
    )  # fmt: skip
    cases = list(ElementTree.parse(report).iter("testcase"))
    assert len(cases) == len(cells(path, "code")), done.stdout[-3000:]
    failed = {i: case.find("failure") for i, case in enumerate(cases)}
    return done.stdout, {i: "".join(f.itertext()) for i, f in failed.items() if f is not None}


@pytest.mark.slow
@pytest.mark.parametrize("path", SOLVED.values(), ids=SOLVED)
def test_the_solved_notebook_passes_in_full_and_strictly(path, tmp_path):
    said, failed = run(path, tmp_path, LABKIT_STRICT="1", LABKIT_QUICK="0")
    assert failed == {}, said[-5000:]


@pytest.mark.slow
@learner
def test_the_learners_notebook_runs_to_its_end_unsolved(path, tmp_path):
    said, failed = run(path, tmp_path, LABKIT_QUICK="1")
    assert failed == {}, said[-5000:]


@pytest.mark.slow
@learner
def test_without_the_fallback_exactly_the_check_cells_fail_with_a_sentence(path, tmp_path):
    checks = {i for i, c in enumerate(cells(path, "code")) if c.source.startswith("check(")}
    _, failed = run(path, tmp_path, LABKIT_QUICK="1", LABKIT_FALLBACK="0")
    assert set(failed) == checks
    assert all("not tried: " in text for text in failed.values())
