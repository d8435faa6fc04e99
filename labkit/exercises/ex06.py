"""Notebook 06: the singular values of adapters, eight exercises and four questions.

Each bank (`ex06_wrong`) holds mistakes that lessons and repositories ship: values of A instead of
B A, an effective rank of another definition, intruders counted on the update or against the
leading vectors of W alone, noise for a control. The judges are in `ex06_judges`,
`ex06_subspaces` and `ex06_controls`.
"""

from labkit.exercises import ex06_controls as controls
from labkit.exercises import ex06_judges as judges
from labkit.exercises import ex06_subspaces as subspaces
from labkit.exercises import ex06_wrong as bank
from labkit.exercises.exercise import Exercise
from labkit.exercises.questions import Choice, Question
from labkit.spectra import (
    amplification,
    effective_rank,
    energy_rank,
    intruder_dimensions,
    overlap,
    scrambled,
    singular_values,
    truncated,
)

TITLE = "Spectra"

EXERCISES = [
    Exercise(
        id="06.1",
        title="singular values without the matrix",
        minutes=10,
        difficulty=3,
        judge=judges.judge_singular_values,
        solution=singular_values,
        stub="singular_values",
        hints=(
            "A matrix with orthonormal columns changes no singular value. Which factor of B has "
            "such columns?",
            r"$B = Q_B R_B$, $A^\top = Q_A R_A$, so $sBA = Q_B\,(s\,R_B R_A^\top)\,Q_A^\top$",
            "R_B R_A^T is rank x rank and has the singular values of the whole product. float64 "
            "costs nothing at that size, and small values are read from differences.",
        ),
        wrong=bank.SINGULAR_VALUES,
    ),
    Exercise(
        id="06.2",
        title="effective rank",
        minutes=6,
        difficulty=2,
        judge=judges.judge_effective_rank,
        solution=effective_rank,
        stub="effective_rank",
        hints=(
            "How many equal values would be as spread out as these are?",
            r"$p_i = \sigma_i / \sum_j \sigma_j$ and $\exp(-\sum_i p_i \log p_i)$",
            "The entropy of r equal shares is log r, so its exponential counts directions. xlogy "
            "gives 0 for a share of zero; a fresh adapter has no shares at all and gets 0.",
        ),
        wrong=bank.EFFECTIVE_RANK,
    ),
    Exercise(
        id="06.3",
        title="directions for a share of the energy",
        minutes=6,
        difficulty=2,
        judge=judges.judge_energy_rank,
        solution=energy_rank,
        stub="energy_rank",
        hints=(
            "Energy is the squared Frobenius norm. What does it have to do with the values?",
            r"the least $k$ with $\sum_{i \le k} \sigma_i^2 \ge \text{share} \cdot \sum_i \sigma_i^2$",
            "The cumulated squares rise; those below the share are counted, and the next one "
            "reaches it. The last factor keeps rounding from adding a direction.",
        ),
        wrong=bank.ENERGY_RANK,
    ),
    Exercise(
        id="06.4",
        title="cut an adapter to a smaller rank",
        minutes=10,
        difficulty=4,
        judge=subspaces.judge_truncated,
        solution=truncated,
        stub="truncated",
        hints=(
            "Which matrix of rank k is nearest to the update, and how is it written as two thin "
            "factors?",
            r"$A_k = \sqrt{\Sigma_k / s}\;V_k^\top$, $B_k = U_k \sqrt{\Sigma_k / s}$, so that "
            r"$s\,B_k A_k = U_k \Sigma_k V_k^\top$",
            "Eckart and Young: the first k directions are the nearest. The scale comes on top of "
            "the new pair as of the old one, so the values are divided by it before the root.",
        ),
        wrong=bank.TRUNCATED,
    ),
    Exercise(
        id="06.5",
        title="overlap of two subspaces",
        minutes=8,
        difficulty=3,
        judge=subspaces.judge_overlap,
        solution=overlap,
        stub="overlap",
        hints=(
            "How long is what remains of a unit vector once it is projected onto a subspace?",
            r"$\phi = \lVert U_1^\top U_2 \rVert_F^2 / \min(i, j)$",
            "Each column of the smaller subspace adds the squared length of its projection onto "
            "the larger one, at most 1. That needs orthonormal columns, so others are refused.",
        ),
        wrong=bank.OVERLAP,
    ),
    Exercise(
        id="06.6",
        title="intruder dimensions",
        minutes=10,
        difficulty=4,
        judge=controls.judge_intruders,
        solution=intruder_dimensions,
        stub="intruder_dimensions",
        hints=(
            "Which vectors of the tuned weight had no counterpart before, whatever its place?",
            r"$j$ is one if $\max_i |u_i \cdot y_j| < \varepsilon$, over ALL left vectors $u_i$ of $W$",
            "Rows of the cosine matrix belong to W, columns to W_tuned: the largest of each "
            "column is its best likeness. A vector has no sign, hence abs().",
        ),
        wrong=bank.INTRUDERS,
    ),
    Exercise(
        id="06.7",
        title="a control of the same size",
        minutes=8,
        difficulty=3,
        judge=controls.judge_scrambled,
        solution=scrambled,
        stub="scrambled",
        hints=(
            "Which part of an SVD says how large an update is, and which says where it points?",
            r"$Q_1 \,\mathrm{diag}(\sigma)\, Q_2^\top$ with $Q$ from a QR of Gaussian numbers",
            "Keep the values, draw both sets of directions. QR makes the columns orthonormal, so "
            "that the singular values of the product are the given ones.",
        ),
        wrong=bank.SCRAMBLED,
    ),
    Exercise(
        id="06.8",
        title="amplification",
        minutes=6,
        difficulty=2,
        judge=controls.judge_amplification,
        solution=amplification,
        stub="amplification",
        hints=(
            "How much of W reads from the update's input directions and writes to its output ones?",
            r"$\lVert \Delta \rVert_F / \lVert U^\top W V \rVert_F$ with $U$, $V$ of the update",
            "U^T W V is k x k: W as seen through the update's directions. The norm of the update "
            "is the root of the sum of its squared values.",
        ),
        wrong=bank.AMPLIFICATION,
    ),
]

