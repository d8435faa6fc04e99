"""Peaks of many configurations, each in a process of its own, several at once.

    python -m labkit.memory.survey --out FILE --workers 6 --seconds 450
    python -m labkit.memory.survey --list speeds --steps 6 --workers 1 --out FILE    times count
    python -m labkit.memory.survey --engine rehearsal --out FILE          dry runs, on any CPU

What a process allocates does not depend on its neighbours, so memory may be measured side by side;
time may not. A configuration starts when its bound fits beside those that run. A row, or what went
wrong, is written as soon as it is there, and a configuration that FILE holds is not run again.
Rows say which versions they were measured with; another version may differ by a tensor.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from labkit.memory import grid
from labkit.memory.closed_form import estimate
from labkit.memory.setup import TrainingSetup
from labkit.memory.shapes import ModelShape

GIB = 2**30
BESIDE = 2 * GIB  # of a process beside its bound: the context and what building takes
SHARE = 0.92  # of the GPU's memory that processes may take together
LISTS = {"survey": grid.survey, "speeds": grid.speeds}


@dataclass
class Job:
    """A configuration in its process, which writes into a file of its own."""

    shape: ModelShape
    setup: TrainingSetup
    process: subprocess.Popen[bytes]
    log: Path
    bytes: int
    began: float

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.began


def run(options: argparse.Namespace) -> None:
    """Run a list of configurations until it or the time is used up."""
    begin, jobs = time.perf_counter(), []
    there = _there(options.out)
    waiting = [pair for pair in LISTS[options.list]() if grid.key(*pair) not in there]
    room = SHARE * options.gib * GIB
    with tempfile.TemporaryDirectory() as folder:
        while (waiting or jobs) and time.perf_counter() - begin < options.seconds:
            jobs = [job for job in jobs if not _ended(job, options)]
            for pair in list(waiting):
                need = grid.bound(*pair) + BESIDE
                if len(jobs) >= options.workers:
                    break
                if not jobs or need + sum(job.bytes for job in jobs) <= room:
                    jobs.append(_start(*pair, need, Path(folder), options))
                    waiting.remove(pair)
            time.sleep(0.2)
        for job in jobs:
            job.process.kill()
            job.process.wait()
            _write(options.out, job, f"not done after {job.seconds:.0f} s")
    print(f"{len(waiting)} not begun, {time.perf_counter() - begin:.0f} s", flush=True)


def _there(out: Path) -> set[str]:
    """The keys of the configurations that a file of rows holds, errors left out."""
    if not out.exists():
        return set()
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    return {
        grid.key(ModelShape.preset(r["shape"]), TrainingSetup(**r["setup"]))
        for r in rows
        if "error" not in r
    }


def _start(
    shape: ModelShape, setup: TrainingSetup, need: int, folder: Path, options: argparse.Namespace
) -> Job:
    said = {"shape": asdict(shape), "setup": asdict(setup), "steps": options.steps}
    asked = folder / f"{time.monotonic_ns()}.json"
    asked.write_text(json.dumps(said), encoding="utf-8")
    log = asked.with_suffix(".log")
    threads = {"OMP_NUM_THREADS": "2", "TOKENIZERS_PARALLELISM": "false"}
    with log.open("wb") as file, asked.open("rb") as stdin:
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", f"labkit.memory.{options.engine}"],
            stdin=stdin,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=os.environ | threads,
        )
    return Job(shape, setup, process, log, need, time.perf_counter())


def _ended(job: Job, options: argparse.Namespace) -> bool:
    """Whether a job is over; then its row, or what went wrong, is in the file."""
    if job.process.poll() is None:
        if job.seconds < options.each:
            return False
        job.process.kill()
        job.process.wait()
    _write(options.out, job)
    return True


def _write(out: Path, job: Job, error: str = "") -> None:
    lines = job.log.read_text(encoding="utf-8", errors="replace").splitlines()
    found: dict[str, Any] = {"shape": job.shape.name, "setup": asdict(job.setup)}
    if job.process.returncode == 0 and not error:
        found |= json.loads(lines[-1])
    else:
        found["error"] = (error + "\n".join(lines[-12:]))[-1500:]
    with out.open("a", encoding="utf-8") as file:
        file.write(json.dumps(found) + "\n")
    said = estimate(job.shape, job.setup).peak / GIB
    peak = found.get("peak_allocated_bytes", 0) / GIB
    trouble = found.get("error", "")[-300:]
    print(f"{peak:7.3f} {said:7.3f} {grid.key(job.shape, job.setup)} {trouble}", flush=True)


def _gpu_gib() -> float:
    ask = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    done = subprocess.run(ask, capture_output=True, text=True, check=True)
    return int(done.stdout.split()[0]) / 1024


def main() -> None:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    parser = argparse.ArgumentParser(prog="python -m labkit.memory.survey")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--engine", choices=("measuring", "rehearsal"), default="measuring")
    parser.add_argument("--list", choices=LISTS, default="survey")
    parser.add_argument("--workers", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=450, help="for all of them")
    parser.add_argument("--each", type=float, default=150, help="seconds for one configuration")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--gib", type=float, help="memory to fill; that of the GPU if left out")
    options = parser.parse_args()
    if options.gib is None:
        options.gib = 1e6 if options.engine == "rehearsal" else _gpu_gib()
    run(options)


if __name__ == "__main__":
    main()
