"""Runs a function for so many seconds and stops it when they are over.

In the main thread of a Unix process an alarm interrupts the function; elsewhere a second thread
runs it and is told to stop. Both act between two lines of Python: a single call into C that never
returns cannot be interrupted, and `os._exit` ends the process.
"""

import ctypes
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

AGAIN = 0.05  # seconds until a stopped answer that caught the stop is stopped again
IMPORTLIB = "<frozen importlib._bootstrap>"  # the file of the frames of a running import


class TimeUp(BaseException):
    """The limit is over. Not an Exception, so that `except Exception` does not swallow it."""


def limited(work: Callable[[], Any], seconds: float) -> Any | None:  # noqa: ANN401
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
