"""Notebook 00: one warm-up and two questions.

The warm-up counts what LoRA trains beside one weight W of shape (out, in):

    A (rank, in), B (out, rank)     rank * in + out * rank numbers instead of out * in

Source: Hu et al. 2021, section 4.1, https://arxiv.org/abs/2106.09685
"""

from collections.abc import Callable

from labkit.exercises.compare import count_slip
from labkit.exercises.exercise import Exercise, Wrong
from labkit.exercises.questions import Choice, Question

TITLE = "Start here"
KEY_PROJECTION = (512, 2048, 16)  # out, in, rank: a key projection of Llama-3.2-1B at rank 16


def pair_size(out_features: int, in_features: int, rank: int) -> int:
    """How many numbers the pair A (rank, in), B (out, rank) holds."""
    return rank * (in_features + out_features)


def _slips(out: int, in_: int, rank: int) -> dict[int, str]:
    """The counts that published lessons give, each with the slip behind it."""
    return {
        out * in_: "that is the whole weight W; A and B are thinner",
        rank * out * in_: "the two factors stand side by side: add their sizes, do not multiply",
        out + in_: "every one of the rank rows and columns counts: where is the rank?",
        2 * rank * in_: "B has `out` rows, not `in`: the weight need not be square",
        2 * rank * out: "A has `in` columns, not `out`: the weight need not be square",
        rank * in_: "that is A alone; B trains too",
        rank * out: "that is B alone; A trains too",
        out * in_ + rank * (in_ + out): "W is frozen: count only what trains",
    }


def judge_pair_size(answer: Callable[[int, int, int], int]) -> str | None:
    """both factors counted, each with its own width"""
    for out, in_, rank in (KEY_PROJECTION, (3, 7, 2), (4096, 512, 8)):
        got = answer(out, in_, rank)
        slip = count_slip(got)
        if slip is None and got != rank * in_ + out * rank:
            slip = _slips(out, in_, rank).get(got, "A is (rank, in) and B is (out, rank)")
        if slip:
            return f"for W ({out}, {in_}) at rank {rank}: {slip}"
    return None


EXERCISES = [
    Exercise(
        id="00.1",
        title="count what LoRA trains",
        minutes=5,
        difficulty=1,
        judge=judge_pair_size,
        solution=pair_size,
        stub="pair_size",
        hints=(
            "A matrix of shape (rows, columns) holds rows times columns numbers. "
            "Which shapes do A and B have, if B @ A must have the shape of W, (out, in)?",
            r"$|A| + |B| = \text{rank} \cdot \text{in} + \text{out} \cdot \text{rank}$",
            "Both terms share the rank, so it stands in front. The size grows with the sum of the "
            "widths, not with their product: that is the whole saving.",
        ),
        wrong=[
            Wrong(
                "multiplies the factors",
                "def pair_size(out, in_, rank):\n    return rank * out * in_",
                "add their sizes, do not multiply",
            ),
            Wrong(
                "takes every weight for a square",
                "def pair_size(out, in_, rank):\n    return 2 * rank * in_",
                "B has `out` rows, not `in`",
            ),
            Wrong(
                "takes every weight for a square of the other width",
                "def pair_size(out, in_, rank):\n    return 2 * rank * out",
                "A has `in` columns, not `out`",
            ),
            Wrong(
                "counts A alone",
                "def pair_size(out, in_, rank):\n    return rank * in_",
                "that is A alone",
            ),
            Wrong(
                "forgets the rank",
                "def pair_size(out, in_, rank):\n    return out + in_",
                "where is the rank?",
            ),
            Wrong(
                "counts the frozen weight too",
                "def pair_size(out, in_, rank):\n    return out * in_ + rank * (out + in_)",
                "W is frozen",
            ),
            Wrong(
                "returns a fraction",
                "def pair_size(out, in_, rank):\n    return rank * (out + in_) / 1",
                "must be a whole number (int), not float",
            ),
        ],
    ),
]

QUESTIONS = [
    Question(
        "00.q1",
        "Do you need a big GPU to start?",
        [
            Choice(
                "Yes, 24 GB or more",
                "The frozen weights rest in 4 bits and only two thin matrices beside each adapted "
                "map train. Notebook 04 shows the figures of a 1B model.",
            ),
            Choice(
                "A small one at least",
                "A small GPU is welcome, but every cell also runs on a laptop CPU.",
            ),
            Choice(
                "No, a laptop CPU will do",
                "The model in this repository is small enough to fine-tune on two CPU cores. "
                "The same cells take Llama-3.2-1B where there is a GPU.",
                right=True,
            ),
        ],
    ),
    Question(
        "00.q2",
        'A check says "not tried". What has happened?',
        [
            Choice(
                "Your answer is wrong",
                'A wrong answer gets "not yet" and a sentence that names the slip.',
            ),
            Choice(
                "The stub is still there; the notebook goes on",
                "The stub raised NotImplementedError. Later cells use the library's own version "
                "until yours passes, and one line says so.",
                right=True,
            ),
            Choice(
                "The notebook has stopped",
                "A check never stops a notebook: it comes back with one of three verdicts.",
            ),
        ],
    ),
]
