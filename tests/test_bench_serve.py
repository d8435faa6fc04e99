"""The benchmark of serving: every way computes the same before it is timed."""

import functools
import json

import pytest
import torch
from served import tiny

from labkit.bench import serve


@pytest.fixture(scope="module")
def subjects():
    return serve.Subjects(tiny().model, rank=4, numbers=3, copies=2, peft=2)


@torch.no_grad()
@pytest.mark.parametrize("n", [1, 2, 3])
def test_every_way_gives_each_row_to_its_adapter(subjects, n):
    ids = torch.randint(1024, (7, 2), generator=torch.Generator().manual_seed(n))
    steps = subjects.steps(ids, n, graphs=False)
    assert set(steps) == {"base", "gather", "swap"} | ({"merged", "peft"} if n < 3 else set())
    wanted = steps["gather"]()
    assert wanted.shape == (7, 1024)
    for name in set(steps) - {"base"}:
        torch.testing.assert_close(steps[name](), wanted, rtol=1e-4, atol=1e-4)
    assert (steps["base"]() - wanted).abs().max() > 0.1  # the adapters do something


def test_rows_of_an_adapter_come_back_to_their_places():
    ids = torch.arange(7)[:, None]
    out = serve.by_group(ids, 3, lambda k, rows: 10 * rows + k)
    assert out[:, 0].tolist() == [0, 11, 22, 30, 41, 52, 60]


def test_the_command_writes_a_row_for_each_way_and_number(tmp_path, monkeypatch):
    from labkit.bench.__main__ import main

    monkeypatch.setattr(serve, "alternating", functools.partial(serve.alternating, warm=0))
    monkeypatch.setitem(serve.SHAPES, "tiny", ((2, 1),))
    out = tmp_path / "rows.jsonl"
    said = f"bench serve --adapters 1 2 3 --rounds 6 --copies 1 --peft 1 --rank 2 --out {out}"
    monkeypatch.setattr("sys.argv", said.split())
    main()
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    compared = [(r["setting"]["adapters"], r["name"]) for r in rows if "batch" in r["setting"]]
    one = ["base", "gather", "swap", "peft", "merged"]
    assert sorted(compared) == sorted([(1, n) for n in one] + [(2, n) for n in one[:3]])
    changes = [r["name"] for r in rows if "batch" not in r["setting"]]
    assert len(changes) == 6
    for row in rows:
        assert len(row["seconds"]) == 6
        assert row["versions"]["torch"] == torch.__version__
