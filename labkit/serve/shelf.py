"""Adapter folders by name, each with its card: what a server may load, and nothing else.

    shelf/
        ada/    adapter_model.safetensors  adapter_config.json  card.json
        bob/    ...

A name comes from outside, in a request. It is matched against letters before it meets the disk, and
the folder it names has to lie in the shelf itself: no dots, no slashes, no links out of it.

The card's hash is that of the base's file. It cannot tell whether the base was in 4 bits when the
adapter learnt: serve a QLoRA adapter on the same 4 bits, or on them dequantised (see merging).
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from labkit import adapters, interchange
from labkit.adapters import CARD, AdapterError
from labkit.models import Loaded
from labkit.serve.bank import Factors, read

if TYPE_CHECKING:
    from torch import nn

NAME = r"[a-z0-9][a-z0-9_-]{0,63}"


class UnknownAdapter(LookupError):
    """A name that no adapter of the shelf has."""


def adapter_folder(root: Path, name: str) -> Path:
    """The folder of an adapter by its name.

    A name is 1 to 64 of a-z, 0-9, _ and -, and begins with a letter or digit. Its folder lies
    directly in `root`, links followed, and holds a card.json.

    Raises:
        UnknownAdapter: for any other name, and for one that has no such folder.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,63}", name):
        raise UnknownAdapter(f"{name!r} is no name of an adapter: a-z, 0-9, _ and - alone")
    folder = (root / name).resolve()
    if folder.parent != root.resolve() or not (folder / "card.json").is_file():
        raise UnknownAdapter(f"there is no adapter {name!r}")
    return folder


class Shelf:
    """The adapters of one folder for one base; each is checked against its card as it is read.

    Args:
        other_base: also read adapters whose card names another base.
    """

    def __init__(self, root: Path, base: Loaded, other_base: bool = False) -> None:
        self.root, self.base, self.other_base = root, base, other_base

    @property
    def names(self) -> list[str]:
        """Every name that `read` would find, in order."""
        found = sorted(path.name for path in self.root.iterdir() if (path / CARD).is_file())
        return [name for name in found if re.fullmatch(NAME, name)]

    def read(self, name: str) -> Factors:
        """One adapter, from the disk.

        Raises:
            UnknownAdapter: if there is none of that name.
            AdapterError: if it belongs to another base, or is damaged.
        """
        return read(adapter_folder(self.root, name), self.base, self.other_base)


def save(model: "nn.Module", folder: Path, card: adapters.Card) -> Path:
    """Write the adapter of a model with labkit's or PEFT's layers, with its card; returns it.

    Raises:
        AdapterError: if the name could not be asked for, or the folder cannot be written.
    """
    if not re.fullmatch(NAME, folder.name):
        raise AdapterError(f"{folder.name!r} could not be asked for: a-z, 0-9, _ and - alone")
    if hasattr(model, "peft_config"):
        adapters.save(model, folder, card)
    else:
        interchange.save_adapter(model, folder)
        (folder / CARD).write_text(f"{card}\n", encoding="utf-8")
    return folder
