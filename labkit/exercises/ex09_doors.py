"""The judges of notebook 09 for what stands at a server's door: names, exports, bills.

A name is judged in a folder of its own, with the neighbours that a careless check lets in: a
folder whose name begins like the root's, a link out of the root, a folder without a card.
"""

import contextlib
import copy
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from labkit.exercises.ex09_judges import NONE, number
from labkit.serve.shelf import UnknownAdapter

# --- 09.4 which folder a name means -----------------------------------------------------------

GOOD = ("acme", "acme-2", "a", "9_lives", "b" * 64)
LONG = "a" * 65
BAD = {  # a name, and why a server must not take it
    "../secret": "a name with ../ leaves the folder of adapters: anyone could load any file",
    "acme/../../secret": "a name that begins well still climbs out with ../ in its middle",
    "../adapters-private/x": "adapters-private begins like adapters: compare parents, not the beginnings of texts",
    "....//secret": "taking ../ out once leaves another behind: allow what is right, do not repair",
    "..": "the parent of the folder is no adapter",
    ".": "the folder of adapters is not itself an adapter",
    "": "an empty name is the folder itself: no adapter",
    "acme\n": "a line break behind the name slips past match() and $: use fullmatch",
    "acme\0": "a zero byte reaches the file system, which raises another error",
    "acme/": "a slash makes a path of a name",
    "acme/inner": "a name is one folder, not a path below it",
    "..\\secret": "a backslash is a slash on Windows",
    "Acme": "capital letters: on some disks Acme and acme are one folder, on others two",
    "äcme": "letters beyond a to z look alike and are not: allow ASCII alone",
    "-rf": "a name must begin with a letter or a digit: others read as an option or a hidden file",
    ".hidden": "a name must begin with a letter or a digit: a dot hides a folder",
    LONG: "a name without end fills logs, and file systems refuse it in their own way: set a limit of 64",
    "nobody": "there is no such folder: say UnknownAdapter before anything is opened",
    "empty": "a folder without a card is no adapter of ours",
    "link": "this name is a link that leads out of the folder: resolve it, then look at its parent",
    "file": "this is a file, not a folder with a card",
    "acme.v2": "a dot is no sign of a name: a-z, 0-9, _ and - alone",
    "_acme": "a name must begin with a letter or a digit, not with _",
    "aCME": "capital letters: none in the rest of a name either",
    "a\u0663": "\\d takes the digits of every script: 0 to 9 alone",
    "inner": "a card further down is not one of this folder",
    "deep": "this link leads below the folder's own adapters: the parent must be the root itself",
    "near": "this link leads to adapters-private: compare parents, not the beginnings of texts",
    "b" * 300: "check the length before the disk is asked: it refuses a long name in its own way",
}  # fmt: skip


def _tree(top: Path) -> Path:
    """A folder of adapters with its neighbours; returns the folder of adapters."""
    root = top / "adapters"
    for folder in (*(root / name for name in GOOD), top / "secret", top / "adapters-private" / "x"):
        folder.mkdir(parents=True)
        (folder / "card.json").write_text("{}")
    for place in (
        root,
        root / "acme" / "inner",
        root / "Acme",
        root / "äcme",
        root / "-rf",
        root / LONG,
        root / "acme.v2",
        root / "_acme",
        root / "aCME",
        root / "a\u0663",
    ):
        place.mkdir(parents=True, exist_ok=True)
        (place / "card.json").write_text("{}")
    for place in (root / ".hidden", root / "..\\secret"):
        place.mkdir(exist_ok=True)
        (place / "card.json").write_text("{}")
    (root / "empty").mkdir()
    (root / "file").write_text("{}")
    with contextlib.suppress(OSError):  # Windows knows no such name
        (root / "acme\n").mkdir()
        (root / "acme\n" / "card.json").write_text("{}")
    with contextlib.suppress(OSError):  # Windows may forbid links: then there is none to refuse
        (root / "link").symlink_to(top / "secret", target_is_directory=True)
        (root / "deep").symlink_to(root / "acme" / "inner", target_is_directory=True)
        (root / "near").symlink_to(top / "adapters-private" / "x", target_is_directory=True)
        (top / "way").symlink_to(root, target_is_directory=True)
    return root


