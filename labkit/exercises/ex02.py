"""Notebook 02: where the memory goes, eight exercises and their questions.

Each exercise is one part of the total, and its solution is the part that `labkit.memory.estimate`
adds up. The banks (`ex02_wrong`) hold what published calculators and lessons do; the judges are in
`ex02_judges`.
"""

from labkit.exercises import ex02_judges as judges
from labkit.exercises import ex02_wrong as bank
from labkit.exercises.exercise import Exercise
from labkit.exercises.questions import Choice, Question
from labkit.memory import (
    adapter_parameters,
    dequantised_bytes,
    logits_bytes,
    optimizer_bytes,
    parameters,
    peak,
    saved_per_token,
    weight_bytes,
)

TITLE = "Where memory goes"

EXERCISES = [
    Exercise(
        id="02.1",
        title="every parameter of a Llama",
        minutes=8,
        difficulty=2,
        judge=judges.judge_parameters,
        solution=parameters,
        stub="parameters",
        hints=(
            "Which maps of a layer are as wide as the queries, and which as the keys? What else "
            "of a Llama holds numbers?",
            r"$L\,(2hq + 2hk + 3hi + 2h) + h + Vh$ with $q$ = heads x head size and $k$ = "
            r"key-value heads x head size; $Vh$ twice where the head is not tied",
            "Widths come from the shape and are never guessed. `extras` counts what other "
            "families add to a layer, biases and further norms; a Llama has none.",
        ),
        wrong=bank.PARAMETERS,
    ),
    Exercise(
        id="02.2",
        title="a frozen base at rest in 4 bits",
        minutes=8,
        difficulty=3,
        judge=judges.judge_weight_bytes,
        solution=weight_bytes,
        stub="weight_bytes",
        hints=(
            "Which parameters are packed, and what do the others weigh before and after prepare?",
            r"$n / 2$ bytes of codes for a map of $n$ weights, $n / 64$ scales of 4 bytes; with "
            r"double quantisation 1 byte a scale, and 4 bytes for every 256 scales",
            "Each map is packed on its own, so blocks are rounded up map by map. Embedding and "
            "norms are what remains of all parameters.",
        ),
        wrong=bank.WEIGHT_BYTES,
    ),
    Exercise(
        id="02.3",
        title="what an adapter trains",
        minutes=6,
        difficulty=2,
        judge=judges.judge_adapter_parameters,
        solution=adapter_parameters,
        stub="adapter_parameters",
        hints=(
            "What are the shapes of A, of B and of DoRA's magnitude at one target?",
            r"$L \sum_{\text{targets}} \left(r\,(\text{in} + \text{out}) + "
            r"[\text{DoRA}]\,\text{out}\right)$",
            "`shape.projections` holds (out, in) by name, so one sum serves every choice of "
            "targets. The magnitude has one number for each output.",
        ),
        wrong=bank.ADAPTER_PARAMETERS,
    ),
    Exercise(
        id="02.4",
        title="the optimizer's moments",
        minutes=8,
        difficulty=3,
        judge=judges.judge_optimizer_bytes,
        solution=optimizer_bytes,
        stub="optimizer_bytes",
        hints=(
            "How wide is a moment, and which tensors does the library treat otherwise?",
            r"AdamW $2 \cdot \text{itemsize} \cdot n$; 8-bit $2\,(n + 4 \lceil n/256 \rceil)$ from "
            r"4,096 numbers on, else $8n$; paged $8n$ below 100,000 numbers, else 0",
            "It goes tensor by tensor, because both limits are limits of one tensor. Paged "
            "moments are managed memory, which PyTorch's allocator never sees.",
        ),
        wrong=bank.OPTIMIZER_BYTES,
    ),
    Exercise(
        id="02.5",
        title="what one layer keeps for the backward pass",
        minutes=12,
        difficulty=4,
        judge=judges.judge_saved_per_token,
        solution=saved_per_token,
        stub="saved_per_token",
        hints=(
            "Which gradient would be missing if the tensor in this row of the table were gone?",
            r"$2\,(4h + 4) + 2 \cdot 2h + 2\,(2q + 2k) + 4 \cdot \text{heads} + 4 \cdot 2i + "
            r"7 \cdot 2r$",
            "A tensor that several operations need is kept once. The norms and the sums of the "
            "softmax are float32, everything else is bfloat16.",
        ),
        wrong=bank.SAVED_PER_TOKEN,
    ),
    Exercise(
        id="02.6",
        title="the tables of logits",
        minutes=5,
        difficulty=2,
        judge=judges.judge_logits_bytes,
        solution=logits_bytes,
        stub="logits_bytes",
        hints=(
            "When the gradient of the logits is made, what must still be there to make it from?",
            r"log softmax, its gradient, and the gradient of the logits: $3 \cdot 4\,TV$",
            "The float32 copy of the logits is gone once its log softmax stands. Then two "
            "gradients of the same size meet it in one moment.",
        ),
        wrong=bank.LOGITS_BYTES,
    ),
    Exercise(
        id="02.7",
        title="the weight that is unpacked for a moment",
        minutes=5,
        difficulty=2,
        judge=judges.judge_dequantised_bytes,
        solution=dequantised_bytes,
        stub="dequantised_bytes",
        hints=(
            "How many maps are unpacked at one time, and which of them is the largest?",
            r"$2n + 4\,n/64$ with $n$ the weights of the largest map",
            "Backward unpacks one map, multiplies and forgets it, so the largest map decides.",
        ),
        wrong=bank.DEQUANTISED_BYTES,
    ),
    Exercise(
        id="02.8",
        title="the peak of a step",
        minutes=4,
        difficulty=1,
        judge=judges.judge_peak,
        solution=peak,
        stub="peak",
        hints=(
            "Can the logits and the activations of the last layer be largest at the same time?",
            r"$\max_{\text{phase}} \sum_{\text{kind}} \text{bytes}$, which is at most "
            r"$\sum_{\text{kind}} \max_{\text{phase}} \text{bytes}$",
            "First the sum within a phase, then the largest of the sums; its name says what to "
            "change first.",
        ),
        wrong=bank.PEAK,
    ),
]

