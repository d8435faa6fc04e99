"""A download, whole or refused, against a hub on loopback."""

import errno
import os
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from hub_server import Hub, Repo
from huggingface_hub import constants, file_download
from huggingface_hub.utils import close_session
from transformers import LlamaConfig, LlamaForCausalLM

from labkit import hub, models, project
from labkit.hub import HubError

ORIGINAL, COPY = "meta-llama/Llama-3.2-1B-Instruct", "unsloth/Llama-3.2-1B-Instruct"
SHAPE = {
    "vocab_size": 1024, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
    "tie_word_embeddings": True,
}  # fmt: skip
NEVER = ("pytorch_model.bin", "original/consolidated.00.pth", "modeling_llama.py", "weights.pkl")


def checkpoint(folder, seed):
    """A Llama as a hub holds one: safetensors, and files beside it that run code when read."""
    torch.manual_seed(seed)
    LlamaForCausalLM(LlamaConfig(**SHAPE)).save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(project.data("models", "tiny", file), folder)
    for file in NEVER:
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text("raise SystemExit")
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    base = tmp_path_factory.mktemp("repositories")
    return {ORIGINAL: checkpoint(base / "one", 1), COPY: checkpoint(base / "two", 2)}


@pytest.fixture
def server(folders):
    with Hub() as running:
        running.repos = {name: Repo(folder) for name, folder in folders.items()}
        yield running


def ask(address, monkeypatch):
    """Let huggingface_hub ask `address`; it has read its environment on import."""
    close_session()
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


@pytest.fixture(autouse=True)
def client(server, tmp_path, monkeypatch):
    ask(server.address, monkeypatch)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    # Between two attempts the client sleeps for a second.
    monkeypatch.setattr(file_download, "time", SimpleNamespace(sleep=lambda _: None))
    yield
    close_session()


def unplug(monkeypatch):
    with Hub() as gone:
        address = gone.address
    ask(address, monkeypatch)


def same_weights(loaded, folder):
    wanted = LlamaForCausalLM.from_pretrained(folder).state_dict()
    return all(torch.equal(p, wanted[n]) for n, p in loaded.model.state_dict().items())


def load():
    return models.load("llama-3.2-1b", quantize=None, dtype=torch.float32)


def test_the_tier_is_loaded_from_the_original_where_it_is_open(server, folders):
    loaded = load()
    assert loaded.description.startswith("llama-3.2-1b (it was asked for)")
    assert same_weights(loaded, folders[ORIGINAL])
    assert {request.repo for request in server.seen} == {ORIGINAL}


@pytest.mark.parametrize("gate", [401, 403])
def test_a_gated_original_gives_way_to_the_ungated_copy(server, folders, gate):
    server.repos[ORIGINAL].gate = gate
    assert same_weights(load(), folders[COPY])
    assert server.fetched(ORIGINAL) == []


