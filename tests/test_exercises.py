"""The engine, and every exercise of every notebook with its bank of wrong answers."""

import dataclasses
import importlib
import inspect
import random
import re
import signal
import subprocess
import sys
import threading
import time
import types
import warnings

import pytest

from labkit import project
from labkit.exercises import (
    Exercise,
    Wrong,
    check,
    engine,
    exercises,
    folded_hints,
    hint,
    solution,
    source_of,
    use,
)
from labkit.exercises.judging import KEPT, judged

EVERY = exercises()
BANK = [pytest.param(e, wrong, id=f"{e.id} {wrong.name}") for e in EVERY for wrong in e.wrong]
FEWEST_WRONG = 3


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A progress file of its own, and no switch of the tests, for each test."""
    monkeypatch.setenv("LABKIT_HOME", str(tmp_path))
    monkeypatch.delenv("LABKIT_STRICT", raising=False)
    monkeypatch.delenv("LABKIT_FALLBACK", raising=False)


def unsolved(*_args, **_kwargs):
    raise NotImplementedError


class Unsolved:
    def __init__(self, *_args, **_kwargs):
        raise NotImplementedError

    apply = staticmethod(unsolved)  # what a torch.autograd.Function is called by


def stub_of(exercise):
    """What the learner starts from: a function, a class or a value to be filled in."""
    if isinstance(exercise.solution, type):
        return Unsolved
    return unsolved if callable(exercise.solution) else ...


def too_small(bank):
    return [e.id for e in bank if len(e.wrong) < FEWEST_WRONG]


def sample(**changes):
    """A small exercise: double every element of a list, leaving the list alone."""

    def judge(answer):
        """doubles"""
        given = [1, 2, 3]
        got = answer(given)
        return None if got == [2 * x for x in given] else f"got {got} for {given}"

    fields = dict(
        id="00.9", title="double", minutes=1, difficulty=1, judge=judge, seconds=5.0,
        solution=double, stub="twice", hints=("which?", "2x", "why"),
    )  # fmt: skip
    return Exercise(**{**fields, **changes})


def mine(numbers):
    return [x + x for x in numbers]


def double(numbers):
    """Each number doubled."""
    return [2 * x for x in numbers]


# --- every exercise ---------------------------------------------------------------------------


@pytest.mark.parametrize("exercise", EVERY, ids=lambda e: e.id)
def test_the_solution_passes(exercise):
    assert str(judged(exercise, exercise.solution)) == f"{exercise.id} passed: {exercise.praise}"


@pytest.mark.parametrize("exercise", EVERY, ids=lambda e: e.id)
def test_the_stub_is_not_tried(exercise):
    assert judged(exercise, stub_of(exercise)).state == "not tried"


@pytest.mark.parametrize(("exercise", "wrong"), BANK)
def test_a_wrong_answer_is_rejected_with_its_own_message(exercise, wrong):
    verdict = judged(exercise, wrong.build(engine.solution_names(exercise)))
    assert verdict.state == "not yet"
    assert wrong.message in verdict.message


@pytest.mark.parametrize("exercise", EVERY, ids=lambda e: e.id)
def test_no_two_wrong_answers_share_a_message(exercise):
    messages = [wrong.message for wrong in exercise.wrong]
    assert len(set(messages)) == len(messages)
    assert min(map(len, messages), default=8) >= 8, "a message this short names no slip"


def test_every_exercise_has_at_least_three_wrong_answers():
    assert too_small(EVERY) == []


def test_an_exercise_with_two_wrong_answers_is_found():
    two = tuple(Wrong(str(i), lambda x: x, "message") for i in range(FEWEST_WRONG - 1))
    assert too_small([sample(wrong=two)]) == ["00.9"]


def test_ids_are_unique_and_name_their_notebook():
    ids = [e.id for e in EVERY]
    assert len(set(ids)) == len(ids)
    for number in engine.notebooks():
        assert all(e.id.startswith(f"{number}.") for e in exercises(number))


@pytest.mark.parametrize("exercise", EVERY, ids=lambda e: e.id)
def test_the_source_of_a_solution_is_an_answer_that_passes(exercise):
    scope = engine.solution_names(exercise)
    exec(source_of(exercise), scope)
    assert judged(exercise, scope[exercise.stub])


# --- hostile answers --------------------------------------------------------------------------


def mutates(*args, **kwargs):
    for value in (*args, *kwargs.values()):
        if hasattr(value, "clear"):
            value.clear()
        elif hasattr(value, "zero_"):
            value.detach().zero_()


def floods(*_args, **_kwargs):
    for _ in range(200):
        print("x" * 10_000)
    print("y" * 10_000, file=sys.stderr)


def half(*_args, **_kwargs):
    import torch

    return torch.zeros(2, 2, dtype=torch.float16)


class Mute(Exception):
    def __str__(self):
        raise RuntimeError("no text either")


def raises(error):
    def answer(*_args, **_kwargs):
        raise error

    return answer


HOSTILE = {
    "returns None": lambda *a, **k: None,
    "returns NaN": lambda *a, **k: float("nan"),
    "returns another dtype": half,
    "mutates": mutates,
    "floods": floods,
    "exits": lambda *a, **k: sys.exit(3),
    "interrupts": raises(KeyboardInterrupt()),
    "ends a generator": raises(GeneratorExit()),
    "recurses": lambda *a, **k: HOSTILE["recurses"](*a, **k),
    "raises without a text": raises(Mute()),
    "takes no argument": lambda: 1,
    "is no function": 7,
    "is None": None,
    "is a class": object,
}


@pytest.mark.parametrize("answer", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("exercise", [sample(), *EVERY], ids=lambda e: e.id)
def test_a_hostile_answer_gets_a_verdict(exercise, answer):
    verdict = judged(exercise, answer)
    assert verdict.state == "not yet"
    assert verdict.message
    assert len(verdict.message) < 500


def for_ever():
    while True:
        pass


def for_ever_and_deaf():
    while True:
        try:  # noqa: SIM105
            time.sleep(0.001)
        except:  # noqa: E722
            pass


def in_the_main_thread(work):
    return work()


def in_another_thread(work):
    found = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    thread.join()
    return found[0]


@pytest.mark.parametrize("loop", [for_ever, for_ever_and_deaf])
@pytest.mark.parametrize("where", [in_the_main_thread, in_another_thread])
def test_an_endless_loop_is_stopped(loop, where):
    started = time.monotonic()
    verdict = where(lambda: judged(sample(seconds=0.2), lambda _: loop()))
    assert time.monotonic() - started < 3
    assert verdict.state == "not yet"
    assert "stopped after 0.2 s" in verdict.message


def test_a_stopped_loop_does_not_go_on_in_the_background():
    before = threading.active_count()
    in_another_thread(lambda: judged(sample(seconds=0.1), lambda _: for_ever()))
    assert threading.active_count() == before


def test_a_value_that_is_still_to_be_filled_in_is_not_tried():
    assert judged(sample(), ...).state == "not tried"


@pytest.mark.parametrize("where", [in_the_main_thread, in_another_thread])
def test_a_slow_import_is_let_through(where, tmp_path, monkeypatch):
    name = f"slow_{where.__name__}"
    (tmp_path / f"{name}.py").write_text("import time; time.sleep(0.5); done = True")
    monkeypatch.syspath_prepend(tmp_path)

    def answer(numbers):
        importlib.import_module(name)
        return double(numbers)

    assert where(lambda: judged(sample(seconds=0.2), answer))
    assert sys.modules.pop(name).done


def test_an_alarm_that_was_set_before_the_judge_still_rings():
    rung = []
    before = signal.signal(signal.SIGALRM, lambda *_: rung.append(True))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        judged(sample(seconds=5.0), double)
        judged(sample(seconds=0.05), lambda _: for_ever())
        time.sleep(0.4)
        assert rung == [True]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_tracer_survives_a_stopped_answer():
    def tracer(*_):
        return None

    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        judged(sample(seconds=0.05), lambda _: for_ever())
        assert sys.gettrace() is tracer
    finally:
        sys.settrace(before)


@pytest.mark.parametrize("exercise", [sample(), *EVERY], ids=lambda e: e.id)
def test_a_right_answer_that_spoils_its_inputs_still_passes(exercise):
    if not (exercise.copies and inspect.isroutine(exercise.solution)):
        pytest.skip("this exercise hands its inputs over on purpose")

    def spoils(*args, **kwargs):
        result = exercise.solution(*args, **kwargs)
        mutates(*args, **kwargs)
        return result

    assert judged(exercise, spoils)


def test_without_copies_the_judge_meets_the_spoilt_input():
    def spoils(numbers):
        result = double(numbers)
        numbers.clear()
        return result

    assert judged(sample(copies=False), spoils).message == "got [2, 4, 6] for []"


def test_the_learners_value_is_judged_as_a_copy():
    value = [1]

    def judge(answer):
        answer.append(2)

    assert judged(sample(judge=judge), value)
    assert value == [1]


def test_an_input_that_cannot_be_copied_is_handed_over_as_it_is():
    def judge(answer):
        return None if answer(x for x in [1, 2]) == [2, 4] else "no"

    assert judged(sample(judge=judge), double)


def test_printed_lines_reach_the_verdict_and_not_the_screen(capsys):
    verdict = judged(sample(), lambda x: print("looking at", x) or double(x))
    assert verdict.printed == "looking at [1, 2, 3]\n"
    assert "looking at [1, 2, 3]" in verdict._repr_html_()
    assert capsys.readouterr().out == ""


def test_a_warning_is_printed_and_decides_nothing():
    verdict = judged(sample(), lambda x: warnings.warn("old", stacklevel=1) or double(x))
    assert verdict
    assert "UserWarning: old" in verdict.printed


def test_a_flood_is_cut_and_counted():
    printed = judged(sample(), floods).printed
    assert len(printed) < KEPT + 100
    assert printed.endswith(f"... and {200 * 10_001 + 10_001 - KEPT:,} more characters")


def test_an_error_text_is_shortened_to_one_line():
    verdict = judged(sample(), raises(ValueError("a\n" * 10_000)))
    assert "\n" not in str(verdict)
    assert len(str(verdict)) < 300


def test_a_judge_leaves_the_random_states_alone():
    import torch

    def judge(answer):
        random.seed(0)
        torch.manual_seed(0)

    random.seed(5)
    torch.manual_seed(5)
    want = random.random(), torch.rand(1).item()
    random.seed(5)
    torch.manual_seed(5)
    judged(sample(judge=judge), double)
    assert (random.random(), torch.rand(1).item()) == want


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda x: None, "your code returned None: is a `return` missing?"),
        (lambda x: 5, "what your code returned cannot be used (TypeError: object of"),
        (lambda x: x.nothing, "your code raised AttributeError: 'list'"),
    ],
)
def test_an_error_is_put_where_it_belongs(answer, message):
    verdict = judged(sample(judge=lambda a: None if len(a([1])) else "empty"), answer)
    assert verdict.message.startswith(message)
    assert judged(sample(judge=lambda a: True), double).message == (
        "the judge returned bool: a fault of the workbook"
    )


def test_not_implemented_in_a_library_is_not_an_untouched_stub():
    from torch import nn

    verdict = judged(sample(judge=lambda a: a()(1)), nn.Module)
    assert verdict.state == "not yet"
    assert 'missing the required "forward"' in verdict.message


# --- what a notebook calls --------------------------------------------------------------------


@pytest.fixture
def one(monkeypatch):
    """The sample as the only exercise there is."""
    module = types.SimpleNamespace(EXERCISES=[sample()])
    monkeypatch.setattr(engine, "module", lambda number: module)
    monkeypatch.setattr(engine, "_reported", set())
    return module.EXERCISES[0]


def test_check_returns_one_line(one):
    assert repr(check("00.9", mine)) == "00.9 passed: doubles"
    assert repr(check("00.9", unsolved)) == "00.9 not tried: put your answer where the stub stands"
    assert "<strong>not yet</strong>: got [1, 2, 3]" in check("00.9", list)._repr_html_()


@pytest.mark.parametrize(("switch", "value"), [("LABKIT_STRICT", "1"), ("LABKIT_FALLBACK", "0")])
def test_a_switch_makes_check_raise_its_sentence(one, monkeypatch, switch, value):
    monkeypatch.setenv(switch, value)
    with pytest.raises(AssertionError, match=r"^00\.9 not yet: got \[1, 2, 3\] for \[1, 2, 3\]$"):
        check("00.9", lambda numbers: list(numbers))
    with pytest.raises(AssertionError, match=r"^00\.9 not tried: put your answer"):
        check("00.9", unsolved)
    assert check("00.9", mine)


def test_use_takes_the_learners_where_it_passes_and_says_so(one, capsys):
    assert use("00.9", mine) is mine
    assert capsys.readouterr().out == "00.9 twice: from here on yours\n"


@pytest.mark.parametrize(("answer", "state"), [(unsolved, "not tried"), (max, "not yet")])
def test_use_falls_back_to_the_library_and_says_so(one, capsys, answer, state):
    assert use("00.9", answer) is double
    line = f"00.9 twice: from here on the library's (yours: {state})\n"
    assert capsys.readouterr().out == line


def test_the_librarys_own_object_does_not_count_as_solved(one, capsys):
    answer = use("00.9", unsolved)
    verdict = check("00.9", answer)
    assert verdict.state == "not tried"
    assert verdict.message == "this is the library's own; run the cell that defines twice again"
    assert use("00.9", answer) is double


def test_without_the_fallback_use_hands_the_stub_back(one, monkeypatch):
    monkeypatch.setenv("LABKIT_FALLBACK", "0")
    assert use("00.9", unsolved) is unsolved


def test_without_the_fallback_use_replaces_what_a_check_has_reported(one, monkeypatch):
    monkeypatch.setenv("LABKIT_FALLBACK", "0")
    with pytest.raises(AssertionError):
        check("00.9", unsolved)
    assert use("00.9", unsolved) is double
    assert use("00.9", mine) is mine


def test_hints_come_in_three_steps_and_the_last_shows_the_code(one, monkeypatch):
    monkeypatch.setattr(engine, "_given", {})
    steps = [str(hint("00.9")) for _ in range(4)]
    assert steps[:2] == ["00.9 hint 1 of 3: which?", "00.9 hint 2 of 3: 2x"]
    assert steps[2].startswith("00.9 hint 3 of 3: why\n\n```python\ndef twice(")
    assert steps[3] == steps[2]
    assert str(hint("00.9", 1)) == steps[0]
    with pytest.raises(project.LabkitError, match=r"00\.9 has no hint 4; ask for 1, 2 or 3"):
        hint("00.9", 4)


def test_folded_hints_hold_the_same_texts(one):
    folded = folded_hints(one)
    assert folded.count("<details>") == folded.count("</details>") == 3
    assert all(text in folded for text in one.hints)


def test_a_solution_shows_the_librarys_source_under_the_stubs_name(one):
    assert str(solution("00.9")) == (
        'def twice(numbers):\n    """Each number doubled."""\n    return [2 * x for x in numbers]\n'
    )


def factorial(n):
    """The product 1 * ... * n; `factorial(0)` is 1."""
    return n * factorial(n - 1) if n else 1


class Scaled:
    def __init__(self, scale):
        self.scale = scale

    def again(self):
        return Scaled(self.scale)


def loss(loss):
    return loss + 0


@pytest.mark.parametrize(
    ("answer", "want"),
    [
        (factorial, ["def mine(n):", "return n * mine(n - 1)"]),
        (Scaled, ["class mine:", "return mine(self.scale)"]),
        (loss, ["def mine(loss):", "return loss + 0"]),
        (16, ["mine = 16"]),
    ],
)
def test_a_source_is_renamed_where_it_names_itself(answer, want):
    source = source_of(sample(solution=answer, stub="mine"))
    assert all(line in source for line in want)


def test_a_solution_without_a_source_is_refused():
    with pytest.raises(project.LabkitError, match=r"00\.9: no source for its solution, a object"):
        source_of(sample(solution=object()))


@pytest.mark.parametrize("call", [lambda i: check(i, double), hint, solution])
def test_an_unknown_exercise_is_answered_with_those_that_exist(one, call):
    with pytest.raises(project.LabkitError, match=r'no exercise "00\.7"; there are 00\.9'):
        call("00.7")


def test_an_unknown_notebook_is_answered_with_those_that_exist():
    with pytest.raises(project.LabkitError, match=r'no notebook "99" has exercises here; 00'):
        check("99.1", double)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": "4.2"}, "exercise id '4.2': write notebook and number, as in \"04.2\""),
        ({"difficulty": 6}, "00.9: difficulty 6 is not one of 1 to 5"),
        ({"hints": ("a",)}, "00.9: 1 hints; a question, a formula, a why"),
        ({"stub": "a b"}, "00.9: the stub 'a b' is not a Python name"),
    ],
)
def test_an_exercise_out_of_range_is_refused(change, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        sample(**change)


def test_a_wrong_answer_may_be_text_or_an_object():
    text = "import math\nhalf = 0.5\ndef late(x):\n    return half * OUTER\n"
    assert Wrong("text", text, "m").build({"OUTER": 4})(0) == 2.0
    assert Wrong("object", double, "m").build() is double


def test_the_engine_imports_without_ipywidgets_and_torch():
    code = (
        "import sys; sys.modules.update(ipywidgets=None, torch=None, numpy=None);"
        "import labkit.exercises as e; from labkit.exercises import ex00; print(e.find('00.1').id)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("00.1\n", 0), done.stderr


def test_a_frozen_exercise_can_be_varied():
    assert dataclasses.replace(sample(), seconds=1.0).seconds == 1.0
