"""python -m labkit.bench SUBJECT: measure one subject, print its rows, keep them as JSON lines."""

import argparse
import importlib
import json
import pkgutil
from pathlib import Path

from labkit import bench

FRAME = ("__main__", "timing", "processes")


def subjects() -> list[str]:
    """The modules of this package that measure something."""
    return [m.name for m in pkgutil.iter_modules(bench.__path__) if m.name not in FRAME]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m labkit.bench")
    commands = parser.add_subparsers(dest="subject", required=True)
    for name in subjects():
        subject = importlib.import_module(f"labkit.bench.{name}")
        below = commands.add_parser(name, help=(subject.__doc__ or "").splitlines()[0])
        below.add_argument("--out", type=Path, help="a file to which each row is appended")
        subject.arguments(below)
        below.set_defaults(rows=subject.rows)
    options = parser.parse_args()
    for row in options.rows(options):
        line = json.dumps(row)
        if options.out:
            with options.out.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        print(line, flush=True)


if __name__ == "__main__":
    main()
