"""Ten kinds of bytes as five groups that an eye can follow, over the phases of a step.

grouped(kinds)    bytes by group
moments(phases)   bytes by group along the step, from its beginning to its end
"""

from collections.abc import Mapping

GROUPS = {
    "base": ("weights", "constants", "embeddings"),
    "what trains": ("adapters", "gradients", "optimizer"),
    "activations": ("activations",),
    "logits and loss": ("logits",),
    "for a moment": ("dequantisation", "workspace"),
}
EDGE = 0.02  # of a phase: how soon after its beginning it is drawn at its fullest
Kinds = Mapping[str, int]
Moment = tuple[float, dict[str, int]]


def grouped(kinds: Kinds) -> dict[str, int]:
    """Bytes by group; the groups together hold what the kinds hold."""
    return {group: sum(kinds.get(kind, 0) for kind in each) for group, each in GROUPS.items()}


def moments(phases: Mapping[str, Kinds]) -> list[Moment]:
    """Places on the axis of a step, one unit a phase, with the bytes alive there by group.

    A phase is given at its fullest, and drawn so where it begins. In the forward pass the
    activations grow from nothing; in the backward pass they shrink by what forward had kept.
    """
    first, last = next(iter(phases.values())), list(phases.values())[-1]
    kept = first.get("activations", 0)
    found: list[tuple[float, Kinds]] = [(0.0, {**first, "activations": 0, "dequantisation": 0})]
    for place, (name, held) in enumerate(phases.items()):
        end = dict(held)
        if name.startswith("backward"):
            end["activations"] = max(0, held.get("activations", 0) - kept)
        if place:
            found.append((place + EDGE, held))
        found.append((place + 1 - EDGE, end))
    return [(x, grouped(held)) for x, held in [*found, (float(len(phases)), last)]]