def _refusal(answer: Callable[[Path, str], Any], root: Path, name: str, why: str) -> str | None:
    try:
        answer(root, name)
    except UnknownAdapter:
        return None
    except (LookupError, OSError, ValueError, TypeError) as error:
        return f"{name[:24]!r} raises {type(error).__name__}, not UnknownAdapter: {why}"
    return f"{name[:24]!r} is let in: {why}"


def judge_folder(answer: Callable[[Path, str], Any]) -> str | None:
    """a name is a name, and never a path"""
    with tempfile.TemporaryDirectory() as top:
        root = _tree(Path(top))
        for name in GOOD:
            try:
                got = answer(root, name)
            except UnknownAdapter:
                return f"{name!r} is refused; it is a good name and its folder has a card"
            if got is None:
                return NONE
            if not isinstance(got, Path):
                return f"return a Path, not {type(got).__name__}"
            if got.resolve() != (root / name).resolve():
                return f"{name!r} gives another folder than root / name"
        if (way := Path(top) / "way").exists():
            try:
                answer(way, "acme")
            except UnknownAdapter:
                return "'acme' is refused where a link leads to the root: resolve the root, too"
        bad = BAD | {f"{top}/secret": "an absolute path replaces the root when they are joined"}
        slips = (_refusal(answer, root, name, why) for name, why in bad.items())
        return next((slip for slip in slips if slip), None)


# --- 09.5 what vLLM refuses -------------------------------------------------------------------

PLAIN = {
    "peft_type": "LORA",
    "r": 16,
    "lora_alpha": 32,
    "use_dora": False,
    "use_rslora": False,
    "modules_to_save": None,
    "bias": "none",
    "rank_pattern": {},
    "alpha_pattern": {},
    "target_modules": ["q_proj", "v_proj"],
}
EXPORTS = (  # what differs from PLAIN, the largest rank, what must be refused, said otherwise
    ({}, 16, set(), "a plain adapter at the largest rank loads"),
    ({"r": 17}, 16, {"r"}, "rank 17 is above 16: vLLM refuses it"),
    ({"r": 16}, 8, {"r"}, "the limit is what the server was started with, max_rank, not a fixed 16"),
    ({"r": 128}, 256, set(), "rank 128 loads where max_lora_rank is 256: the limit is max_rank"),
    ({"use_dora": True}, 16, {"use_dora"}, "vLLM has no DoRA: use_dora must be refused"),
    ({"modules_to_save": ["lm_head"]}, 16, {"modules_to_save"}, "vLLM loads no whole modules beside A and B: modules_to_save must be refused"),
    ({"modules_to_save": []}, 16, set(), "an empty modules_to_save saves nothing: it loads"),
    ({"bias": "all"}, 16, {"bias"}, "trained biases are not loaded: bias must be \"none\""),
    ({"rank_pattern": {"q_proj": 8}}, 16, {"rank_pattern"}, "vLLM knows one rank for all maps and drops rank_pattern in silence: refuse it"),
    ({"alpha_pattern": {"q_proj": 8}}, 16, {"alpha_pattern"}, "vLLM scales by one alpha and drops alpha_pattern in silence: refuse it"),
    ({"target_modules": ["q_proj", "lm_head"]}, 16, {"target_modules"}, "an adapter of the head is none of the seven projections: target_modules must be refused"),
    ({"target_modules": ["model.layers.0.mlp.down_proj"]}, 16, set(), "a full name ends in one of the seven projections: it loads"),
    ({"use_rslora": True}, 16, set(), "rsLoRA is another scale, alpha / sqrt(r), which vLLM computes: it loads"),
    ({"lora_alpha": 512}, 16, set(), "alpha is a factor; vLLM has no limit for it"),
    ({"r": 64, "use_dora": True, "bias": "lora_only"}, 16, {"r", "use_dora", "bias"}, "name every field that is refused, not the first alone"),
)  # fmt: skip


