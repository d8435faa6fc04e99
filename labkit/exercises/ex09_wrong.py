"""The banks of notebook 09: wrong answers as code, each with words of the message it must get."""

from labkit.exercises.exercise import Wrong


def _bank(*rows: tuple[str, str, str]) -> tuple[Wrong, ...]:
    """Rows of (name, message, code)."""
    return tuple(Wrong(name, code, message) for name, message, code in rows)


def _expressions(head: str, *rows: tuple[str, str, str]) -> tuple[Wrong, ...]:
    """Rows of (name, message, expression) that share the lines above their `return`."""
    return _bank(*((name, message, f"{head}\n    return {code}") for name, message, code in rows))


MERGE = _expressions(
    "def f(original, packed, A, B, scale):\n"
    "    from labkit.exercises.ex09_judges import again_in_4_bits as nf4\n"
    "    W4, update = packed.dense(), scale * B @ A\n"
    "    off = (W4 - original).norm().item() / update.norm().item()\n"
    "    right = W4 + update",
    ("into the checkpoint", "that is the checkpoint's weight; A and B", "original + update, off"),
    ("requantised", "that went back to 4 bits", "nf4(right), off"),
    ("checkpoint, then quantised", "quantised after the merge", "nf4(original + update), off"),
    ("quantises the update", "the update itself is not quantised", "W4 + nf4(update), off"),
    ("forgets the scale", "the scale is forgotten", "W4 + B @ A, off"),
    ("scales twice", "the scale comes once", "W4 + scale * update, off"),
    ("divides by the rank", "divided by the rank already", "W4 + update / len(A), off"),
    ("merges twice", "the update is added twice", "right + update, off"),
    ("subtracts", "the update is added, not taken away", "W4 - update, off"),
    ("scales the weight", "the scale belongs to the update alone", "scale * (W4 + B @ A), off"),
    ("transposes the update", "the update is transposed", "W4 + (update.T if W4.shape[0] == W4.shape[1] else update), off"),
    ("no update", "the update is missing", "W4.clone(), off"),
    ("update alone", "that is the update alone", "update, off"),
    ("change from the checkpoint", "that is the change from the checkpoint", "right - original, off"),
    ("transposed", "the merged weight is (out, in)", "right.T, off"),
    ("rounds to 16 bits", "that is rounded to 16 bits", "right.bfloat16(), off"),
    ("dtype of the map", "beside a map that computes in bfloat16", "W4 + update.to(W4.dtype), off"),
    ("in place on the map", "it changes `packed` in place", "[b.mul_(2) for b in packed.buffers() if b.is_floating_point()] and right, off"),
    ("weight alone", "return two things", "right"),
    ("in place on the checkpoint", "it changes `original` in place", "original.copy_(right), off"),
    ("in place on B", "it changes `B` in place", "W4 + B.mul_(scale) @ A, off"),
    ("mismatch over the weight", "relative to the weight; compare", "right, (W4 - original).norm().item() / original.norm().item()"),
    ("mismatch over the 4-bit weight", "relative to the 4-bit weight", "right, (W4 - original).norm().item() / W4.norm().item()"),
    ("other way round", "the other way round", "right, 1 / off"),
    ("squared", "take the root: sizes are norms", "right, off**2"),
    ("absolute mismatch", "divide by the size of the update", "right, off * update.norm().item()"),
    ("mismatch without the scale", "the update has its scale", "right, off * scale"),
    ("update in the difference", "only the bases differ", "right, (right - original).norm().item() / update.norm().item()"),
    ("largest entries", "compares the largest entries", "right, ((W4 - original).abs().max() / update.abs().max()).item()"),
    ("tensor for a number", "the mismatch must be a float, not Tensor", "right, (W4 - original).norm() / update.norm()"),
)  # fmt: skip

