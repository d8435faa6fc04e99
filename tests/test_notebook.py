"""One source file as two notebooks: what the learner gets and what the solved one holds."""

import ast
import importlib.util
import re
import sys

import nbformat
import pytest
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from labkit import exercises, notebook
from labkit.notebook import COMPARED, Facts, SourceError, learner, solved, stub

FACTS = Facts("https://github.com/owner/name", "9.8.7", "3 min on a GPU")
SOURCE = """\
# %% [markdown]
# # A title?
#
# <!-- badges -->
#
# It takes <!-- minutes -->.

# %%
# bootstrap

# %% [markdown]
# <!-- exercise: 00.1 -->

# %%
# exercise: 00.1

# %% tags=["nbval-check-output", "wide"]
check("00.1", pair_size)

# %% [markdown]
# <!-- hints: 00.1 -->

# %%
# quiz: 00.q1 00.q2

# %%
def area(side):
    first = side
    ### BEGIN SOLUTION
    second = first
    return first * second
    ### END SOLUTION


area(3)
"""
TITLE, BOOTSTRAP, HEADLINE, EXERCISE, CHECK, HINTS, QUIZ, AREA = range(8)


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "07_small.py"
    path.write_text(SOURCE, encoding="utf-8")
    return path


def changed(source, old, new):
    text = source.read_text(encoding="utf-8")
    assert text.count(old) == 1
    source.write_text(text.replace(old, new), encoding="utf-8")
    return source


def text(made, cell):
    return made.cells[cell].source


# Stubs

FUNCTION = '''\
@torch.no_grad()
def scale(
    W: Tensor,  # (out, in)
    alpha: float = 2.0,
    *,
    rank: int,
) -> Tensor:
    """W times alpha / rank.

    Returns: (out, in)
    """
    # the way of the paper
    factor = alpha / rank
    return factor * W
'''
FUNCTION_STUB = FUNCTION[: FUNCTION.index("    # the way")] + "    raise NotImplementedError"
CLASS = '''\
class Pair(nn.Module):
    """Two thin factors."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.rank = rank

    @property
    def scale(self) -> float:
        """alpha / rank"""
        return 1 / self.rank

    def forward(
        self, x: Tensor
    ) -> Tensor:
        return x * self.scale
'''
CLASS_STUB = '''\
class Pair(nn.Module):
    """Two thin factors."""

    def __init__(self, rank: int) -> None:
        raise NotImplementedError

    @property
    def scale(self) -> float:
        """alpha / rank"""
        raise NotImplementedError

    def forward(
        self, x: Tensor
    ) -> Tensor:
        raise NotImplementedError'''
BARE = """\
class Bare:
    @staticmethod
    def one() -> int:
        return 1
"""
BARE_STUB = """\
class Bare:

    @staticmethod
    def one() -> int:
        raise NotImplementedError"""
STUBS = {
    "a function": (FUNCTION, FUNCTION_STUB),
    "a function without a docstring": (
        "def f(\n    a,\n    b,\n):\n    return a + b\n",
        "def f(\n    a,\n    b,\n):\n    raise NotImplementedError",
    ),
    "a class": (CLASS, CLASS_STUB),
    "a class whose first line is a decorator": (BARE, BARE_STUB),
    "a number": ("rank = 16\n", "rank = None"),
    "a dictionary": ("shapes = {'q': (64, 64),\n  'k': (16, 64)}\n", "shapes = None"),
}


@pytest.mark.parametrize(("code", "expected"), STUBS.values(), ids=STUBS)
def test_a_stub_keeps_signatures_and_docstrings_and_no_line_of_the_body(code, expected):
    assert stub(code) == expected


def definitions(code):
    """Name, arguments, result and docstring of each function, in order."""
    return [
        (n.name, ast.unparse(n.args), n.returns and ast.unparse(n.returns), ast.get_docstring(n))
        for n in ast.walk(ast.parse(code))
        if isinstance(n, ast.FunctionDef)
    ]


@pytest.mark.parametrize("exercise", exercises.exercises(), ids=lambda e: e.id)
def test_the_stub_of_each_exercise_asks_for_what_its_solution_gives(exercise):
    code = exercises.source_of(exercise)
    made = stub(code)
    if definitions(code):
        assert definitions(made) == [d for d in definitions(code) if d in definitions(made)]
        assert definitions(made)[0] == definitions(code)[0]
        assert ast.get_docstring(ast.parse(made).body[0]), "the learner needs a docstring"
    last = ast.parse(made).body[-1]
    assert ast.unparse(last).splitlines()[-1].strip() in (
        "raise NotImplementedError",
        f"{exercise.stub} = None",
    )


# Two notebooks from one source


def test_both_notebooks_have_the_same_cells_under_the_same_ids(source):
    one, other = learner(source, FACTS), solved(source, FACTS)
    assert [(c.id, c.cell_type) for c in one.cells] == [(c.id, c.cell_type) for c in other.cells]
    assert len({cell.id for cell in one.cells}) == len(one.cells) == 8


def test_two_builds_give_the_same_bytes_and_a_valid_notebook(source):
    for make in (learner, solved):
        first, second = (make(source, FACTS) for _ in range(2))
        nbformat.validate(first)
        assert nbformat.writes(first) == nbformat.writes(second)


def test_another_source_gives_other_ids(source):
    twin = source.with_name("08_small.py")
    twin.write_text(SOURCE, encoding="utf-8")
    ids = [{cell.id for cell in learner(path, FACTS).cells} for path in (source, twin)]
    assert not ids[0] & ids[1]


def test_the_learner_gets_the_stub_and_the_solved_one_the_library(source):
    code = exercises.source_of(exercises.find("00.1")).rstrip()
    assert text(solved(source, FACTS), EXERCISE) == code
    assert text(learner(source, FACTS), EXERCISE) == stub(code)