def judge_export(answer: Callable[[dict[str, Any], int], Any]) -> str | None:
    """every field that vLLM refuses, and no other"""
    for change, limit, want, words in EXPORTS:
        config = PLAIN | change
        given = copy.deepcopy(config)
        got = answer(given, limit)
        if given != config:
            return "it changes the config, which others still read: look, and take nothing out"
        if got is None:
            return NONE
        if not isinstance(got, dict):
            return f"return a dict, field to reason, not {type(got).__name__}"
        if set(got) != want:
            return f"{change or 'nothing changed'}, max_rank={limit}: {words}"
        if not all(isinstance(why, str) and why.strip() for why in got.values()):
            return "each field needs a reason, a sentence that says what to do"
    for name in ("use_dora", "modules_to_save", "bias", "rank_pattern", "alpha_pattern"):
        config = {field: value for field, value in PLAIN.items() if field != name}
        if answer(config, 16):
            return f"older folders have no {name!r}: a field that is not there is not set"
    return None


# --- 09.6 what a tenant takes -----------------------------------------------------------------

BILLS = (
    (14_483_464_192, 41_943_040, 3, 4),
    (2_471_628_800, 11_272_192, 50, 2),
    (2_471_628_800, 11_272_192, 1000, 2),
    (1_100_000_000, 11_272_192, 50, 4),
    (14_483_464_192, 41_943_040, 1, 2),
)


def _bill_slips(base: int, numbers: int, tenants: int, width: int) -> Iterator[tuple[float, str]]:
    g, own = 2**30, width * numbers
    right = base / tenants + own
    yield right / 10**9, "that is in GB (10**9); GiB are 2**30 bytes"
    yield right, "that is in bytes; divide by 2**30"
    yield right / 2**20, "that is in MiB; a GiB has 2**30 bytes"
    yield right / 10**6, "that is in MB; a GiB has 2**30 bytes"
    yield (base + own) / g, "the base is there once for all: each tenant bears 1 / tenants of it"
    yield (base + tenants * own) / g, "that is the whole bill; one tenant's share was asked for"
    yield (base + own) / tenants / g, "an adapter belongs to one tenant: do not divide it"
    yield own / g, "the base has to be held, too: once, shared by all"
    yield base / tenants / g, "the adapter is missing: width * numbers"
    yield (base / tenants + 4 * numbers) / g, "four bytes a number is what PEFT saves; use `width`"
    yield (base / tenants + 2 * numbers) / g, "two bytes a number is one case; use `width`"
    yield (base / tenants + numbers) / g, "count bytes: a number takes `width` of them"
    yield (base / tenants + 8 * own) / g, "bytes, not bits"
    yield (base / tenants + 50e6) / g, "50 MB is what lessons say; compute it: width * numbers"
    yield (base / tenants + 2 * own) / g, "A and B are both counted in `numbers`: not twice"
    yield (base / tenants + own / tenants) / g, "an adapter belongs to one tenant: do not divide it"
    yield (width * base / tenants + own) / g, "`base_bytes` are bytes already: no width there"
    yield base // tenants // g + own / g, "divide once, at the end: // cuts digits off"


def judge_bill(answer: Callable[..., Any]) -> str | None:
    """the base once, an adapter each"""
    for bill in BILLS:
        base, numbers, tenants, width = bill
        want = sum(part / 1024**3 for part in [base / tenants, *([numbers] * width)])
        got = answer(*bill)
        if slip := number(got, want, list(_bill_slips(*bill)), "the share"):
            return f"{tenants} tenants, {width} bytes a number: {slip}"
    base, numbers, tenants, _ = BILLS[1]
    try:
        got = answer(base, numbers, tenants)
    except TypeError:
        return "without `width` it raises: two bytes are its default"
    want = (base / tenants + 2 * numbers) / 2**30
    if slip := number(got, want, list(_bill_slips(base, numbers, tenants, 2)), "the share"):
        return f"{tenants} tenants, `width` left out, which means 2: {slip}"
    return None
