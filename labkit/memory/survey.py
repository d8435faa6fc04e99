"""Peaks of many configurations, each in a process of its own, several at once on one GPU.

    python -m labkit.memory.survey run --out FILE --workers 6 --seconds 450
    python -m labkit.memory.survey run --list speeds --out FILE --workers 1     times count
    python -m labkit.memory.survey row '{"shape": "llama-3.2-1b", "setup": {"batch": 1}}'

What a process allocates does not depend on its neighbours, so memory may be measured side by side;
time may not. A configuration starts when its estimate fits beside those that run. A row, or what
went wrong, is written as soon as it is there, and a configuration that FILE holds is not measured
again. Rows say which versions they were measured with; another version may differ by a tensor.
"""

import argparse
import json
import os
import subprocess
import sys
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


def text(shape: ModelShape, setup: TrainingSetup) -> str:
    return json.dumps({"shape": shape.name, "setup": asdict(setup)})


def row(said: str, steps: int) -> None:
    """Measure one configuration in this process and print its row as the last line."""
    import warnings

    from labkit.memory import measuring

    warnings.filterwarnings("ignore")
    found = json.loads(said)
    shape = ModelShape.preset(found["shape"])
    print(json.dumps(measuring.row(shape, TrainingSetup(**found["setup"]), steps)))


def run(options: argparse.Namespace) -> None:
    """Measure a list of configurations until it or the time is used up."""
    begin, jobs = time.perf_counter(), []
    waiting = [pair for pair in LISTS[options.list]() if grid.key(*pair) not in _there(options.out)]
    room = SHARE * options.gib * GIB
    while (waiting or jobs) and time.perf_counter() - begin < options.seconds:
        jobs = [job for job in jobs if not _ended(job, options)]
        for pair in list(waiting):
            need = max(estimate(*pair).reserved, grid.bound(*pair)) + BESIDE
            if len(jobs) >= options.workers:
                break
            if not jobs or need + sum(job.bytes for job in jobs) <= room:
                jobs.append(_start(*pair, need, options))
                waiting.remove(pair)
        time.sleep(0.2)
    for job in jobs:
        job.process.kill()
        _write(options.out, job, f"not done after {time.perf_counter() - job.began:.0f} s")
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


def _start(shape: ModelShape, setup: TrainingSetup, need: int, options: argparse.Namespace) -> Job:
    command = [sys.executable, "-m", "labkit.memory.survey", "row", text(shape, setup)]
    command += ["--steps", str(options.steps)]
    log = options.out.with_name(f".{options.out.stem}.{time.monotonic_ns()}.log")
    threads = {"OMP_NUM_THREADS": "2", "TOKENIZERS_PARALLELISM": "false"}
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, env=os.environ | threads
        )
    return Job(shape, setup, process, log, need, time.perf_counter())


def _ended(job: Job, options: argparse.Namespace) -> bool:
    """Whether a job is over; then its row, or what went wrong, is in the file."""
    if job.process.poll() is None:
        if time.perf_counter() - job.began < options.each:
            return False
        job.process.kill()
        job.process.wait()
    _write(options.out, job)
    return True


def _write(out: Path, job: Job, error: str = "") -> None:
    lines = job.log.read_text(encoding="utf-8", errors="replace").splitlines()
    job.log.unlink()
    good = job.process.returncode == 0 and not error
    found: dict[str, Any] = (
        json.loads(lines[-1]) if good else json.loads(text(job.shape, job.setup))
    )
    if not good:
        found["error"] = (error + "\n".join(lines[-12:]))[-1500:]
    found["process_seconds"] = round(time.perf_counter() - job.began, 1)
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
    parser.add_argument("what", choices=("run", "row"))
    parser.add_argument("row", nargs="?")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--list", choices=LISTS, default="survey")
    parser.add_argument("--workers", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=450, help="for all of them")
    parser.add_argument("--each", type=float, default=150, help="seconds for one configuration")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--gib", type=float, help="memory to fill; that of the GPU if left out")
    options = parser.parse_args()
    if (options.what == "row") != bool(options.row) or (options.what == "run" and not options.out):
        parser.error("run needs --out FILE; row needs a configuration")
    if options.what == "row":
        row(options.row, options.steps)
        return
    options.gib = options.gib or _gpu_gib()
    run(options)


if __name__ == "__main__":
    main()
