"""What notebook 03 says in prose, held against its own tables and against the library."""

import itertools
import re
from functools import cache
from pathlib import Path

import nbformat
import pytest

from labkit import codes, fitted, usage, weights
from labkit.exercises import ex03, quiz

SOLVED = Path(__file__).parents[1] / "notebooks" / "solutions" / "03_nf4_quantiles.ipynb"
BLOCKS = (16, 32, 64, 128, 256, 4096)


@cache
def texts():
    """Everything that the solved notebook shows as text, cell by cell."""
    found = []
    for cell in nbformat.read(SOLVED, as_version=4).cells:
        for output in cell.get("outputs", []):
            found.append(output.get("text") or output.get("data", {}).get("text/plain", ""))
    return found


@cache
def prose():
    found = nbformat.read(SOLVED, as_version=4).cells
    return " ".join(" ".join(c.source.split()) for c in found if c.cell_type == "markdown")


def table(heading):
    """The rows of the one table under a heading, by their names."""
    there = [text for text in texts() if heading in text]
    assert len(there) == 1, (heading, len(there))
    rows = [re.split(r" {2,}", line) for line in there[0].splitlines()]
    return {name: cells for name, *cells in rows}


def line(beginning):
    there = [ln for text in texts() for ln in text.splitlines() if ln.startswith(beginning)]
    assert len(there) == 1, (beginning, there)
    return there[0]


def says(sentence):
    assert sentence in prose(), sentence


def test_even_marks_are_used_unevenly():
    share = float(re.search(r"([\d.]+)% of", line("the inner eight marks"))[1])
    says("Four weights in five share half of the marks")
    assert 75 < share < 85
    assert line("the outer four").endswith("a mark at zero: False")


def test_the_naive_recipes_fail_as_the_prose_says():
    rows = table("farthest from NF4")
    assert rows["middles of 16 equal cells"][:3] == ["16", "0", "no"]
    assert rows["borders of 16 equal cells"][:2] == ["15", "2"]
    assert rows["the paper's equation 4"][:2] == ["15", "1"]
    says("The middles have no zero. The borders have two infinite ends, and 15 levels remain")


def test_blocks_of_64_stretch_the_marks():
    rows = table("mean over our blocks")
    exact = {int(b): float(cells[0]) for b, cells in rows.items() if b.isdigit()}
    says("1.848 standard deviations")
    says("At 64 the largest weight stands at 2.6 standard deviations")
    assert line("NF4's outermost quantile").endswith("1.848")
    assert round(exact[64], 1) == 2.6
    assert min(exact, key=lambda b: abs(exact[b] - 1.848)) == min(exact)


def test_the_codes_carry_3_885_bits_at_block_64():
    rows = table("bits, by your codes")
    assert rows["64"][0] == "3.885"
    assert all(abs(float(e) - float(c)) < 0.02 for b, (e, c) in rows.items() if b.isdigit())
    says("its codes carry 3.885 of 4 bits at block 64")


def test_the_verdict_on_optimality_reads_its_table_rightly():
    rows = table("absolute error / std")
    found = {n: tuple(map(float, cells)) for n, cells in rows.items() if n != "code"}
    nf4 = found["NF4"]
    assert found["used equally"][0] > 3.99
    assert found["used equally"][1] / nf4[1] == pytest.approx(2, abs=0.1)
    assert 1 - found["Lloyd-Max with -1, 0, 1"][1] / nf4[1] == pytest.approx(0.05, abs=0.007)
    assert 1 - found["Lloyd-Max, free"][1] / nf4[1] == pytest.approx(0.10, abs=0.007)
    bound = float(line("the bound of information theory").split()[-1])
    assert bound == pytest.approx(2**-9, abs=5e-6)
    assert nf4[1] / bound > 4
    assert abs(1 - found["AF4 corrected"][2] / nf4[2]) < 0.01
    assert found["AF4 as published"][2] > max(nf4[2], found["AF4 corrected"][2])


def test_normal_within_blocks_and_not_as_matrices():
    rows = {name: cells for name, cells in table("kurtosis, median").items() if name != "weights"}
    assert list(rows) == list(weights.LABELS)
    for _, median, largest, inside, *_ in rows.values():
        assert abs(float(inside)) < 0.3 * float(median)  # "most of the excess is gone"
        assert float(largest) > 10  # "the worst are nowhere near it"
    assert abs(float(line("tiny with every row").split()[-1])) < 0.1
    normal = [usage.error(usage.draws("normal", 2**18), c()).mse for c in weights.CODES.values()]
    assert [f"{e:.4f}" for e in normal] == ["0.0085", "0.0116", "0.0149"]
    says("for which normal weights give 0.0085, 0.0116 and 0.0149")