QUESTIONS = [
    Question(
        "02.q1",
        "You have one QLoRA adapter of Llama-3-8B for each of 50 customers. How do you serve them "
        "from one endpoint?",
        [
            Choice(
                "Merge each adapter and load 50 models",
                "Fifty copies of the same frozen weights: the serving calculator shows 50 times "
                "the base, where 50 adapters of rank 16 add about a quarter of it.",
            ),
            Choice(
                "Merge all 50 adapters into one model",
                "A sum of 50 updates is an update that no customer trained; each would get the "
                "others' behaviour, and their data's traces.",
            ),
            Choice(
                "One base in memory, the adapters beside it, chosen for each request",
                "The base is read once for the whole batch, and each request adds its own two thin "
                "products. Slots are allocated at the largest rank, so keep the ranks alike.",
                right=True,
            ),
            Choice(
                "Start a server for a customer when a request comes",
                "Loading gigabytes takes seconds for each switch, and 50 servers hold 50 bases.",
            ),
        ],
    ),
    Question(
        "02.q2",
        "QLoRA runs out of memory at batch 4 x 1024 with Llama-3.2-1B, in the loss. What do you "
        "change first?",
        [
            Choice(
                "The rank, from 16 to 8",
                "Adapters, gradients and moments together are a few percent of this peak.",
            ),
            Choice(
                "The loss: one that never holds the whole table of logits",
                "At the peak three float32 tables of 4,096 x 128,256 numbers are alive, more "
                "than two thirds of all bytes. A fused loss does the same sum tile by tile.",
                right=True,
            ),
            Choice(
                "The optimizer, to its paged form",
                "Paging moves moments, which are small here, and only tensors from 100,000 "
                "numbers on.",
            ),
            Choice(
                "Checkpointing: it must be off",
                "It is on in this setup. The peak lies in the loss, where checkpointing has done "
                "its work already.",
            ),
        ],
    ),
    Question(
        "02.q3",
        "nvidia-smi shows 1.5 GiB more than torch.cuda.max_memory_allocated. Where are they?",
        [
            Choice(
                "In a leak",
                "A leak grows from step to step; this gap is there from the first one.",
            ),
            Choice(
                "In the weights, which PyTorch does not count",
                "Weights are tensors, and every tensor is counted as allocated.",
            ),
            Choice(
                "In the CUDA context and in blocks that the allocator keeps for later",
                "The context belongs to the driver, and reserved memory includes spare room. A "
                "card must hold all three, so the verdict uses the largest number.",
                right=True,
            ),
        ],
    ),
    Question(
        "02.q4",
        "Which of these is left out by '16 bytes a parameter' for full fine-tuning?",
        [
            Choice(
                "The gradients",
                "They are in it: weights, gradients and two moments in float32 are 4 x 4 bytes.",
            ),
            Choice(
                "Everything that grows with the batch: activations and logits",
                "The rule counts what rests between steps, and the peak adds what one step holds.",
                right=True,
            ),
            Choice("The moments of Adam", "They are half of it: two float32 numbers a parameter."),
        ],
    ),
    Question(
        "02.q5",
        "You double the batch under gradient checkpointing with a fused loss. What happens to the "
        "peak of QLoRA on a 1B model?",
        [
            Choice(
                "It doubles",
                "Only what a step holds doubles; the base, adapters and moments stay.",
            ),
            Choice(
                "It grows by the boundaries between layers and one layer's activations",
                "Both are proportional to the tokens, the resting bytes are not. The calculator's "
                "bars show which part grows.",
                right=True,
            ),
            Choice(
                "It stays, since activations are computed again",
                "Computed again is not free: each layer's input is kept, and one layer is whole.",
            ),
        ],
    ),
]
