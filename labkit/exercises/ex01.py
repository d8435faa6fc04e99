"""Notebook 01: LoRA from scratch, nine exercises and five questions.

The banks (`ex01_wrong`) hold mistakes of published lessons: the scale forgotten, fixed or applied
twice, both factors zero or both random, a base that still trains, dropout on the frozen path,
targets matched by a part of a name, a merge that changes the layer it merges.
"""

from labkit.exercises import ex01_judges, ex01_layer, ex01_model
from labkit.exercises import ex01_wrong as bank
from labkit.exercises.exercise import Exercise
from labkit.exercises.questions import Choice, Question
from labkit.lora import LoRALinear, factors, inject, merged, parameter_count
from labkit.lowrank import factor_gradients, first_step, nearest
from labkit.sizes import held_bytes

TITLE = "LoRA from scratch"

EXERCISES = [
    Exercise(
        id="01.1",
        title="truncate an update",
        minutes=6,
        difficulty=2,
        judge=ex01_judges.judge_nearest,
        solution=nearest,
        stub="nearest",
        hints=(
            "A matrix is a sum of directions, each with a size. Which of them do you keep, and in "
            "what order does `torch.linalg.svd` give them?",
            r"$\sum_{i \le r} \sigma_i\, u_i v_i^T$. `torch.linalg.svd(M, full_matrices=False)` "
            "gives U with the $u_i$ as columns, S, and Vh with the $v_i^T$ as ROWS.",
            "Multiplying the columns of U by S is cheaper than a diagonal matrix in the middle. No "
            "matrix of that rank is nearer in the sum of squares (Eckart and Young).",
        ),
        wrong=bank.TRUNCATED,
    ),
    Exercise(
        id="01.2",
        title="the start",
        minutes=6,
        difficulty=2,
        judge=ex01_layer.judge_factors,
        solution=factors,
        stub="factors",
        hints=(
            "The layer must start at its base, and it must be able to leave it. How many of the "
            "two factors may be zero?",
            r"$A_{ij} \sim U(-1/\sqrt{in}, 1/\sqrt{in})$, $B = 0$. "
            "`nn.init.kaiming_uniform_(A, a=math.sqrt(5))` draws exactly that; "
            "`torch.promote_types` gives the wider of two dtypes.",
            "One zero factor makes the product zero and leaves the other's size free. float32 is "
            "kept even over a bfloat16 base: steps far below one per cent of a weight would be "
            "rounded away in bfloat16.",
        ),
        wrong=bank.FACTORS,
    ),
    Exercise(
        id="01.3",
        title="the layer",
        minutes=12,
        difficulty=3,
        judge=ex01_layer.judge_lora_linear,
        solution=LoRALinear,
        stub="LoRALinear",
        hints=(
            "How would you compute $BAx$ for a token without ever making a matrix of the size of "
            "W, and what must happen to W's own gradient?",
            r"$y = \text{base}(x) + \frac{\alpha}{r}\,(\text{dropout}(x) A^T) B^T$; "
            "`base.requires_grad_(False)` freezes; `self.A.to(x.dtype)` follows the input; "
            "`nn.Identity()` stands where there is no dropout; "
            "`next(itertools.chain(base.parameters(), base.buffers()))` is a tensor of any base, "
            "for `factors`.",
            "The base is called, never read, so that it may be stored in 4 bits. Two thin products "
            "cost rank * (in + out) a token, where W costs in * out. Dropout meets the update's "
            "input alone: the frozen map is not what trains.",
        ),
        wrong=bank.LORA_LINEAR,
    ),
    Exercise(
        id="01.4",
        title="what A and B feel",
        minutes=8,
        difficulty=3,
        judge=ex01_judges.judge_factor_gradients,
        solution=factor_gradients,
        stub="factor_gradients",
        hints=(
            "W' depends on A through B, and on B through A. What is left of A's gradient where B "
            "is zero?",
            r"$\nabla_A = s\,B^T G$ and $\nabla_B = s\,G A^T$, with $G$ of the shape of W. Check "
            "the shapes: (rank, out)(out, in) and (out, in)(in, rank).",
            "Both are the chain rule for a product of matrices: the other factor, transposed, on "
            "the side where it stood. The scale belongs to W', so both carry it.",
        ),
        wrong=bank.FACTOR_GRADIENTS,
    ),
    Exercise(
        id="01.5",
        title="count from a config",
        minutes=8,
        difficulty=2,
        judge=ex01_judges.judge_parameter_count,
        solution=parameter_count,
        stub="parameter_count",
        hints=(
            "For one matrix of d rows and k columns the answer is r (d + k). How many matrices are "
            "there, and which of them are square?",
            r"$\text{layers} \cdot r \cdot \sum_{\text{targets}} (\text{out} + \text{in})$; "
            "`projections(config)` gives the seven shapes, each as (out, in)",
            "Rank and layers are common to all, so they stand outside the sum. A name that is no "
            "projection is refused: it would count as nothing, and train nothing.",
        ),
        wrong=bank.PARAMETER_COUNT,
    ),
    Exercise(
        id="01.6",
        title="what training holds",
        minutes=5,
        difficulty=1,
        judge=ex01_judges.judge_held_bytes,
        solution=held_bytes,
        stub="held_bytes",
        hints=(
            "Which of the three kinds does a frozen weight need: itself, a gradient, moments?",
            r"$2f + 4t$, $4t$ and $2 \cdot 4t$ bytes for $f$ frozen and $t$ trained numbers",
            "Adam keeps a running mean of the gradient and one of its square, for trained numbers "
            "alone. Frozen weights rest in bfloat16 and cost their 2 bytes, nothing more.",
        ),
        wrong=bank.HELD_BYTES,
    ),
    Exercise(
        id="01.7",
        title="the first step",
        minutes=10,
        difficulty=4,
        judge=ex01_judges.judge_first_step,
        solution=first_step,
        stub="first_step",
        hints=(
            "A stands still in the first step, and B starts at zero. By how much does B move, and "
            "what does W' make of it?",
            r"$B_1 = -\eta\, s\, G A^T$ under SGD and $B_1 = -\eta\, \mathrm{sign}(s\, G A^T)$ "
            r"under Adam; then $\Delta W = s\, B_1 A$",
            "The scale comes in twice: once in B's gradient, once in the product. Adam divides a "
            "gradient by its own size, so there only the second one counts. That is why the "
            "optimizers want different rules for alpha.",
        ),
        wrong=bank.FIRST_STEP,
    ),
    Exercise(
        id="01.8",
        title="into a model",
        minutes=8,
        difficulty=3,
        judge=ex01_model.judge_inject,
        solution=inject,
        stub="inject",
        copies=False,
        hints=(
            "A model that is changed while you walk through it changes the walk. What do you need "
            "before the first change, and what must be frozen before the first adapter trains?",
            "make all layers first, then `model.requires_grad_(False)`, then "
            "`model.set_submodule(name, layer)` for each; `model.get_submodule(name)` finds a map "
            "by its full name, and `layer.train(model.training)` keeps the mode",
            "`matches` raises before anything has changed, so a misspelt target leaves the model "
            "as it was. Freezing comes before the new layers go in, or it would freeze them too.",
        ),
        wrong=bank.INJECT,
    ),
    Exercise(
        id="01.9",
        title="merge",
        minutes=8,
        difficulty=3,
        judge=ex01_model.judge_merged,
        solution=merged,
        stub="merged",
        copies=False,
        hints=(
            "Which matrix computes what the layer computes, and in which dtype would you add two "
            "numbers of very different size?",
            r"$W + \frac{\alpha}{r} BA$, added in the dtype of `layer.delta()`, then rounded once "
            "to `dtype`, or to that of W where it is None; `dense(layer.base)` reads W from any "
            "base",
            "The layer stays as it is, so nothing needs to be unmerged: keep it and drop the "
            "merged map. `delta()` holds the scale already. `skip_init` saves filling a weight "
            "that is replaced at once.",
        ),
        wrong=bank.MERGED,
    ),
]

