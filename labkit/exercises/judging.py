"""Runs a judge on a learner's object and always comes back with a verdict.

The learner's code may loop for ever, print a gigabyte, change its inputs, call `sys.exit` or
return nothing at all. None of that may stop the notebook, so a judge runs behind four fences:

    time      see limits
    output    stdout, stderr and warnings go to a buffer that keeps the first KEPT characters
    inputs    a function gets deep copies of what the judge hands it
    chance    the random states of Python, NumPy and torch are put back afterwards
"""

import contextlib
import copy
import functools
import inspect
import io
import random
import sys
import traceback
import warnings
from collections.abc import Iterator
from typing import Any

from labkit.exercises.exercise import Exercise, Verdict
from labkit.exercises.limits import TimeUp, limited

KEPT = 4000  # characters of the learner's output that a verdict keeps
SHOWN = 200  # characters of an error's text that fit in a one-line verdict
NOT_TRIED = "put your answer where the stub stands"


class _Buffer(io.TextIOBase):
    """Keeps the first KEPT characters written to it and counts the rest."""

    def __init__(self) -> None:
        self.kept, self.dropped = "", 0

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        room = max(0, KEPT - len(self.kept))
        self.kept += text[:room]
        self.dropped += max(0, len(text) - room)
        return len(text)

    def text(self) -> str:
        return self.kept + (f"\n... and {self.dropped:,} more characters" if self.dropped else "")


class _Watch:
    """Hands the judge the learner's object and remembers what calls to a function came to."""

    def __init__(self, copies: bool) -> None:
        self.copies = copies
        self.returned, self.gave_none = False, False  # of the latest call; of any call

    def guard(self, answer: object) -> object:
        """A function that copies its inputs, a copied value, or the object as it is."""
        if isinstance(answer, type) or (not self.copies and not inspect.isroutine(answer)):
            return answer
        if not (inspect.isroutine(answer) or isinstance(answer, functools.partial)):
            return _copied(answer)

        @functools.wraps(answer)
        def guarded(*args: Any, **kwargs: Any) -> object:  # noqa: ANN401
            if self.copies:
                args, kwargs = _copied((args, kwargs))
            self.returned = False
            result = answer(*args, **kwargs)
            self.returned, self.gave_none = True, self.gave_none or result is None
            return result

        return guarded


def judged(exercise: Exercise, answer: object) -> Verdict:
    """The verdict on `answer`. Never raises."""
    watch, buffer = _Watch(exercise.copies), _Buffer()

    def work() -> tuple[str, str]:
        if answer is ...:  # a value that is still to be filled in
            return "not tried", NOT_TRIED
        try:
            return _read(exercise, exercise.judge(watch.guard(answer)))
        except NotImplementedError as error:
            return _not_implemented(error)
        except TimeUp:
            return _too_slow(exercise)
        except BaseException as error:  # the learner's code: whatever it raises is an answer
            return "not yet", _slip(error, watch)

    with _chance_kept(), _captured(buffer):
        state, message = limited(work, exercise.seconds) or _too_slow(exercise)
    return Verdict(state, message, exercise.id, printed=buffer.text())


def _read(exercise: Exercise, found: object) -> tuple[str, str]:
    """What the judge's own return value means."""
    if found is None:
        return "passed", exercise.praise
    if isinstance(found, str):
        return "not yet", found
    return "not yet", f"the judge returned {type(found).__name__}: a fault of the workbook"


def _too_slow(exercise: Exercise) -> tuple[str, str]:
    limit = f"{exercise.seconds:g} s"
    return "not yet", f"stopped after {limit}, the limit here: is there a loop that never ends?"


def _not_implemented(error: NotImplementedError) -> tuple[str, str]:
    """The stub's own line means "not tried"; the same error out of a library does not."""
    place = traceback.extract_tb(error.__traceback__)[-1].filename
    if "site-packages" in place:
        return "not yet", f"your code raised {_described(error)}"
    return "not tried", NOT_TRIED


def _slip(error: BaseException, watch: _Watch) -> str:
    """Whose error it was: a function that came back did not raise, the judge choked on it."""
    told = _described(error)
    if watch.gave_none and "NoneType" in told:
        return "your code returned None: is a `return` missing?"
    if watch.returned:
        return f"what your code returned cannot be used ({told})"
    return f"your code raised {told}"


def _described(error: BaseException) -> str:
    """Type and text of an error in one line, whatever its `__str__` does."""
    name = type(error).__name__
    try:
        text = " ".join(str(error)[: 4 * SHOWN].split())
    except BaseException:  # a hostile __str__ is one more answer, not a crash
        return name
    short = text if len(text) <= SHOWN else text[:SHOWN] + " ..."
    return f"{name}: {short}" if short else name


def _copied(value: Any) -> Any:  # noqa: ANN401
    """A deep copy, or the value itself where it cannot be copied (a generator, a graph)."""
    try:
        return copy.deepcopy(value)
    except Exception:  # copying is a courtesy; the judge itself still decides
        return value


@contextlib.contextmanager
def _captured(buffer: _Buffer) -> Iterator[None]:
    """Everything that is printed goes to `buffer`, warnings too: a verdict hangs on no filter."""
    with (
        contextlib.redirect_stdout(buffer),
        contextlib.redirect_stderr(buffer),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("default")
        warnings.showwarning = lambda text, kind, *_: buffer.write(f"{kind.__name__}: {text}\n")
        yield


@contextlib.contextmanager
def _chance_kept() -> Iterator[None]:
    """A judge may set seeds; the learner's next cell draws as if it had not run."""
    python = random.getstate()
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    of_numpy = numpy.random.get_state() if numpy else None
    of_torch = torch.get_rng_state() if torch else None
    try:
        yield
    finally:
        random.setstate(python)
        if numpy:
            numpy.random.set_state(of_numpy)
        if torch:
            torch.set_rng_state(of_torch)
