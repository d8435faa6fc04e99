"""Where the repository, its data, its cache and its public address are. Standard library only."""

import os
import re
from importlib import metadata
from pathlib import Path


class LabkitError(Exception):
    """An error meant for the learner: its text says the value, the limit and the way out."""


_ABOVE = Path(__file__).resolve().parents[1]
ROOT: Path | None = _ABOVE if (_ABOVE / "pyproject.toml").is_file() else None  # None in a wheel


def data(*parts: str) -> Path:
    """A path inside data/: of the checkout, or of the copy that travels in the wheel."""
    base = ROOT / "data" if ROOT else Path(__file__).with_name("_data")
    return base.joinpath(*parts)


def cache() -> Path:
    """The folder for converted and downloaded models; LABKIT_CACHE moves it. Made on use."""
    path = Path(os.environ.get("LABKIT_CACHE", Path.home() / ".cache" / "labkit"))
    path.mkdir(parents=True, exist_ok=True)
    return path


def runs() -> Path:
    """The folder for a learner's checkpoints and adapters; LABKIT_RUNS moves it. Made on use."""
    path = Path(os.environ.get("LABKIT_RUNS", (ROOT or Path.cwd()) / "runs"))
    path.mkdir(parents=True, exist_ok=True)
    return path


def address() -> str:
    """The repository's public address, from the one place that says it: pyproject.toml's
    `[project.urls] Repository`, or what an installed wheel carries of it.

    Raises:
        LabkitError: if pyproject.toml names none.
    """
    if ROOT is None:
        urls = metadata.metadata("labkit").get_all("Project-URL") or []
        found = [url.split(", ", 1)[1] for url in urls if url.startswith("Repository, ")]
    else:
        text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        found = re.findall(r'^Repository = "([^"]+)"', text, re.M)
    if not found:
        raise LabkitError("pyproject.toml names no Repository under [project.urls]; add one")
    return found[0]


def version() -> str:
    """The version of labkit, as installed."""
    return metadata.version("labkit")


def _flag(name: str) -> bool:
    return os.environ.get(name, "0") not in ("", "0")


def quick() -> bool:
    """LABKIT_QUICK=1: fewer training steps, the same cells; for automatic runs."""
    return _flag("LABKIT_QUICK")


def strict() -> bool:
    """LABKIT_STRICT=1: a verdict other than "passed" raises; for automatic runs."""
    return _flag("LABKIT_STRICT")


def fallback() -> bool:
    """Unless LABKIT_FALLBACK=0, an unsolved exercise is replaced by the library's solution."""
    return os.environ.get("LABKIT_FALLBACK", "1") != "0"
