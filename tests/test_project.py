"""Where things are, which switches there are, and whether the card of data/ tells the truth."""

import json
import re
import tomllib
from pathlib import Path

import pytest

from labkit import corpus, data, measure, project, skills
from labkit.project import LabkitError

CHECKOUT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
DATA = CHECKOUT / "data"
CARD = (DATA / "README.md").read_text(encoding="utf-8")


# Places


def test_the_checkout_holds_the_data():
    assert CHECKOUT == project.ROOT
    assert project.data("task", "train.jsonl") == DATA / "task" / "train.jsonl"


def test_a_wheel_finds_the_copy_that_travels_with_it(monkeypatch):
    monkeypatch.setattr(project, "ROOT", None)
    sent = PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert project.data("task") == CHECKOUT / sent["data"] / "task"


@pytest.mark.parametrize(
    ("place", "variable", "usual"),
    [
        (project.cache, "LABKIT_CACHE", "home/.cache/labkit"),
        (project.runs, "LABKIT_RUNS", "checkout/runs"),
    ],
)
def test_a_folder_is_made_where_it_is_asked_for(monkeypatch, tmp_path, place, variable, usual):
    monkeypatch.setattr(project, "ROOT", tmp_path / "checkout")
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    monkeypatch.delenv(variable, raising=False)
    assert place() == tmp_path / usual
    monkeypatch.setenv(variable, str(tmp_path / "far" / "away"))
    assert place() == tmp_path / "far" / "away"
    assert (tmp_path / usual).is_dir()
    assert (tmp_path / "far" / "away").is_dir()


def test_a_wheel_keeps_runs_where_it_is_called(monkeypatch, tmp_path):
    monkeypatch.setattr(project, "ROOT", None)
    monkeypatch.delenv("LABKIT_RUNS", raising=False)
    monkeypatch.chdir(tmp_path)
    assert project.runs() == tmp_path / "runs"


# Address and version


def test_address_and_version_are_those_of_pyproject():
    assert project.address() == PYPROJECT["project"]["urls"]["Repository"]
    assert project.version() == PYPROJECT["project"]["version"]


def test_a_wheel_carries_the_address_of_the_checkout(monkeypatch):
    monkeypatch.setattr(project, "ROOT", None)
    assert project.address() == PYPROJECT["project"]["urls"]["Repository"]


def test_a_project_without_an_address_says_where_it_belongs(monkeypatch, tmp_path):
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "labkit"\n', encoding="utf-8")
    monkeypatch.setattr(project, "ROOT", tmp_path)
    with pytest.raises(LabkitError, match=r"no Repository under \[project.urls\]; add one"):
        project.address()


# Switches


@pytest.mark.parametrize(
    ("value", "on"), [(None, False), ("", False), ("0", False), ("1", True), ("yes", True)]
)
@pytest.mark.parametrize(
    ("switch", "name"), [(project.quick, "LABKIT_QUICK"), (project.strict, "LABKIT_STRICT")]
)
def test_a_switch_is_off_until_it_is_set(monkeypatch, switch, name, value, on):
    if value is None:
        monkeypatch.delenv(name, raising=False)
    else:
        monkeypatch.setenv(name, value)
    assert switch() is on


def test_the_fallback_is_on_until_it_is_switched_off(monkeypatch):
    monkeypatch.delenv("LABKIT_FALLBACK", raising=False)
    assert project.fallback()
    monkeypatch.setenv("LABKIT_FALLBACK", "0")
    assert not project.fallback()


# The card of data/


def table(head):
    """The rows under the table head that begins so, without the marks of code."""
    lines = CARD.split(f"| {head} ")[1].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip().replace("`", "") for cell in line.split("|")[1:-1]] for line in lines]


def number(text):
    return int(text.replace(",", ""))


def records(name):
    return [json.loads(example.answer) for example in data.examples(name)]


SETS = {row[0]: row[1:] for row in table("file | rows")}


def test_the_card_names_every_file_of_data_and_no_other():
    named = {*SETS, *(row[0] for row in table("file | what it holds")), "README.md"}
    there = {p.relative_to(DATA).as_posix() for p in DATA.rglob("*") if p.is_file()}
    assert {name for name in there if not name.startswith("models/tiny/")} == named
    assert (DATA / "models" / "tiny" / "README.md").is_file()


