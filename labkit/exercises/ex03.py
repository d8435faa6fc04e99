"""Notebook 03: NF4 from its quantiles to a frozen map, eight exercises and five questions.

Each bank (`ex03_wrong`) holds mistakes that published lessons ship or learners made: quantiles
without a zero, scales by the standard deviation, the level below for the nearest, nibbles in the
wrong order, a mean that is never taken off, bits taken for bytes. The judges are in `ex03_judges`.
"""

from labkit.blocks import block_absmax, nearest, pack
from labkit.codes import half, levels
from labkit.double import quantize_absmax
from labkit.exercises import ex03_judges as judges
from labkit.exercises import ex03_wrong as bank
from labkit.exercises.exercise import Exercise
from labkit.exercises.questions import Choice, Question
from labkit.nf4 import NF4Product, bits_per_weight

TITLE = "NF4 quantiles"

EXERCISES = [
    Exercise(
        id="03.1",
        title="quantiles of one side",
        minutes=8,
        difficulty=2,
        judge=judges.judge_half,
        solution=half,
        stub="half",
        hints=(
            "Which probability lies below the largest level, and by how much does it fall from one "
            "level to the next?",
            r"$\Phi^{-1}\left(p - i \cdot \frac{p - 1/2}{n}\right)$ for $i = 0 \dots n - 1$; "
            "`NormalDist().inv_cdf` is $\\Phi^{-1}$",
            "linspace makes n + 1 steps and the last is dropped: it is 1/2, whose quantile is zero, "
            "and the level zero stands between the halves already.",
        ),
        wrong=bank.HALF,
    ),
    Exercise(
        id="03.2",
        title="the two halves",
        minutes=8,
        difficulty=3,
        judge=judges.judge_levels,
        solution=levels,
        stub="levels",
        hints=(
            "Sixteen levels, one of them zero: how do fifteen spread over two sides?",
            r"$\{-\text{half}(7)\} \cup \{0\} \cup \text{half}(8)$, sorted, over its largest; "
            r"both halves begin at $p = \frac12\left(\frac{29}{30} + \frac{31}{32}\right)$",
            "Both halves begin at one probability, so both ends become 1 in magnitude. The seven "
            "digits are bitsandbytes' own, and give its table to the last bit.",
        ),
        wrong=bank.LEVELS,
    ),
    Exercise(
        id="03.3",
        title="the constant of a block",
        minutes=8,
        difficulty=2,
        judge=judges.judge_block_absmax,
        solution=block_absmax,
        stub="block_absmax",
        hints=(
            "What may stand behind the last values of a short block, without changing its largest "
            "magnitude?",
            r"$a_j = \max_{i \in \text{block } j} |w_i|$; `F.pad(flat, (0, k))` appends $k$ zeros, "
            r"and $k = -n \bmod \text{block}$",
            "flatten copies a view where it has to. float comes first, so the constants are "
            "float32 in whatever dtype the weight is.",
        ),
        wrong=bank.BLOCK_ABSMAX,
        copies=False,  # the judge copies, and tells who changes an argument
    ),
    Exercise(
        id="03.4",
        title="the nearest level",
        minutes=10,
        difficulty=3,
        judge=judges.judge_nearest,
        solution=nearest,
        stub="nearest",
        hints=(
            "Where does the nearest level change, as a value grows from one level to the next?",
            r"the code of $x$ is the number of midpoints $\frac{c_i + c_{i+1}}{2}$ that lie below "
            r"$x = w / a$; `torch.bucketize(x, midpoints)` counts them",
            "Fifteen comparisons by bisection replace a table of 16 distances for each value. The "
            "clamp leaves a block of zeros what it is.",
        ),
        wrong=bank.NEAREST,
        copies=False,  # the judge copies, and tells who changes an argument
    ),
    Exercise(
        id="03.5",
        title="two codes in a byte",
        minutes=5,
        difficulty=2,
        judge=judges.judge_pack,
        solution=pack,
        stub="pack",
        hints=(
            "A byte is two hexadecimal digits. Which of them holds the first code?",
            r"$\text{byte}_j = 16 \cdot c_{2j} + c_{2j+1}$, as `a << 4 | b`",
            "The first code goes into the high half, as in bitsandbytes. A last code without a "
            "neighbour gets 7, which stands for zero.",
        ),
        wrong=bank.PACK,
    ),
    Exercise(
        id="03.6",
        title="double quantisation",
        minutes=10,
        difficulty=3,
        judge=judges.judge_quantize_absmax,
        solution=quantize_absmax,
        stub="quantize_absmax",
        hints=(
            "Every absmax is positive. What would the negative half of a signed code be for?",
            r"$m = \text{mean}(a)$; then the block procedure once more, on $a - m$: its own absmax "
            "for each superblock, and the nearest of 256 levels",
            "`block_absmax` and `nearest` do not ask what the numbers are: constants are rounded "
            "as weights are. One mean serves the whole weight.",
        ),
        wrong=bank.QUANTIZE_ABSMAX,
        copies=False,  # the judge copies, and tells who changes an argument
    ),
    Exercise(
        id="03.7",
        title="count the bits",
        minutes=5,
        difficulty=2,
        judge=judges.judge_bits_per_weight,
        solution=bits_per_weight,
        stub="bits_per_weight",
        hints=(
            "How many weights share one constant, and how many share one constant of constants?",
            r"$4 + \frac{32}{\text{block}}$, or "
            r"$4 + \frac{8}{\text{block}} + \frac{32}{\text{block} \cdot \text{superblock}}$",
            "A constant has its own cost, shared by the weights of its block. With a superblock "
            "that cost is a small copy of the same sum.",
        ),
        wrong=bank.BITS_PER_WEIGHT,
    ),
    Exercise(
        id="03.8",
        title="a product whose weight stays packed",
        minutes=12,
        difficulty=4,
        judge=judges.judge_nf4_product,
        solution=NF4Product,
        stub="NF4Product",
        hints=(
            "W does not train. Which of x, W and the codes does the gradient of x need?",
            r"$y = x W^\top + b \Rightarrow \frac{\partial L}{\partial x} = "
            r"\frac{\partial L}{\partial y} W$, with $W$ decoded anew",
            "ctx keeps the codes, which live anyway, and nothing dense. backward returns one value "
            "for each input of forward: q and the bias are frozen, so None twice.",
        ),
        wrong=bank.NF4_PRODUCT,
    ),
]

