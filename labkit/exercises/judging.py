"""Runs a judge on a learner's object and always comes back with a verdict.

The learner's code may loop for ever, print a gigabyte, change its inputs, call `sys.exit` or
return nothing at all. None of that may stop the notebook, so a judge runs behind four fences:

    time      an alarm in the main thread (Unix), else a second thread that is told to stop
    output    stdout and stderr go to a buffer that keeps the first KEPT characters
    inputs    a function gets deep copies of what the judge hands it
    chance    the random states of Python, NumPy and torch are put back afterwards

What stays outside: a single call into C that never returns cannot be interrupted, and `os._exit`
ends the process.
"""

import contextlib
import copy
import ctypes
import functools
import inspect
import io
import random
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from labkit.exercises.exercise import Exercise, Verdict

KEPT = 4000  # characters of the learner's output that a verdict keeps
SHOWN = 200  # characters of an error's text that fit in a one-line verdict
AGAIN = 0.05  # seconds until a stopped answer that caught the stop is stopped again
IMPORTLIB = "<frozen importlib._bootstrap>"  # the file of the frames of a running import
NOT_TRIED = "put your answer where the stub stands"


class TimeUp(BaseException):
    """The limit is over. Not an Exception, so that `except Exception` does not swallow it."""


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

    with _chance_kept(), contextlib.redirect_stdout(buffer), contextlib.redirect_stderr(buffer):
        state, message = _limited(work, exercise.seconds) or _too_slow(exercise)
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


def _limited(work: Callable[[], Any], seconds: float) -> Any | None:  # noqa: ANN401
    """What `work` returns, or None when the time is up."""
    on_main = threading.current_thread() is threading.main_thread()
    if on_main and hasattr(signal, "setitimer"):
        return _limited_by_alarm(work, seconds)
    return _limited_by_thread(work, seconds)


def _limited_by_alarm(work: Callable[[], Any], seconds: float) -> Any | None:  # noqa: ANN401
    def ring(_number: int, frame: FrameType | None) -> None:
        inside = _frames_inside(work, frame)
        if inside is None:
            return  # the alarm came a moment too late: the work is done
        if _importing(inside):
            signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)
            return
        for each in inside:  # whoever catches the stop meets it again on the next line
            each.f_trace = _stop
        sys.settrace(lambda *_: None)
        raise TimeUp

    tracer = sys.gettrace()
    handler = signal.signal(signal.SIGALRM, ring)
    timer = signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)
    try:
        return work()
    except TimeUp:
        return None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        sys.settrace(tracer)
        signal.setitimer(signal.ITIMER_REAL, *timer)


def _frames_inside(work: Callable[[], Any], frame: FrameType | None) -> list[FrameType] | None:
    """The frames that run on behalf of `work`, or None when it is not running."""
    inside = []
    while frame and frame.f_code is not work.__code__:
        inside.append(frame)
        frame = frame.f_back
    return inside if frame else None


def _importing(frames: list[FrameType]) -> bool:
    """Whether an import is under way. The first `import torch` takes long on a slow disk, and one
    that is stopped half way leaves torch broken until the kernel restarts: the clock starts anew.
    """
    return any(frame.f_code.co_filename == IMPORTLIB for frame in frames)


def _stop(_frame: FrameType, event: str, _value: object) -> Callable[..., Any]:
    """A trace function that stops a frame at its next line; an `exception` event is no line."""
    if event == "line":
        raise TimeUp
    return _stop


def _limited_by_thread(work: Callable[[], Any], seconds: float) -> Any | None:  # noqa: ANN401
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(work()), daemon=True)
    thread.start()
    thread.join(seconds)
    while _importing(_frames_inside(work, sys._current_frames().get(thread.ident)) or []):
        thread.join(seconds)
    for _ in range(20):  # the stop arrives between two lines of Python, and may be caught
        if not thread.is_alive():
            break
        stop = ctypes.py_object(TimeUp)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), stop)
        thread.join(AGAIN)
    return found[0] if found else None