LOST = _expressions(
    "def f(W, delta, dtype):\n"
    "    got = (W + delta).to(dtype).to(W.dtype) - W\n"
    "    off, size = got - delta, delta.norm()\n"
    "    lost = (off.norm() / size).item()",
    ("relative to the weight", "relative to the weight, where it looks harmless", "(off.norm() / W.norm()).item()"),
    ("rounds the update alone", "that rounds the update alone", "((delta.to(dtype).to(W.dtype) - delta).norm() / size).item()"),
    ("ratio of sizes", "size of what is stored over what was asked for", "(got.norm() / size).item()"),
    ("one minus the ratio", "sizes may agree where entries do not: take the norm of the difference", "1 - (got.norm() / size).item()"),
    ("squared", "take the root: a size is a norm", "lost**2"),
    ("share of still entries", "share of entries that did not move", "(got == 0).float().mean().item()"),
    ("share of moved entries", "share of entries that moved", "(got != 0).float().mean().item()"),
    ("absolute", "divide by the size of the update", "off.norm().item()"),
    ("largest entries", "compares the largest entries", "(off.abs().max() / delta.abs().max()).item()"),
    ("mean entries", "compares mean entries", "(off.abs().mean() / delta.abs().mean()).item()"),
    ("what is kept", "that is what is kept", "1 - lost"),
    ("adds the update", "the update is subtracted, not added", "((got + delta).norm() / size).item()"),
    ("forgets to subtract", "subtract W and the update", "((W + delta).to(dtype).to(W.dtype).norm() / size).item()"),
    ("other way round", "the other way round", "1 / lost"),
    ("no rounding", "the lost share is", "((W + delta - W - delta).norm() / size).item()"),
    ("always bfloat16", "whatever `dtype` says", "(((W + delta).bfloat16().float() - W - delta).norm() / size).item()"),
    ("in place", "it changes what it was given: write W + delta", "((W.add_(delta).to(dtype).float() - W).norm() / size).item()"),
    ("tensor for a number", "must be a float, not Tensor", "off.norm() / size"),
)  # fmt: skip

_GATHER = (
    "def f(x, A, B, scales, which):\n"
    "    w, s = which.clamp(min=0), torch.where(which < 0, 0, scales[which])\n"
    "    def two(A, B, s):\n        return s[:, None, None] * (x @ A.mT @ B.mT)"
)
GATHERED = (
    *_expressions(
        _GATHER,
        ("first adapter for all", "the adapter of one row", "two(A[which[which >= 0][0]], B[which[which >= 0][0]], s * 0 + torch.where(which < 0, 0, scales[which[which >= 0][0]]))"),
        ("first row's, base or not", "the adapter of the first row", "two(A[which[0]], B[which[0]], scales[which[0]].repeat(len(x)))"),
        ("row i gets adapter i", "row i gets adapter i", "two(A[torch.arange(len(x)) % len(A)], B[torch.arange(len(x)) % len(A)], scales[torch.arange(len(x)) % len(A)])"),
        ("-1 wraps to the last", "as an index it is the last adapter", "two(A[which], B[which], scales[which])"),
        ("-1 clamped to adapter 0", "rows of -1 get adapter 0", "two(A[w], B[w], scales[w])"),
        ("no scales", "the scales are missing", "two(A[w], B[w], (which >= 0).to(x.dtype))"),
        ("scale of adapter 0", "has the scale of adapter 0", "two(A[w], B[w], torch.where(which < 0, 0, scales[0]))"),
        ("scale of row i", "has the scale of adapter i", "two(A[w], B[w], torch.where(which < 0, 0, scales[torch.arange(len(x)) % len(A)]))"),
        ("mean scale", "not their mean", "two(A[w], B[w], torch.where(which < 0, 0, scales.mean()))"),
        ("scale squared", "the scale comes once", "two(A[w], B[w], s * s)"),
        ("divides by the rank", "divided by the rank already", "two(A[w], B[w], s / A.shape[1])"),
        ("B of the first", "A is the row's own and B is not", "two(A[w], B[which[which >= 0][0]], s)"),
        ("A of the first", "B is the row's own and A is not", "two(A[which[which >= 0][0]], B[w], s)"),
        ("adds all", "adds all adapters to every row", "sum(scales[k] * (x @ A[k].mT @ B[k].mT) for k in range(len(A)))"),
        ("averages all", "averages all adapters", "sum(scales[k] * (x @ A[k].mT @ B[k].mT) for k in range(len(A))) / len(A)"),
        ("averages the factors", "averages the factors of all", "scales.mean() * (x @ A.mean(0).mT @ B.mean(0).mT)"),
        ("sorts and forgets", "in another order than they went in", "two(A[w], B[w], s)[which.argsort()]"),
        ("averages tokens", "each token has an update of its own", "two(A[w], B[w], s).mean(1, keepdim=True).expand(*x.shape[:2], B.shape[1])"),
        ("wrong order of factors", "your code raised RuntimeError", "s[:, None, None] * (x @ B[w] @ A[w])"),
        ("forms B A", "it forms B @ A, (out, in)", "s[:, None, None] * (x @ (B[w] @ A[w]).mT)"),
        ("all adapters, then picks", "works through all adapters for each row", "s[:, None, None] * (torch.einsum('bli,kri->bklr', x, A)[torch.arange(len(x)), w] @ B[w].mT)"),
        ("flattens the tokens", "has shape", "two(A[w], B[w], s).flatten(0, 1)"),
        ("another dtype", "has dtype", "two(A[w], B[w], s).half()"),
    ),
    *_bank(
        ("loops over adapters", "no loop over adapters", f"{_GATHER}\n    y = x.new_zeros(*x.shape[:2], B.shape[1])\n    for k in range(len(A)):\n        y[which == k] = scales[k] * (x[which == k] @ A[k].mT @ B[k].mT)\n    return y"),
        ("nothing for the base alone", "a batch of the base alone gets zeros", f"{_GATHER}\n    return None if (which < 0).all() else two(A[w], B[w], s)"),
        ("loops", "no loop over rows", f"{_GATHER}\n    return torch.stack([s[i] * (x[i] @ A[w[i]].mT @ B[w[i]].mT) for i in range(len(x))])"),
        ("writes into the batch", "it changes what it was given: the next batch", f"{_GATHER}\n    y = two(A[w], B[w], s)\n    which.clamp_(min=0)\n    return y"),
        ("empties the factors", "it changes what it was given: the next", f"{_GATHER}\n    y = two(A[w], B[w], s)\n    B.mul_(scales[:, None, None])\n    return y"),
    ),
)  # fmt: skip

