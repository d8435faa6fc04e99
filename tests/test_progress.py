"""The progress file: nothing is lost, nothing is fatal."""

import errno
import json
import os
import subprocess
import sys

import pytest

from labkit.exercises import board, check, progress
from labkit.exercises.progress import Item

WRITER = """
import sys
from labkit.exercises import progress
for n in range(int(sys.argv[2])):
    assert progress.record(f"{sys.argv[1]}.{n}", "passed").note == ""
    progress.record("both", "not yet")
"""
WRITES = 60


def solved(out, in_, rank):
    return rank * (out + in_)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_HOME", str(tmp_path))
    monkeypatch.delenv("LABKIT_STRICT", raising=False)
    monkeypatch.delenv("LABKIT_FALLBACK", raising=False)
    return tmp_path


def names(folder, pattern):
    return sorted(path.name for path in folder.glob(pattern))


def test_a_state_is_kept_and_never_gets_worse():
    for state in ("not tried", "not yet", "passed", "not yet", "not tried"):
        progress.record("00.1", state)
    assert progress.load().items == {"00.1": Item("passed", tries=3)}


def test_labkit_home_moves_the_file_and_the_default_is_in_the_home_folder(home, monkeypatch):
    assert progress.folder() == home
    monkeypatch.delenv("LABKIT_HOME")
    monkeypatch.setenv("HOME", str(home / "someone"))
    monkeypatch.setenv("USERPROFILE", str(home / "someone"))
    assert progress.folder() == home / "someone" / ".labkit"


def test_two_processes_that_write_at_once_lose_nothing():
    command = [sys.executable, "-c", WRITER]
    writers = [subprocess.Popen([*command, who, str(WRITES)]) for who in ("left", "right")]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0]
    items = progress.load().items
    want = {f"{who}.{n}" for who in ("left", "right") for n in range(WRITES)} | {"both"}
    assert set(items) == want
    assert items["both"].tries == 2 * WRITES


UNREADABLE = {
    "half a file": (b'{"version": 1, "items": {"00.1"', "could not be read"),
    "no text": (b"\xff\xfe\x00", "could not be read"),
    "empty": (b"", "could not be read"),
    "a list": (b"[]", "is not of version 1"),
    "a later version": (b'{"version": 2, "items": {}}', "is not of version 1"),
    "no items": (b'{"version": 1}', "holds no items"),
    "an unknown state": (
        b'{"version": 1, "items": {"00.1": {"state": "great", "tries": 1}}}',
        "holds an entry 00.1 that means nothing",
    ),
    "a state that is a list": (
        b'{"version": 1, "items": {"00.1": {"state": [], "tries": 1}}}',
        "holds an entry 00.1 that means nothing",
    ),
    "an entry without fields": (b'{"version": 1, "items": {"00.1": 3}}', "means nothing"),
    "tries that are a word": (
        b'{"version": 1, "items": {"00.1": {"state": "passed", "tries": "x"}}}',
        "means nothing",
    ),
}


@pytest.mark.parametrize(("content", "reason"), UNREADABLE.values(), ids=UNREADABLE)
def test_an_unreadable_file_is_set_aside_and_the_learner_is_told(home, content, reason):
    (home / progress.FILE).write_bytes(content)
    verdict = check("00.1", solved)
    (aside,) = home.glob("progress.unreadable-*.json")
    assert aside.read_bytes() == content
    assert verdict
    assert reason in verdict.note
    assert str(aside) in str(verdict)
    assert progress.load() == progress.Progress({"00.1": Item("passed", 1)})


def test_the_board_tells_of_a_file_that_it_set_aside(home):
    (home / progress.FILE).write_text("{")
    shown = board()
    assert "it was set aside as" in str(shown)
    assert 'role="alert"' in shown._repr_html_()
    assert names(home, "progress.unreadable-*") != []


def test_two_unreadable_files_are_both_kept(home):
    for content in ("{", "["):
        (home / progress.FILE).write_text(content)
        progress.load()
    assert len(names(home, "progress.unreadable-*.json")) == 2


def test_a_folder_that_cannot_be_written_costs_the_record_and_not_the_verdict(home, monkeypatch):
    (home / "file").write_text("")
    monkeypatch.setenv("LABKIT_HOME", str(home / "file" / "inside"))
    verdict = check("00.1", solved)
    assert verdict
    assert "is not kept" in verdict.note
    assert "set LABKIT_HOME to a folder you can write to" in verdict.note
    assert verdict.note in str(board())


def test_a_full_disk_leaves_the_old_file(home, monkeypatch):
    progress.record("00.1", "passed")
    before = (home / progress.FILE).read_bytes()

    def full(_descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    assert "No space left on device" in progress.record("00.2", "passed").note
    assert (home / progress.FILE).read_bytes() == before


def test_an_untouched_exercise_writes_nothing(home):
    progress.record("00.1", "not yet")
    stamp = progress.stamp()
    progress.record("00.1", "not tried")
    assert progress.stamp() == stamp


def test_the_file_is_plain_json_in_order(home):
    for id in ("00.2", "00.1"):
        progress.record(id, "not yet")
    content = json.loads((home / progress.FILE).read_text())
    assert list(content["items"]) == ["00.1", "00.2"]


def test_a_listener_hears_every_record_until_it_leaves():
    heard = []
    leave = progress.subscribe(lambda: heard.append(progress.load().state("00.1")))
    progress.record("00.1", "not yet")
    progress.record("00.1", "passed")
    leave()
    progress.record("00.1", "passed")
    assert heard == ["not yet", "passed"]