@pytest.mark.parametrize("file", corpus.SETS)
def test_the_card_counts_rows_and_bytes_and_names_seed_and_split(file):
    rows, size, seed, keys, _ = SETS[file]
    _, true_seed, held, _ = corpus.SETS[file]
    raw = (DATA / file).read_bytes()
    assert (number(rows), number(size)) == (raw.count(b"\n"), len(raw))
    assert (int(seed), keys) == (true_seed, "held out" if held else "seen")


def test_the_card_names_the_fields_of_every_row_and_of_every_record():
    named = [row[0] for row in table("field | what it holds")]
    for file in corpus.SETS:
        for line in (DATA / file).read_text(encoding="utf-8").splitlines():
            assert list(json.loads(line)) == named
    assert [row[0] for row in table("field | type")] == list(skills.FIELDS)
    listed = re.findall(r"`(\w+)`", CARD.split("in `regression.jsonl` one of")[1].split("|")[0])
    found = [example.skill for example in data.examples("regression")]
    assert listed == list(dict.fromkeys(found))
    assert {found.count(skill) for skill in listed} == {30}


@pytest.mark.parametrize("name", ["train", "validation", "test"])
def test_the_card_counts_the_kinds_of_letters(name):
    (row,) = [row[1:] for row in table("file | invoices") if row[0] == f"task/{name}.jsonl"]
    kinds = [record["kind"] for record in records(name)]
    assert [number(n) for n in row] == [kinds.count("invoice"), kinds.count("contract")]


def test_the_amounts_lie_in_the_range_of_the_card():
    low, high = map(int, re.search(r"whole number, (\d+) to (\d+)", CARD).groups())
    amounts = [r["amount"] for name in ("train", "validation", "test") for r in records(name)]
    assert low <= min(amounts) < low + 50
    assert high - 50 < max(amounts) <= high


def letters(name):
    return [e.prompt.removesuffix(f"\n\n{skills.ASK_RECORD}") for e in data.examples(name)]


def test_no_letter_stands_in_two_sets_and_held_out_ones_stand_in_none_to_learn_from():
    sets = {name: letters(name) for name in ("train", "validation", "test")}
    every = [letter for found in sets.values() for letter in found]
    assert len(set(every)) == len(every) == 2800
    for name, found in sets.items():
        assert {skills.held_out(letter) for letter in found} == {name != "train"}


def test_what_the_card_says_of_shared_names_sums_and_dates_is_counted():
    learnt, asked = records("train"), records("test")
    for field in ("firm", "person"):
        assert not {r[field] for r in learnt} & {r[field] for r in asked}
    bear = [{part for r in found for part in r["person"].split()} for found in (learnt, asked)]
    said = re.search(r"of the (\d+) single names that its persons bear, (\d+) do", CARD).groups()
    assert tuple(map(int, said)) == (len(bear[1]), len(bear[0] & bear[1]))
    met = {f: sum(r[f] in {t[f] for t in learnt} for r in asked) for f in ("amount", "due")}
    amounts, of, dates = re.search(
        r"(\d+) of the (\d+) amounts and all (\d+) due dates", CARD
    ).groups()
    assert met == {"amount": int(amounts), "due": int(dates)}
    assert len(asked) == int(of) == int(dates)


def test_the_card_says_how_much_is_held_out():
    assert f"One key in {skills.HOLD_OUT}, by its CRC-32, is held out" in CARD


def test_the_licence_of_the_card_is_that_of_the_project():
    assert CARD.split("## Licence\n\n")[1].startswith(f"{PYPROJECT['project']['license']}, ")


def test_each_measurement_is_of_a_kind_that_the_card_lists():
    said = dict(row[:2] for row in table("file | what it holds"))["measurements/qlora_1b.jsonl"]
    for row in measure.rows_on_disk():
        keys = {"speed": "tokens_per_second", "memory": "peak_allocated_bytes"}
        for word in said.split(": ")[1].split(", "):
            assert keys.get(word, word.lower()) in row