def test_the_solved_code_runs_and_the_stub_raises(source):
    for make, outcome in ((learner, "none"), (solved, 9)):
        names = {}
        try:
            exec(text(make(source, FACTS), AREA), names)
            found = names["area"](3)
        except NotImplementedError:
            found = "none"
        assert found == outcome


def test_a_solution_block_is_cut_at_its_own_depth(source):
    assert text(learner(source, FACTS), AREA) == (
        "def area(side):\n    first = side\n    raise NotImplementedError\n\n\narea(3)"
    )
    assert "SOLUTION" not in text(solved(source, FACTS), AREA)
    assert "    return first * second" in text(solved(source, FACTS), AREA)


def test_comments_for_the_linter_alone_do_not_reach_a_reader(source, monkeypatch):
    code = "def f(x: Any) -> Any:  # noqa: ANN401, E501\n    return x  # kept\n"
    monkeypatch.setattr(notebook.exercises, "source_of", lambda _: code)
    assert text(solved(source, FACTS), EXERCISE) == "def f(x: Any) -> Any:\n    return x  # kept"
    assert text(learner(source, FACTS), EXERCISE).splitlines()[0] == "def f(x: Any) -> Any:"


def test_only_the_solved_notebook_compares_outputs(source):
    assert solved(source, FACTS).cells[CHECK].metadata["tags"] == [COMPARED, "wide"]
    assert learner(source, FACTS).cells[CHECK].metadata["tags"] == ["wide"]


def test_questions_are_asked_and_answered_right_in_the_solved_notebook_alone(
    source, monkeypatch, tmp_path
):
    monkeypatch.setenv("LABKIT_HOME", str(tmp_path))
    asked = [exercises.quiz(id) for id in ("00.q1", "00.q2")]

    def displayed(made):
        shown = []
        exec(text(made, QUIZ), {"quiz": exercises.quiz, "display": shown.append})
        return shown

    assert displayed(learner(source, FACTS)) == asked
    shown = displayed(solved(source, FACTS))
    assert shown[::2] == asked
    assert [answer.state for answer in shown[1::2]] == ["passed", "passed"]
    assert [answer.id for answer in shown[1::2]] == ["00.q1", "00.q2"]


# What Markdown and the first cell take from outside


def test_the_markers_in_markdown_are_expanded(source):
    made = learner(source, FACTS)
    e = exercises.find("00.1")
    assert text(made, TITLE).endswith("It takes 3 min on a GPU.")
    assert text(made, HEADLINE) == (
        f"### Exercise 00.1: {e.title} ({e.minutes} min, difficulty {e.difficulty} of 5)"
    )
    assert text(made, HINTS) == exercises.folded_hints(e)
    assert text(made, HINTS).count("<details>") == 3
    assert "<!--" not in "".join(cell.source for cell in made.cells)


def test_the_badges_open_this_notebook_of_this_repository(source):
    links = re.findall(r"\]\((https:[^)]*07_small[^)]*)\)", text(learner(source, FACTS), TITLE))
    assert links == [
        "https://colab.research.google.com/github/owner/name/blob/main/notebooks/07_small.ipynb",
        "https://mybinder.org/v2/gh/owner/name/main?urlpath=lab/tree/notebooks/07_small.ipynb",
    ]


@pytest.fixture
def installs(source, tmp_path, monkeypatch):
    """Runs the bootstrap cell in a real IPython; gives what it would have had pip do."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("HOME", str(tmp_path))
    shell = InteractiveShell(config=Config(HistoryManager={"enabled": False}))
    asked = []
    shell.register_magic_function(asked.append, "line", "pip")

    def run():
        shell.run_cell(text(learner(source, FACTS), BOOTSTRAP)).raise_error()
        return asked

    return run


def test_the_first_cell_installs_nothing_in_a_checkout(installs):
    assert installs() == []


@pytest.mark.parametrize(("colab", "kept"), [(True, "--no-deps "), (False, " ")])
def test_the_first_cell_installs_this_version_from_this_address(installs, monkeypatch, colab, kept):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    if colab:
        monkeypatch.setitem(sys.modules, "google.colab", sys)
    package = '"labkit @ git+https://github.com/owner/name@v9.8.7"'
    assert installs() == [f"install -q {kept}{package} bitsandbytes trl starlette uvicorn"]


# Sources that cannot be built

BROKEN = {
    "a block that does not end": ("    ### END SOLUTION\n", "", "cell 7: '### BEGIN SOLUTION'"),
    "hints without a number": ("hints: 00.1", "hints", "cell 5: '<!-- hints'"),
    "an exercise without a number": ("<!-- exercise: 00.1", "<!-- exercise", "cell 2: '<!-- ex"),
    "a marker in code": ("area(3)", "# <!-- minutes -->", "cell 7: '<!-- minutes'"),
    "an exercise beside other code": (
        "# quiz: 00.q1 00.q2",
        "# exercise: 00.1\nx = 1",
        "cell 6: '# exercise:'",
    ),
    "a question beside other code": ("# quiz: 00.q1 00.q2", "# quiz: 00.q1\nx = 1", "6: '# quiz:'"),
    "a first cell with other code": ("# bootstrap", "# bootstrap\nx = 1", "1: '# bootstrap'"),
}


@pytest.mark.parametrize(("old", "new", "message"), BROKEN.values(), ids=BROKEN)
def test_a_marker_that_is_left_over_is_refused_by_file_and_cell(source, old, new, message):
    with pytest.raises(SourceError, match=rf"^07_small\.py, .*{re.escape(message)}.* no use$"):
        learner(changed(source, old, new), FACTS)
