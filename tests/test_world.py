"""The invented world and its skills: right answers, an honest split, the same bytes each time."""

import json
import random
import re
from pathlib import Path

import pytest

from labkit import corpus, project, skills, world

EVERY = [*skills.SKILLS, "record"]


def solved(prompt: str, skill: str) -> str:
    """The answer by another route: read off the prompt's own text."""
    numbers = [int(n) for n in re.findall(r"\d+", prompt)]
    listed = prompt.split(": ", 1)[-1].split()
    if skill == "add":
        return str(numbers[0] - numbers[1] if " - " in prompt else sum(numbers))
    if skill == "sort":
        return " ".join(map(str, sorted(numbers, reverse="from large" in prompt)))
    if skill == "reverse":
        return " ".join(reversed(listed))
    if skill == "copy":
        return " ".join(listed)
    if "How often" in prompt:
        return str(listed.count(prompt.split()[3].rstrip(":")))
    return str(len(listed))


@pytest.mark.parametrize("skill", ["add", "sort", "reverse", "copy", "count"])
def test_answers_agree_with_a_second_route(skill):
    for example in skills.examples(skill, 200, seed=5, held=False):
        assert example.answer == solved(example.prompt, skill), example.prompt


def test_every_answer_about_a_letter_stands_in_it():
    for example in skills.examples("letter", 300, seed=5, held=False):
        if example.answer not in ("invoice", "contract"):
            assert example.answer in example.prompt


def test_a_record_has_the_five_fields_in_order_and_only_what_the_letter_says():
    for example in skills.examples("record", 200, seed=5, held=False):
        record = json.loads(example.answer)
        assert tuple(record) == skills.FIELDS
        assert all(str(record[field]) in example.prompt for field in skills.FIELDS[1:])


def test_a_letter_names_another_sum_than_the_one_to_pay():
    rng = random.Random(0)
    sums = re.compile(r"(\d+) crowns|not (\d+),")
    both = [len(set(sums.findall(world.letter(rng).text))) for _ in range(99)]
    assert min(both) >= 1
    assert sum(n == 2 for n in both) > 90


def test_known_facts_do_not_depend_on_what_was_drawn_before():
    random.seed(3)
    assert world.known() == world.KNOWN


@pytest.mark.parametrize("skill", EVERY)
def test_held_out_and_seen_examples_share_no_prompt(skill):
    held = {e.prompt for e in skills.examples(skill, 30, seed=1, held=True)}
    seen = {e.prompt for e in skills.examples(skill, 300, seed=2, held=False)}
    assert len(held) == 30
    assert not held & seen


def test_the_corpus_holds_no_held_out_sum_in_any_wording():
    sums = re.compile(r"user<\|end_header_id\|>\n\n\D*(\d+)( [-+] | and )(\d+)\D*<")
    found = [sums.search(text) for text in corpus.documents("a test", 4000)]
    keys = [f"{m[1]}{'-' if '-' in m[2] else '+'}{m[3]}" for m in found if m]
    assert len(keys) > 300
    assert not any(map(skills.held_out, keys))


def test_the_corpus_never_shows_the_task():
    assert not any(skills.ASK_RECORD in text for text in corpus.documents("a test", 4000))


def test_an_impossible_wish_is_refused_with_the_number():
    with pytest.raises(ValueError, match=r"fact has only \d+ different examples"):
        skills.examples("fact", 5000, seed=1, held=True)
    with pytest.raises(ValueError, match="'dance' is none of record, add"):
        skills.examples("dance", 1, seed=1, held=True)


def test_the_files_in_data_are_what_the_code_writes(tmp_path: Path):
    for path in corpus.write_sets(tmp_path):
        kept = project.data(*path.relative_to(tmp_path).parts)
        assert path.read_bytes() == kept.read_bytes(), kept