QUESTIONS = [
    Question(
        "06.q1",
        "An adapter of rank 16 holds 90% of its energy in five directions. Was the rank too high?",
        [
            Choice(
                "Yes, rank 5 would have done as well",
                "Energy is no score: small values can carry answers, and large ones can be idle.",
            ),
            Choice(
                "No, as the other eleven are not zero",
                "Trained factors have no value of exactly zero, whatever the task needs.",
            ),
            Choice(
                "The values do not tell: cut it and score it, or train at a smaller rank",
                "Shuffled answers give a spectrum that drops as well. A score answers the question.",
                right=True,
            ),
        ],
    ),
    Question(
        "06.q2",
        "Every LoRA update of rank 16 has at most sixteen directions. What does that show of "
        "fine-tuning?",
        [
            Choice(
                "That a task needs few directions",
                "The limit was built in before training: no data could have shown more.",
            ),
            Choice(
                "Nothing: the limit is part of the method",
                "Where nothing limits it, the update of full fine-tuning takes many more.",
                right=True,
            ),
            Choice(
                "That full fine-tuning would use sixteen as well",
                "Its update can be looked at, and it uses many more.",
            ),
        ],
    ),
    Question(
        "06.q3",
        "Two adapters of different tasks, trained from one seed, share half of what they read. Why?",
        [
            Choice(
                "The tasks have the same structure",
                "Perhaps, but a simpler reason comes first: look at how both began.",
            ),
            Choice(
                "They began from the same A",
                "Most of the leading directions stay within the rows of A as it was drawn. Compare "
                "runs of different seeds.",
                right=True,
            ),
            Choice("By chance", "Chance gives k / n: a few hundredths here."),
        ],
    ),
    Question(
        "06.q4",
        "A report counts twenty intruder dimensions after LoRA. What do you ask first?",
        [
            Choice(
                "How many does a random update with the same singular values bring in?",
                "If as many, the count says how large the update is, and nothing of what it learnt.",
                right=True,
            ),
            Choice(
                "How many vectors of the update itself are intruders?",
                "They are singular vectors of another matrix; the tuned weight is what is used.",
            ),
            Choice(
                "How many dense noise of the same norm brings in?",
                "Too soft: noise spreads its norm over all directions and turns none of them far.",
            ),
        ],
    ),
]
