"""The learner's progress: one small JSON file that two notebooks may write at once.

    folder   LABKIT_HOME, else ~/.labkit
    file     progress.json   {"version": 1, "items": {"04.2": {"state": "passed", "tries": 3}}}

Every write holds a lock, reads the file again, merges and replaces it in one step, so nothing
that another notebook wrote is lost, and a crash leaves the old file or the new one, never half.
An item only ever gets better. A file that cannot be read is set aside under a name with the time,
and the learner is told. Where nothing can be written the checks still work, and the note says so.
"""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from labkit.exercises.exercise import STATES

VERSION = 1
FILE, LOCK = "progress.json", "progress.lock"
_listeners: list[Callable[[], None]] = []


@dataclass(frozen=True)
class Item:
    """How far one exercise or question has come."""

    state: str = STATES[0]
    tries: int = 0

    def better(self, state: str) -> "Item":
        """One try later: the better of the two states."""
        best = max(self.state, state, key=STATES.index)
        return Item(best, self.tries + (state != STATES[0]))


@dataclass(frozen=True)
class Progress:
    """All items at one moment, and what the learner has to know about the file."""

    items: dict[str, Item] = field(default_factory=dict)
    note: str = ""

    def state(self, id: str) -> str:
        return self.items.get(id, Item()).state


class _Broken(ValueError):
    """The file is there but is not a progress file."""


def folder() -> Path:
    """Where the progress file lives; LABKIT_HOME moves it."""
    return Path(os.path.expanduser(os.environ.get("LABKIT_HOME") or "~/.labkit"))


def load() -> Progress:
    """The progress as the file has it now. Never raises."""
    return _held(lambda progress: progress)


def record(id: str, state: str) -> Progress:
    """The progress after one more try at `id`, written to the file. Never raises."""

    def merged(progress: Progress) -> Progress:
        item = progress.items.get(id, Item()).better(state)
        after = Progress({**progress.items, id: item}, progress.note)
        if after.items != progress.items:
            _write(after)
        return after

    progress = _held(merged)
    tell()
    return progress


def subscribe(listener: Callable[[], None]) -> Callable[[], None]:
    """`listener` runs after every `record` of this process; the result ends that."""
    _listeners.append(listener)
    return lambda: _listeners.remove(listener)


def tell() -> None:
    """Tell every listener that the progress may have changed."""
    for listener in list(_listeners):
        listener()


def stamp() -> int:
    """Changes whenever the file does; 0 while there is none."""
    try:
        return (folder() / FILE).stat().st_mtime_ns
    except OSError:
        return 0


def _held(step: Callable[[Progress], Progress]) -> Progress:
    """`step` on the file's progress, while no other notebook can touch the file."""
    try:
        with _lock():
            return step(_read())
    except OSError as error:
        reason = error.strerror or type(error).__name__
        way_out = "set LABKIT_HOME to a folder you can write to"
        return Progress(note=f"progress is not kept in {folder()}: {reason}; {way_out}")


def _read() -> Progress:
    path = folder() / FILE
    try:
        return Progress(_parsed(path.read_bytes()))
    except FileNotFoundError:
        return Progress()
    except _Broken as broken:
        aside = _set_aside(path)
        return Progress(note=f"the progress file {broken}; it was set aside as {aside}")


def _parsed(raw: bytes) -> dict[str, Item]:
    try:
        content = json.loads(raw.decode("utf-8"))
    except ValueError as error:  # broken JSON and broken UTF-8 alike
        raise _Broken("could not be read") from error
    if not isinstance(content, dict) or content.get("version") != VERSION:
        raise _Broken(f"is not of version {VERSION}")
    items = content.get("items")
    if not isinstance(items, dict):
        raise _Broken("holds no items")
    return {id: _item(id, value) for id, value in items.items()}


def _item(id: str, value: Any) -> Item:  # noqa: ANN401
    state, tries = (value.get("state"), value.get("tries")) if isinstance(value, dict) else (0, 0)
    if state not in STATES or not isinstance(tries, int):
        raise _Broken(f"holds an entry {id} that means nothing")
    return Item(state, tries)


def _set_aside(path: Path) -> Path:
    """Move the file out of the way; nothing that was ever written is deleted."""
    when = datetime.now().strftime("%Y%m%d-%H%M%S-%f")
    aside = path.with_name(f"{path.stem}.unreadable-{when}.json")
    os.replace(path, aside)
    return aside


def _write(progress: Progress) -> None:
    items = {id: vars(item) for id, item in sorted(progress.items.items())}
    text = json.dumps({"version": VERSION, "items": items}, indent=1) + "\n"
    part = folder() / f"{FILE}.part"  # one name is enough: only the holder of the lock writes
    with part.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, folder() / FILE)


@contextlib.contextmanager
def _lock() -> Iterator[None]:
    """Hold the lock file; the system lets go of it when a process dies."""
    folder().mkdir(parents=True, exist_ok=True)
    with (folder() / LOCK).open("a+b") as file:
        if os.name == "nt":
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
            try:
                yield
            finally:
                file.seek(0)
                msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)  # let go when the file is closed
            yield
