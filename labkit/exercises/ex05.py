"""Notebook 05: DoRA, six exercises and four questions.

Each bank (`ex05_wrong`) holds mistakes that published lessons ship: the norm over the wrong axis,
the scale forgotten inside it, the magnitude begun at one, the gradient that flows through the
norm, twice the parameters. The judges are in `ex05_judges`,
`ex05_norms` and `ex05_layer`.
"""

from labkit.directions import decompose, dense_forward, detached_weight, factored_norms
from labkit.dora import dora_parameters, is_dora
from labkit.exercises import ex05_judges as judges
from labkit.exercises import ex05_wrong as bank
from labkit.exercises.ex05_layer import judge_is_dora
from labkit.exercises.ex05_norms import judge_detached_weight, judge_factored_norms
from labkit.exercises.exercise import Exercise
from labkit.exercises.questions import Choice, Question

TITLE = "DoRA"

EXERCISES = [
    Exercise(
        id="05.1",
        title="decompose a weight",
        minutes=5,
        difficulty=1,
        judge=judges.judge_decompose,
        solution=decompose,
        stub="decompose",
        hints=(
            "A weight is (out, in), and each output has a length of its own. Over which axis is "
            "the sum of squares?",
            r"$m_i = \sqrt{\sum_j W_{ij}^2}$ and $V_{ij} = W_{ij} / m_i$",
            "dim=1 runs along the inputs and leaves one number for each output. m[:, None] is "
            "(out, 1), so each row is divided by its own length.",
        ),
        wrong=bank.DECOMPOSE,
    ),
    Exercise(
        id="05.2",
        title="DoRA's forward pass",
        minutes=8,
        difficulty=2,
        judge=judges.judge_dense_forward,
        solution=dense_forward,
        stub="dense_forward",
        hints=(
            "LoRA turns W into W + scale B A. Which lengths do the rows of that matrix have, and "
            "which shall they have?",
            r"$y = x\,\left(m \odot \frac{W + sBA}{\lVert W + sBA \rVert}\right)^\top$, one "
            "length for each row",
            "The norm is that of the sum, scale included, because B changes it at every step. "
            "keepdim=True leaves (out, 1), which divides row by row.",
        ),
        wrong=bank.DENSE_FORWARD,
    ),
    Exercise(
        id="05.3",
        title="a check that no other layer passes",
        minutes=10,
        difficulty=3,
        judge=judge_is_dora,
        solution=is_dora,
        stub="is_dora",
        hints=(
            "At the start B is zero. Which mistakes show in the output then?",
            "build; move B; compare `layer(x)` with dense_forward(x, W, A, B, m, scale) plus the "
            "bias, with m the row lengths of W",
            "There are several outputs, rank is 2, alpha is not rank, the base has a bias, and B "
            "moves before the comparison: each of these lets a mistake show. The tolerance is there "
            "because two right layers round in different orders.",
        ),
        wrong=bank.IS_DORA,
    ),
    Exercise(
        id="05.4",
        title="hold the norm constant",
        minutes=6,
        difficulty=2,
        judge=judge_detached_weight,
        solution=detached_weight,
        stub="detached_weight",
        copies=False,
        hints=(
            "Which of the three tensors in the formula shall autograd take for a constant?",
            r"$W' = m \odot T / \mathrm{stop}(\lVert T \rVert)$, where stop(.) is `.detach()`",
            "Only the norm is detached. The gradient of the magnitude is untouched, since the norm "
            "is a factor there; that of the direction loses the part along each row.",
        ),
        wrong=bank.DETACHED_WEIGHT,
    ),
    Exercise(
        id="05.5",
        title="the norm without the matrix",
        minutes=10,
        difficulty=4,
        judge=judge_factored_norms,
        solution=factored_norms,
        stub="factored_norms",
        hints=(
            "What is the squared length of a sum of two vectors? Which of its three terms need W?",
            r"$n_i^2 = \lVert W_i \rVert^2 + 2s\,B_i \cdot (WA^\top)_i + s^2\,B_i (AA^\top) B_i^\top$",
            "A A^T is (rank, rank), and W A^T is (out, rank): nothing here is as large as W. The "
            "clamp keeps a row that the update cancels from the root of a negative rounding error.",
        ),
        wrong=bank.FACTORED_NORMS,
    ),
    Exercise(
        id="05.6",
        title="count what DoRA trains",
        minutes=5,
        difficulty=1,
        judge=judges.judge_dora_parameters,
        solution=dora_parameters,
        stub="dora_parameters",
        hints=(
            "LoRA's count is known. How many lengths has a map with out outputs?",
            r"$\text{LoRA} + \text{layers} \cdot \sum_{\text{targets}} \text{out}$",
            "`parameter_count` counts A and B, `projections` gives each map as (out, in). The "
            "lengths do not depend on the rank.",
        ),
        wrong=bank.DORA_PARAMETERS,
    ),
]

QUESTIONS = [
    Question(
        "05.q1",
        "A fresh DoRA layer gives the outputs of its base. What does that show?",
        [
            Choice("The layer is right", "The layer with the wrong axis above passes this, too."),
            Choice(
                "Little: at B = 0 most mistakes are hidden",
                "m / |W| is one over either axis, so the product is W. Move B, then compare.",
                right=True,
            ),
            Choice(
                "The magnitude was forgotten",
                "It begins at the row lengths, which cancel against the norm at the start.",
            ),
        ],
    ),
    Question(
        "05.q2",
        "The paper saves a quarter of the memory with a constant norm. Why does our layer save "
        "little by it?",
        [
            Choice(
                "Its norm never needs the dense matrix in the first place",
                "The quarter is that of a dense W + BA kept for the backward pass; from thin "
                "factors the exact gradient is nearly free.",
                right=True,
            ),
            Choice("Its gradient is exact anyway", "By default its norm is constant, too."),
            Choice("4-bit bases have no norm", "Their rows have lengths as any others have."),
        ],
    ),
    Question(
        "05.q3",
        "A table shows DoRA 3.7 points above LoRA. What do you ask first?",
        [
            Choice(
                "Was LoRA's learning rate tuned as DoRA's was?",
                "In the paper LoRA's row was taken from elsewhere, at one rate; the authors' own "
                "repository later lists a LoRA row 1.6 points higher.",
                right=True,
            ),
            Choice("How many parameters does DoRA add?", "About 3% at rank 16: too few to matter."),
            Choice("Which rank is it?", "It matters less: DoRA's row is above at several ranks."),
        ],
    ),
    Question(
        "05.q4",
        "Fifty customers get an adapter each, all served by one vLLM process. DoRA or LoRA?",
        [
            Choice("DoRA, it scores better", "vLLM refuses a DoRA adapter; see the next choice."),
            Choice(
                "LoRA",
                "Engines batch thin products beside one base. DoRA's row lengths depend on each "
                "adapter, so it is merged first: fifty whole models.",
                right=True,
            ),
            Choice("Either, after merging", "Merged, each customer holds a whole model in memory."),
        ],
    ),
]