_NAMES = "import os, re\nfrom pathlib import Path\nfrom labkit.serve.shelf import UnknownAdapter\n"
_FOLDER = (
    _NAMES + "def f(root, name):\n    folder = root / name\n    if {refuse}:\n"
    "        raise UnknownAdapter(name)\n    return folder"
)


def _folders(*rows: tuple[str, str, str]) -> tuple[Wrong, ...]:
    """Rows of (name, message, what is refused)."""
    return _bank(*((n, told, _FOLDER.format(refuse=refuse)) for n, told, refuse in rows))


_FORM = "re.fullmatch(r'[a-z0-9][a-z0-9_-]{0,63}', name)"
_CARD = "(folder / 'card.json').is_file()"
_INSIDE = "folder.resolve().parent == root.resolve()"
FOLDER = (
    *_folders(
        ("asks whether it exists", "anyone could load any file", f"not {_CARD}"),
        ("looks for .. at the start", "climbs out with ../ in its middle", f"name.startswith('..') or not {_CARD}"),
        ("begins like the root", "adapters-private begins like adapters", "not str(folder.resolve()).startswith(str(root.resolve()))"),
        ("match, not fullmatch", "a line break behind the name slips past", "not re.match(r'[a-z0-9][a-z0-9_-]{0,63}$', name) or not (root / name.strip() / 'card.json').is_file()"),
        ("no link resolved", "a link that leads out of the folder", f"not {_FORM} or not {_CARD}"),
        ("no card", "a folder without a card", f"not {_FORM} or not folder.is_dir() or not {_INSIDE}"),
        ("no existence", "say UnknownAdapter before anything is opened", f"not {_FORM} or name == 'empty' or not {_INSIDE}"),
        ("a dot", "a dot is no sign of a name", f"not re.fullmatch(r'[a-z0-9][a-z0-9_.-]{{0,63}}', name) or not {_CARD} or not {_INSIDE}"),
        ("begins with _", "not with _", f"not re.fullmatch(r'[a-z0-9_][a-z0-9_-]{{0,63}}', name) or not {_CARD} or not {_INSIDE}"),
        ("words", "none in the rest of a name", f"not re.fullmatch(r'[a-z0-9][\\w-]{{0,63}}', name) or not {_CARD} or not {_INSIDE}"),
        ("digits of any script", "digits of every script", f"not re.fullmatch(r'[a-z0-9][a-z\\d_-]{{0,63}}', name) or not {_CARD} or not {_INSIDE}"),
        ("one sign short", "it is a good name", f"not re.fullmatch(r'[a-z0-9][a-z0-9_-]{{0,62}}', name) or not {_CARD} or not {_INSIDE}"),
        ("match and $", "a line break behind the name", f"not re.match(r'[a-z0-9][a-z0-9_-]{{0,63}}$', name) or not {_CARD} or not {_INSIDE}"),
        ("anywhere below", "the parent must be the root itself", f"not {_FORM} or root.resolve() not in folder.resolve().parents or not {_CARD}"),
        ("text of the root", "compare parents, not the beginnings", f"not {_FORM} or not {_CARD} or not str(folder.resolve()).startswith(str(root.resolve())) or name == 'deep'"),
        ("root as given", "resolve the root, too", f"not {_FORM} or not {_CARD} or folder.resolve().parent != root"),
        ("disk before the form", "check the length before the disk", f"not {_FORM[:-7]}, name[:64].replace(chr(0), '.')) or not {_CARD} or not {_FORM} or not {_INSIDE}"),
        ("no limit of length", "set a limit of 64", f"not re.fullmatch(r'[a-z0-9][a-z0-9_-]*', name) or not {_CARD} or not {_INSIDE}"),
        ("only letters", "'acme-2' is refused; it is a good name", f"not re.fullmatch(r'[a-z]+', name) or not {_CARD}"),
        ("at least two signs", "'a' is refused; it is a good name", f"not re.fullmatch(r'[a-z0-9][a-z0-9_-]{{1,63}}', name) or not {_CARD}"),
        ("no underscore", "'9_lives' is refused", f"not re.fullmatch(r'[a-z0-9][a-z0-9-]{{0,63}}', name) or not {_CARD}"),
        ("letters of any script", "letters beyond a to z look alike", f"not re.fullmatch(r'(?!_)[\\w-]{{1,64}}', name.swapcase() if name == name.upper() else name) or name != name.lower() or not {_CARD} or not {_INSIDE}"),
        ("capitals", "capital letters: on some disks", f"not re.fullmatch(r'[A-Za-z0-9][A-Za-z0-9_-]{{0,63}}', name) or not {_CARD} or not {_INSIDE}"),
        ("begins with a dash", "others read as an option", f"not re.fullmatch(r'[a-z0-9_-]{{1,64}}', name) or not {_CARD} or not {_INSIDE}"),
        ("hidden", "a dot hides a folder", f"not re.fullmatch(r'[a-z0-9.][a-z0-9_-]{{0,63}}', name) or name == '.' or not {_CARD} or not {_INSIDE}"),
        ("inside the root is enough", "a name is one folder, not a path below it", f"any(part in name for part in ('..', '\\0', '\\n')) or name in ('', '.') or name.endswith('/') or not {_CARD}"),
    ),
    *_bank(
        ("repairs the name", "taking ../ out once leaves another behind", _NAMES + "def f(root, name):\n    folder = root / name.replace('../', '', 1) if name.startswith('....') else root / name.replace('..', '') / ''\n    if name.startswith('....'):\n        return folder\n    if name in ('', '.', '..') or '/' in name.rstrip('/') or not (folder / 'card.json').is_file():\n        raise UnknownAdapter(name)\n    return folder"),
        ("another error", "raises FileNotFoundError, not UnknownAdapter", _NAMES + "def f(root, name):\n    if not re.fullmatch(r'[a-z0-9][a-z0-9_-]{0,63}', name) or not (root / name / 'card.json').is_file():\n        raise FileNotFoundError(name)\n    return root / name"),
        ("a text", "return a Path, not str", _NAMES + "def f(root, name):\n    if not (root / name / 'card.json').is_file():\n        raise UnknownAdapter(name)\n    return os.path.join(root, name)"),
        ("the card's path", "gives another folder than root / name", _NAMES + "def f(root, name):\n    card = root / name / 'card.json'\n    if not card.is_file():\n        raise UnknownAdapter(name)\n    return card"),
        ("returns None", "is a `return` missing?", _NAMES + "def f(root, name):\n    return None"),
    ),
)  # fmt: skip
