"""Gates: what a fine-tune must reach, written into a small file before it is trained.

    {"fixed": "2026-11-25T09:30:00+00:00",
     "fingerprint": "3f0c5f6f9d5e",
     "gates": [{"metric": "task", "minimum": 0.9},
               {"metric": "regression", "may_fall": 0.02}]}

A gate asks for a `minimum` of the tuned model, or says how much it `may_fall` below the base; both
are shares, so 0.02 are two points. The fingerprint is a hash over the gates and the time. It makes
a change visible twice: a file edited by hand no longer matches its own fingerprint, and a file
written anew no longer matches the one that was noted before training.

Left out on purpose: a signature. Who wants to deceive can; this is for those who want to know.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from labkit.project import LabkitError

KEYS = ("metric", "minimum", "may_fall")


class GateError(LabkitError, ValueError):
    """Gates that cannot be used; says which, and what was expected."""


@dataclass(frozen=True)
class Gate:
    """One demand on one metric: exactly one of `minimum` and `may_fall`, shares from 0 to 1."""

    metric: str
    minimum: float | None = None
    may_fall: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.metric, str) or not self.metric:
            raise GateError(f"metric={self.metric!r}: a gate names the metric it holds")
        given = {k: getattr(self, k) for k in KEYS[1:] if getattr(self, k) is not None}
        if len(given) != 1:
            raise GateError(
                f"the gate of {self.metric!r} has {' and '.join(given) or 'neither'}: "
                "give exactly one of minimum and may_fall"
            )
        [(key, value)] = given.items()
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not 0 <= value <= 1:
            raise GateError(
                f"{key}={value!r} of {self.metric!r} is a share from 0 to 1: 2 points are 0.02"
            )

    def __str__(self) -> str:
        if self.minimum is not None:
            return f"{self.metric} at least {self.minimum:.0%}"
        return f"{self.metric} at most {100 * (self.may_fall or 0):g} points below the base"


@dataclass(frozen=True)
class Gates:
    """All gates of one evaluation, and when they were fixed (ISO 8601, with its time zone)."""

    gates: tuple[Gate, ...]
    fixed: str

    def __post_init__(self) -> None:
        if not self.gates:
            raise GateError("no gate: an evaluation that nothing can fail decides nothing")
        if len(set(self.gates)) < len(self.gates):
            raise GateError("the same gate stands twice")
        _time(self.fixed)

    @property
    def fingerprint(self) -> str:
        """Twelve hex digits over the gates and their time."""
        text = json.dumps([self.fixed, _plain(self.gates)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def __str__(self) -> str:
        lines = [f"fixed {self.fixed}, fingerprint {self.fingerprint}", *map(str, self.gates)]
        return "\n  ".join(lines)

    __repr__ = __str__


def _plain(gates: Sequence[Gate]) -> list[dict[str, Any]]:
    return [{k: v for k, v in asdict(gate).items() if v is not None} for gate in gates]


def _time(text: object) -> datetime:
    try:
        found = datetime.fromisoformat(text)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise GateError(f"fixed={text!r} is no time such as 2026-11-25T09:30:00+00:00") from error
    if found.tzinfo is None:
        raise GateError(f"fixed={text!r} has no time zone: end it with +00:00")
    return found


def now() -> str:
    """This second, in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def fix(path: Path, gates: Sequence[Gate], again: bool = False) -> Gates:
    """Write the gates with the time and the fingerprint. The same gates keep their first time.

    Args:
        again: replace other gates that stand there.

    Raises:
        GateError: other gates stand there, or a file that is none.
    """
    if path.exists() and not again:
        standing = load(path)
        if standing.gates != tuple(gates):
            raise GateError(
                f"{path.name} holds other gates, fixed {standing.fixed}: keep them, or say "
                "again=True and train anew"
            )
        return standing
    found = Gates(tuple(gates), now())
    said = {"fixed": found.fixed, "fingerprint": found.fingerprint, "gates": _plain(gates)}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
    return found


def load(path: Path) -> Gates:
    """The gates of a file.

    Raises:
        GateError: no file, no JSON, an unknown or missing key, a value that is no share, or a
            file that was changed after it was written.
    """
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise GateError(
            f"{path.name} cannot be read ({error.strerror}): fix() writes it"
        ) from error
    except ValueError as error:
        raise GateError(f"{path.name} is no JSON ({error})") from error
    if not isinstance(said, dict) or not {"fixed", "fingerprint", "gates"} <= set(said):
        raise GateError(f"{path.name} must be an object with fixed, fingerprint and gates")
    if not isinstance(said["gates"], list):
        raise GateError(f"{path.name}: gates is a list, found {type(said['gates']).__name__}")
    found = Gates(tuple(_gate(path, i, g) for i, g in enumerate(said["gates"], 1)), said["fixed"])
    if found.fingerprint != said["fingerprint"]:
        raise GateError(
            f"{path.name} was changed after it was fixed: its gates give the fingerprint "
            f"{found.fingerprint}, the file says {said['fingerprint']}; restore it, or fix() anew "
            "and train again"
        )
    return found


def _gate(path: Path, number: int, said: object) -> Gate:
    where = f"{path.name}, gate {number}"
    if not isinstance(said, dict):
        raise GateError(f"{where}: an object with {', '.join(KEYS)}, found {said!r}")
    if unknown := sorted(set(said) - set(KEYS)):
        raise GateError(f"{where}: {unknown[0]!r} is none of {', '.join(KEYS)}")
    try:
        return Gate(said.get("metric", ""), said.get("minimum"), said.get("may_fall"))
    except GateError as error:
        raise GateError(f"{where}: {error}") from error
