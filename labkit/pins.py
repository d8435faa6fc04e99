"""What is installed, against the pins of a checkout or the ranges of an installed labkit.

    a checkout    constraints.txt: name==version; marker      every package, direct or not
    Colab, wheel  the ranges of labkit's own requirements     only what labkit cannot do without

Only metadata is read. `packaging` and `tomllib` are imported on use, so that a set-up without the
one and a Python without the other can still be told so.
"""

import os
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING

from labkit import project

if TYPE_CHECKING:
    from packaging.requirements import Requirement


@dataclass(frozen=True)
class Wrong:
    """A package that is absent (`version` None) or outside what is wanted."""

    name: str
    version: str | None
    wanted: str


@dataclass(frozen=True)
class Comparison:
    """How many packages were compared, with pins or with ranges, and which are wrong."""

    checked: int
    pinned: bool
    wrong: tuple[Wrong, ...]


def pinned() -> bool:
    """Whether pins are what counts. Colab keeps the versions it came with: there ranges do."""
    return project.ROOT is not None and "COLAB_RELEASE_TAG" not in os.environ


def compare() -> Comparison:
    """Every pin of this platform in a checkout; in Colab and in a wheel every needed range.

    Raises:
        ImportError: without `packaging`.
    """
    wanted = _pins() if pinned() else _needed()
    return Comparison(len(wanted), pinned(), tuple(map(_wrong, _unfit(wanted))))


def lacking() -> list[str]:
    """The names of what labkit cannot do without and that is absent or outside its range."""
    try:
        return [wanted.name for wanted in _unfit(_needed())]
    except ImportError:
        return ["packaging"]


def _needed() -> "list[Requirement]":
    from packaging.requirements import Requirement

    if project.ROOT:
        import tomllib

        text = (project.ROOT / "pyproject.toml").read_text(encoding="utf-8")
        return [Requirement(line) for line in tomllib.loads(text)["project"]["dependencies"]]
    every = map(Requirement, metadata.requires("labkit") or [])
    return [one for one in every if one.marker is None or one.marker.evaluate({"extra": ""})]


def _pins() -> "list[Requirement]":
    from packaging.requirements import Requirement

    lines = (project.ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    every = [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]
    return [one for one in every if one.marker is None or one.marker.evaluate()]


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _unfit(wanted: "list[Requirement]") -> "list[Requirement]":
    versions = [(one, _installed(one.name)) for one in wanted]
    return [
        one
        for one, version in versions
        if version is None or not one.specifier.contains(version, prereleases=True)
    ]


def _wrong(wanted: "Requirement") -> Wrong:
    return Wrong(wanted.name, _installed(wanted.name), f"{wanted.name}{wanted.specifier}")