def test_the_reading_of_the_error_pictures():
    four = {"NF4": codes.levels(), "FP4": codes.fp4(), "INT4": codes.int4(), "AF4": fitted.af4()}

    def mse(kind, block):
        return {n: usage.error(usage.draws(kind, 2**17), c, block).mse for n, c in four.items()}

    by_block = [mse("normal", block) for block in BLOCKS]
    growth = {n: by_block[-1][n] - by_block[0][n] for n in four}
    assert all(a[n] < b[n] for a, b in itertools.pairwise(by_block) for n in four)
    assert max(growth, key=growth.get) == "INT4"
    uniform, heavy = mse("uniform", 64), mse("t3", 64)
    assert min(uniform, key=uniform.get) == "INT4"
    assert min(heavy, key=heavy.get) == "AF4"
    behind = [mse(k, 64) for k in ("uniform", "normal", "t10", "t5", "t3")]
    ratios = [row["INT4"] / row["NF4"] for row in behind]
    assert ratios == sorted(ratios)  # "the heavier the tails, the further INT4 falls behind"


def test_every_byte_is_that_of_bitsandbytes():
    assert "0 of 2,211,840 bytes differ" in line("42 matrices")
    assert line("your 8-bit codes").endswith("all equal, True")
    assert float(re.search(r"([\d.]+)% differ", line("your 8-bit codes"))[1]) < 1


def test_the_bits_are_those_of_the_prose():
    rows = table("times smaller than 16")
    assert rows["64"] == ["4.500, 3.56 x", "4.127, 3.88 x"]
    assert "0.373 bits (8.3% of 4.5), 3.03 GB" in line("saved:")
    says("3.56 times, or 3.88 with double quantisation; seven would take less than 2.3 bits")
    assert 16 / 7 < 2.3
    says("a weight has 0.56 bytes in all")
    assert f"{4.5 / 8:.2f}" == "0.56"


def test_our_layer_is_bitsandbytes_in_both_directions_and_in_training():
    off = [float(x) for x in re.findall(r"\de[-+]\d+", line("relative differences"))]
    assert len(off) == 2 and max(off) < 1e-5
    rows = table("PEFT + bitsandbytes  apart")
    apart = {n: float(cells[-1]) for n, cells in rows.items() if n.isdigit()}
    assert len(apart) >= 6 and max(apart.values()) < 1e-3
    losses = [float(cells[0]) for n, cells in rows.items() if n.isdigit()]
    assert losses[-1] < losses[0]


def test_what_pages_is_told_as_bitsandbytes_told_it():
    rows = table("tensors that page")
    assert rows["8"] == ["88,064", "0 of 14", "0%"]
    assert rows["64"][1:] == ["14 of 14", "100%"]
    says("At rank 8 nothing pages, whatever the setting is called; at rank 64 everything does")
    right = next(c for c in quiz("03.q4").choices if c.right)
    assert "88,064" in right.reason


def test_the_model_reads_its_table_rightly():
    rows = {n: cells for n, cells in table("perplexity, score").items() if cells}
    size = {n: i for i, n in enumerate(rows.pop("perplexity, score"))}
    found = {n: [tuple(map(float, c.rstrip("%").split(", "))) for c in cells]
             for n, cells in rows.items()}  # fmt: skip
    plain = float(line("as it is").split()[-1])
    first, last = size["64"], size["whole matrix"]
    assert all(abs(cells[first][0] / plain - 1) < 0.01 for cells in found.values())
    assert all(cells[first][1] == 100 for cells in found.values())
    assert min(found, key=lambda n: found[n][last][0]) == "NF4"
    assert all(cells[last][0] / plain - 1 > 0.005 for cells in found.values())


def test_the_reasons_of_the_quiz_are_true():
    signs = [(w > 0).float().mean().item() for w in weights.linear_weights("tiny").values()]
    assert sum(signs) / len(signs) == pytest.approx(0.5, abs=0.01)  # 03.q1 a
    normal = usage.draws("normal", 2**18)
    least = fitted.lloyd_max(pinned=())
    assert usage.entropy(usage.usage(normal, least)) < 3.9  # 03.q2 a
    assert len(ex03.QUESTIONS) == 5
