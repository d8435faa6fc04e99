"""python -m labkit.sweep.overlaps FOLDER --out FILE: which directions the kept updates share.

    pair            one, other                                 question
    seeds           rank 16, two seeds                         is it the same subspace again?
    ranks           rank 4, rank 64, two seeds                 does the small one lie in the large?
    ranks, one seed rank 4, rank 64, the same seed             the same data order, another A
    lora and full   rank 16, full                              do they find the same?
    full            full, two seeds                            is that the same again?
    labels          rank 16, right and shuffled answers        is it the task that is shared?
    labels, one A   the same from one seed: one A at the start  what a shared start alone gives

FOLDER is what `labkit.sweep spectra --adapters` kept. A row is one pair and one side: by map, phi
of the first k directions of both, for k in KS, and what two random subspaces give, k / n. For SHOWN
maps it also holds phi of every i and j up to MOST. Left directions write the output, right ones
read the input.

Source: Hu et al. 2021, section 7.2, https://arxiv.org/abs/2106.09685
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from labkit import spectra
from labkit.adapter_files import read_adapter
from labkit.sweep.spectra import short

KS = (1, 2, 4, 8, 16)
MOST = 16
SHOWN = ("2.v_proj", "5.o_proj", "3.down_proj", "0.q_proj")
SEEDS = ((0, 1), (1, 2), (2, 0))
PAIRS = {  # each with the seed of one and of the other
    "seeds": ("rank16-task", "rank16-task", False),
    "ranks": ("rank4-task", "rank64-task", False),
    "ranks, one seed": ("rank4-task", "rank64-task", True),
    "lora and full": ("rank16-task", "full-task", False),
    "full": ("full-task", "full-task", False),
    "labels": ("rank16-task", "rank16-shuffled", False),
    "labels, one A": ("rank16-task", "rank16-shuffled", True),
}
Directions = dict[str, dict[str, Tensor]]  # by map and side: (n, k) with orthonormal columns


def directions(folder: Path) -> Directions:
    """The first MOST directions of every map, left and right."""
    found = {}
    for name, update in read_adapter(folder).updates.items():
        whole = update.spectrum()
        found[short(name)] = {"left": whole.left[:, :MOST], "right": whole.right[:, :MOST]}
    return found


def compared(one: Directions, other: Directions, side: str) -> dict[str, Any]:
    """By map: phi for KS; for SHOWN maps all of it; and the dimension of the space."""
    row: dict[str, Any] = {"phi": {}, "n": {}, "whole": {}}
    for name in one:
        U1, U2 = one[name][side], other[name][side]
        phi = spectra.overlap_map(U1, U2)
        row["n"][name] = len(U1)
        row["phi"][name] = [round(float(phi[k - 1, k - 1]), 3) for k in KS if k <= min(phi.shape)]
        if name in SHOWN:
            row["whole"][name] = [[round(v, 3) for v in line] for line in phi.tolist()]
    return row


def rows(folder: Path) -> Iterator[dict[str, Any]]:
    """Every pair whose two updates are there."""
    read: dict[str, Directions] = {}
    for label, (one, other, same) in PAIRS.items():
        for first, second in SEEDS:
            names = (f"{one}-seed{first}", f"{other}-seed{first if same else second}")
            if not all((folder / name).is_dir() for name in names):
                continue
            for name in names:
                if name not in read:
                    read[name] = directions(folder / name)
            for side in ("left", "right"):
                row = compared(read[names[0]], read[names[1]], side)
                if first:
                    del row["whole"], row["n"]  # one map of each kind is enough to look at
                yield {"pair": label, "one": names[0], "other": names[1], "side": side} | row


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m labkit.sweep.overlaps")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    lines = [json.dumps(row) + "\n" for row in rows(options.folder)]
    options.out.write_text("".join(lines), encoding="utf-8")
    print(f"{len(lines)} rows, {options.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
