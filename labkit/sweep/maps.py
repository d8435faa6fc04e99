"""What one map's update holds, in numbers: FIELDS of labkit.readings, with two controls.

    D    the update, (out, in)             W    what it is added to

The controls of the count of intruders are an update with D's singular values on random directions,
and dense noise of D's Frobenius norm.
"""

import torch
from torch import Tensor

from labkit import spectra
from labkit.readings import FIRST, THRESHOLD, TOP_K


def short(name: str) -> str:
    """The name of a map as layer and projection: 2.v_proj."""
    parts = name.split(".")
    return f"{parts[2]}.{parts[-1]}"


def left_vectors(weight: Tensor) -> Tensor:
    """All left singular vectors of an (out, in) weight as columns."""
    return torch.linalg.svd(weight, full_matrices=False).U


def intruders(before: Tensor, tuned_weight: Tensor) -> int:
    """`spectra.intruder_dimensions` for a base whose left vectors are known already."""
    after = left_vectors(tuned_weight)[:, :TOP_K]
    return int(((before.T @ after).abs().amax(dim=0) < THRESHOLD).sum())


def reading(
    W: Tensor, before: Tensor, update: Tensor, found: spectra.Spectrum
) -> list[float | int]:
    """FIELDS of one map; what is counted as a whole number, the rest to three digits.

    Args:
        W, update: (out, in), float64.
        before: the left singular vectors of W.
        found: the SVD of `update`.
    """
    values = found.values
    noise = torch.randn_like(update)
    noise *= update.norm() / noise.norm()
    control = spectra.scrambled(values, *update.shape)
    inside = found.left.T @ W @ found.right
    numbers: list[Tensor | float | int] = [
        update.norm() / W.norm(),
        values[0] / torch.linalg.matrix_norm(W, 2),
        spectra.effective_rank(values),
        spectra.energy_rank(values),
        spectra.energy(values, FIRST),
        *(intruders(before, W + change) for change in (update, control, noise)),
        values[:FIRST].norm() / inside[:FIRST, :FIRST].norm(),
        values.norm() / inside.norm(),
    ]
    return [n if isinstance(n, int) else float(f"{float(n):.3g}") for n in numbers]
