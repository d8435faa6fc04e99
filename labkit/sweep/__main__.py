"""python -m labkit.sweep NAME: tune, run and keep one sweep; a line says how each run went."""

import argparse
import importlib
import pkgutil
from pathlib import Path

from labkit import sweep
from labkit.sweep import frame


def sweeps() -> list[str]:
    """The modules of this package that are a sweep."""
    return [m.name for m in pkgutil.iter_modules(sweep.__path__) if m.name not in FRAME]


FRAME = ("__main__", "frame", "overlaps")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m labkit.sweep")
    commands = parser.add_subparsers(dest="sweep", required=True)
    for name in sweeps():
        module = importlib.import_module(f"labkit.sweep.{name}")
        below = commands.add_parser(name, help=(module.__doc__ or "").splitlines()[0])
        below.add_argument("--out", type=Path, required=True, help="rows are appended to it")
        below.add_argument("--processes", type=int, default=2)
        below.add_argument("--seeds", type=int, nargs="+", default=list(frame.SEEDS))
        module.arguments(below)
        below.set_defaults(module=module)
    options = parser.parse_args()
    module = options.module
    groups = module.groups(options)
    job = module.job(options) if hasattr(module, "job") else frame.run
    settings = (options.processes, options.out, options.seeds, job)
    for row in frame.sweep(groups, module.rates, *settings):
        said = row.get("stopped") or f"{row['task']:.3f} right, loss {row['task_loss']:.4f}"
        print(f"{frame.spec_of(row)}: {said}", flush=True)


if __name__ == "__main__":
    main()