QUESTIONS = [
    Question(
        "03.q1",
        "Why has NF4 eight levels above zero and seven below?",
        [
            Choice(
                "Weights are more often positive",
                "They are not: on this model nearly half are of each sign.",
            ),
            Choice(
                "Sixteen codes with an exact zero cannot be symmetric",
                "Fifteen levels are left for two sides. The table could be mirrored and serve as "
                "well; bitsandbytes gives the extra one to the positive side.",
                right=True,
            ),
            Choice(
                "Two's complement stores one more negative number",
                "That is INT4, from -8 to 7. An NF4 code is a place in a table, not a number.",
            ),
        ],
    ),
    Question(
        "03.q2",
        "At block 64 the 16 codes are used unevenly. What follows for the error?",
        [
            Choice(
                "NF4 wastes bits, so even use would give less error",
                "Equal use makes the codes hard to compress, and says nothing on distances. The "
                "code with the least squared error here is used unevenly as well.",
            ),
            Choice(
                "Nothing: even use and least error are two different aims",
                "Entropy counts how often a code occurs; error asks how far a value lies from its "
                "level. Equal cells give the tails cells that are too wide.",
                right=True,
            ),
            Choice(
                "The weights are not normal",
                "The histogram comes from normal samples. Division by the block's own largest "
                "value changes their distribution.",
            ),
        ],
    ),
    Question(
        "03.q3",
        "A weight of 10 standard deviations stands in a block of 64. Whose error grows?",
        [
            Choice(
                "That of the outlier itself",
                "It is the block's absmax, so it comes back as it was.",
            ),
            Choice(
                "That of its 63 neighbours",
                "Their levels are stretched to reach the outlier, so most of them round to the "
                "few levels around zero.",
                right=True,
            ),
            Choice(
                "That of the whole matrix",
                "The other blocks have constants of their own: this is what blocks are for.",
            ),
        ],
    ),
    Question(
        "03.q4",
        "Your LoRA has rank 8 on Llama-2-7B, and you choose a paged optimizer. What is paged?",
        [
            Choice(
                "The frozen weights",
                "Only optimizer states are; frozen weights have none.",
            ),
            Choice(
                "All optimizer states",
                "bitsandbytes pages a state only from 100,000 elements on.",
            ),
            Choice(
                "Nothing: each A and B is smaller than 100,000 elements",
                "The largest has 8 x 11,008 = 88,064 elements, so every state is an ordinary one.",
                right=True,
            ),
        ],
    ),
    Question(
        "03.q5",
        "What does double quantisation save on a weight of block 64?",
        [
            Choice(
                "0.373 bits, 8.3% of 4.5",
                "32/64 bits become 8/64 + 32/(64 * 256).",
                right=True,
            ),
            Choice("0.37 bytes", "The whole weight takes 0.5625 bytes before; it is bits."),
            Choice(
                "Half of the 4.5 bits",
                "Only the constants shrink, and they are a ninth of it: 0.5 of 4.5 bits.",
            ),
        ],
    ),
]