QUESTIONS = [
    Question(
        "01.q1",
        "You double the rank. What doubles with it?",
        [
            Choice(
                "The parameters that train",
                "Both factors have the rank as one side, so their numbers grow in proportion.",
                right=True,
            ),
            Choice(
                "The scale of the update",
                "With alpha kept, alpha / rank halves; with alpha = 2 rank it stays at 2.",
            ),
            Choice(
                "The activations kept for the backward pass",
                "Only the thin product grows with the rank; the inputs, as wide as the model, "
                "do not.",
            ),
        ],
    ),
    Question(
        "01.q2",
        "You raise the rank from 16 to 64 and keep alpha at 32, under Adam. What about the first "
        "step?",
        [
            Choice(
                "It takes away about as much loss as before",
                "Each of four times as many directions is scaled by a quarter: the loss that the "
                "first step takes away stays, while its length halves.",
                right=True,
            ),
            Choice(
                "It is the same step",
                "Its length falls with the square root of the rank: more directions, each shorter.",
            ),
            Choice(
                "It is four times larger, so divide the rate by four",
                "That holds for alpha = 2 rank, where the scale does not fall as the rank grows.",
            ),
        ],
    ),
    Question(
        "01.q3",
        'What does targets="all-linear" adapt in a Llama?',
        [
            Choice(
                "Query and value projections",
                "That was the choice of the first paper; the MLP holds most of the weights.",
            ),
            Choice(
                "The seven projections of every layer",
                "Attention and MLP, but neither the head, though it is linear, nor embeddings.",
                right=True,
            ),
            Choice(
                "Every linear map, the head included",
                "The head is left out: where it is tied, a change of it would change the "
                "embedding as well.",
            ),
        ],
    ),
    Question(
        "01.q4",
        "What does PEFT's get_peft_model do?",
        [
            Choice(
                "It copies the model and trains the copy",
                "The model that you gave it is changed in place; the wrapper holds the same one.",
            ),
            Choice(
                "It freezes the model and puts a pair of factors over each target",
                "That is your inject, with names, several adapters and a folder to save to.",
                right=True,
            ),
            Choice(
                "It quantises the frozen weights to 4 bits",
                "That happens when the model is loaded, and LoRA works without it.",
            ),
        ],
    ),
    Question(
        "01.q5",
        "An adapter was trained and merged. What is still true?",
        [
            Choice(
                "The merged model costs a little more in each forward pass",
                "It has the shapes of the base: that is why one merges.",
            ),
            Choice(
                "Subtracting the update from the merged weight gives back the base",
                "Only up to rounding, and in bfloat16 that is seen: keep the base.",
            ),
            Choice(
                "In bfloat16 an update far smaller than the weights may be gone",
                "A sum keeps 8 bits: what is below 1/512 of a weight rounds to nothing.",
                right=True,
            ),
        ],
    ),
]
