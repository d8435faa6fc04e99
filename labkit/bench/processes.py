"""One process for each configuration, measured in turn; each says one row.

    in_turns("labkit.bench.dora", [setting, ...], seconds=500)

Peak memory and compiled code belong to a process, so a configuration gets one of its own. Several
processes import their libraries together and wait; then one measures while the others are still.
"""

import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

AT_ONCE = min(8, os.cpu_count() or 1)  # processes that import together

Setting = Mapping[str, Any]  # what `json` can carry


class Waiting:
    """A process that has been started, and measures `setting` when it is told to."""

    def __init__(self, module: str, setting: Setting) -> None:
        self.setting = setting
        self.process = subprocess.Popen(
            [sys.executable, "-m", "labkit.bench.processes", module, json.dumps(setting)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ready(self) -> None:
        """Come back when its libraries are imported, or it has ended."""
        assert self.process.stdout is not None
        self.process.stdout.readline()

    def row(self, seconds: float) -> dict[str, Any]:
        """What it measured, or what went wrong."""
        try:
            said, wrong = self.process.communicate("go\n", timeout=max(1.0, seconds))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            return {"setting": self.setting, "error": f"not done within {seconds:.0f} s"}
        if self.process.returncode:
            return {"setting": self.setting, "error": wrong[-1500:]}
        return json.loads(said.splitlines()[-1])


def in_turns(module: str, settings: Sequence[Setting], seconds: float) -> Iterator[dict[str, Any]]:
    """The row of each setting, measured by `module.row(setting)` in a process of its own."""
    end = time.perf_counter() + seconds
    for start in range(0, len(settings), AT_ONCE):
        waiting = [Waiting(module, setting) for setting in settings[start : start + AT_ONCE]]
        for process in waiting:
            process.ready()
        for process in waiting:
            yield process.row(end - time.perf_counter())


def main(module: str, setting: str) -> None:
    """Import, say so, wait for a line, measure."""
    subject = importlib.import_module(module)
    subject.imports()
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps(subject.row(json.loads(setting))), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