def test_a_learner_with_an_address_in_the_environment_gets_the_model(server, folders, tmp_path):
    """The same without a patch: a fresh process that knows the hub by HF_ENDPOINT alone."""
    server.repos[ORIGINAL].gate = 401
    program = "from labkit import models; print(models.load('llama-3.2-1b'))"
    home = {"HF_ENDPOINT": server.address, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | home,
        cwd=project.ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert re.match(r"llama-3.2-1b \(it was asked for\): .*NF4", done.stdout), done.stderr
    assert set(server.fetched(COPY)) > {"config.json", "model.safetensors", "tokenizer.json"}
    assert list((tmp_path / "home").rglob("model.safetensors"))


WAYS = {
    "both gated": (
        {"gate": 401},
        {"gate": 403},
        rf"{ORIGINAL} is gated: .*`hf auth login`.*LABKIT_MODEL=tiny; then {COPY} is gated",
    ),
    "gated, and the hub out of order": (
        {"gate": 403},
        {"status": 500},
        rf"is gated.*LABKIT_MODEL=tiny; then the hub answered 500 for {COPY}: try again later, or",
    ),
    "gated, and unknown": ({"gate": 401}, None, rf"gated.*; then the hub knows no {COPY}"),
}


@pytest.mark.parametrize(("original", "copy", "message"), WAYS.values(), ids=WAYS)
def test_when_both_fail_the_message_names_both_and_the_way_out(
    server, folders, original, copy, message
):
    server.repos = {ORIGINAL: Repo(folders[ORIGINAL], **original)}
    if copy:
        server.repos[COPY] = Repo(folders[COPY], **copy)
    with pytest.raises(HubError, match=message):
        load()


ANSWERS = {
    "gated, no token": ({"gate": 401}, r"gated: accept its licence .*then log in with `hf auth"),
    "gated, not let in": ({"gate": 403}, r"gated: accept its licence .*then log in with `hf auth"),
    "a token that is no longer valid": (
        {"status": 401},
        r"answered 401 .*token is not valid.*run `hf",
    ),
    "forbidden": ({"status": 403}, r"answered 403 .*may not read it: run `hf auth login`"),
    "too many requests": ({"status": 429}, r"the hub answered 429"),
    "out of order": ({"status": 500}, r"the hub answered 500 .*: try again later, or work with"),
    "a hotel's page": ({"page": True}, r"no hub.*HF_ENDPOINT.*LABKIT_MODEL=tiny"),
    "a file server": ({"anonymous": True}, r"no hub.*HF_ENDPOINT.*LABKIT_MODEL=tiny"),
}


@pytest.mark.parametrize(("answer", "message"), ANSWERS.values(), ids=ANSWERS)
def test_each_refusal_is_one_sentence_with_a_way_out(server, folders, answer, message):
    server.repos[ORIGINAL] = Repo(folders[ORIGINAL], **answer)
    with pytest.raises(HubError, match=message) as refused:
        hub.fetch(ORIGINAL)
    assert ORIGINAL in str(refused.value)
    assert str(refused.value).endswith("LABKIT_MODEL=tiny")
    assert "\n" not in str(refused.value)


def test_an_unknown_name_is_told_from_a_gate(server):
    with pytest.raises(HubError, match=r"knows no no-one/nothing, .*check the name, run `hf auth"):
        hub.fetch("no-one/nothing")


def test_without_a_network_the_message_names_the_tier_that_needs_none(monkeypatch):
    unplug(monkeypatch)
    with pytest.raises(HubError, match=r"not in the cache .* cannot be reached.*LABKIT_MODEL=tiny"):
        hub.fetch(ORIGINAL)


def test_told_to_stay_offline_it_asks_nobody(server, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="HF_HUB_OFFLINE=0"):
        hub.fetch(ORIGINAL)
    assert server.seen == []


def test_what_was_fetched_once_needs_no_network(monkeypatch):
    first = hub.fetch(ORIGINAL)
    unplug(monkeypatch)
    assert hub.fetch(ORIGINAL) == first


def test_a_snapshot_with_its_config_alone_is_no_model_without_a_network(monkeypatch):
    """`why_not` leaves the config in the cache; taken for the model, it would lack its weights."""
    assert hub.why_not(ORIGINAL) is None
    unplug(monkeypatch)
    with pytest.raises(HubError, match="not in the cache"):
        hub.fetch(ORIGINAL)


def test_a_full_disk_is_told_and_leaves_room_for_the_next_attempt(tmp_path, monkeypatch):
    def full(url, temp_file, **_):
        temp_file.write(b"half")
        raise OSError(errno.ENOSPC, "Kein Platz mehr")  # a system speaks its own language

    with monkeypatch.context() as patch:
        patch.setattr(file_download, "http_get", full)
        with pytest.raises(HubError, match=r"could not be stored: the disk is full.*HF_HOME"):
            hub.fetch(ORIGINAL)
    assert not [path for path in (tmp_path / "cache").rglob("*") if "incomplete" in path.name]
    assert (hub.fetch(ORIGINAL) / "config.json").is_file()


def test_a_cache_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "cache").write_text("in the way")
    with pytest.raises(HubError, match=r"could not be stored: (Not a directory|File exists)"):
        hub.fetch(ORIGINAL)


def test_a_dropped_connection_is_taken_up_where_it_broke(server, folders, monkeypatch):
    """The client writes whole chunks, so the cuts stand at multiples of one."""
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1024)
    server.repos[ORIGINAL].drops = {"model.safetensors": [20 * 1024, 7 * 1024]}
    folder = hub.fetch(ORIGINAL)
    asked = [r.range for r in server.seen if (r.method, r.file) == ("GET", "model.safetensors")]
    assert asked == [None, f"bytes={20 * 1024}-", f"bytes={27 * 1024}-"]
    whole = (folders[ORIGINAL] / "model.safetensors").read_bytes()
    assert (folder / "model.safetensors").read_bytes() == whole


def test_a_connection_that_drops_for_good_keeps_the_whole_files(server, folders):
    server.repos[ORIGINAL].drops = {"model.safetensors": [0] * 6}
    with pytest.raises(HubError, match=r"broke off \(RemoteProtocolError\): run the cell again"):
        hub.fetch(ORIGINAL)
    before = len(server.fetched(ORIGINAL))
    folder = hub.fetch(ORIGINAL)
    again = server.fetched(ORIGINAL)[before:]
    assert "model.safetensors" in again
    assert "tokenizer.json" not in again
    assert models.check(folder) is None


def test_nothing_that_runs_code_is_ever_fetched(server):
    folder = hub.fetch(ORIGINAL)
    assert set(NEVER) < set(server.repos[ORIGINAL].files)
    assert {request.file for request in server.seen}.isdisjoint(NEVER)
    kept = {path.suffix for path in folder.rglob("*") if path.is_file()}
    assert kept == {".json", ".safetensors", ".jinja"}


def test_why_not_asks_for_the_config_alone(server):
    assert hub.why_not(ORIGINAL) is None
    assert server.fetched(ORIGINAL) == ["config.json"]
    server.repos[COPY].gate = 403
    assert hub.why_not(COPY).startswith(f"{COPY} is gated")


def test_an_error_of_a_library_that_changed_its_name_is_still_a_sentence(monkeypatch):
    """huggingface_hub moved from httpx to httpx2: what it raises must not be known by name."""

    class Torn(Exception):
        pass

    def torn(*_, **__):
        raise Torn("in half")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", torn)
    with pytest.raises(HubError, match=rf"{ORIGINAL} broke off \(Torn\)"):
        hub.fetch(ORIGINAL)
