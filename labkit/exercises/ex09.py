"""Notebook 09: merging and serving, six exercises and their questions.

The banks (`ex09_wrong`, `ex09_bills`) hold mistakes that published lessons ship: the merge into the
checkpoint, the merge that is quantised again, one adapter for a whole batch, a name that is a path,
a base for every tenant. The judges are in `ex09_judges`, `ex09_gather` and `ex09_doors`.
"""

from labkit.exercises import ex09_bills, ex09_doors
from labkit.exercises import ex09_judges as judges
from labkit.exercises import ex09_wrong as bank
from labkit.exercises.ex09_gather import judge_gathered
from labkit.exercises.exercise import Exercise
from labkit.exercises.questions import Choice, Question
from labkit.serve.economics import tenant_gib
from labkit.serve.export import vllm_problems
from labkit.serve.gather import gathered
from labkit.serve.merging import lost_share, merge_qlora
from labkit.serve.shelf import adapter_folder

TITLE = "Merge and serve"

EXERCISES = [
    Exercise(
        id="09.1",
        title="merge a QLoRA adapter",
        minutes=10,
        difficulty=2,
        judge=judges.judge_merge,
        solution=merge_qlora,
        stub="merge_qlora",
        copies=False,  # the judge looks for changes in place
        hints=(
            "Two weights are at hand. Which of them stood in the forward pass when A and B learnt?",
            r"$W' = \mathrm{dense}(W_4) + sBA$, and the mismatch is "
            r"$\lVert \mathrm{dense}(W_4) - W \rVert \,/\, \lVert sBA \rVert$",
            "The adapter was trained beside the decoded NF4 weight and has learnt to answer its "
            "rounding errors too. The sum is a new tensor in float32: other adapters still need "
            "the map, and another 4-bit rounding would take the update away again.",
        ),
        wrong=bank.MERGE,
    ),
    Exercise(
        id="09.2",
        title="what rounding loses",
        minutes=6,
        difficulty=2,
        judge=judges.judge_lost,
        solution=lost_share,
        stub="lost_share",
        copies=False,
        hints=(
            "The file holds the rounded sum. What has W become in it, and what was asked for?",
            r"$\lVert \mathrm{round}(W + \Delta) - W - \Delta \rVert \,/\, \lVert \Delta \rVert$",
            "`.to(dtype)` rounds and `.to(W.dtype)` brings the rounded number back, so that the "
            "difference is taken without a second rounding. The error is compared with the update, "
            "since against W it always looks small.",
        ),
        wrong=bank.LOST,
    ),
    Exercise(
        id="09.3",
        title="a batch in which each row has its own adapter",
        minutes=12,
        difficulty=4,
        judge=judge_gathered,
        solution=gathered,
        stub="gathered",
        copies=False,
        hints=(
            "A[which] is (batch, rank, in). Which two products lead from x to the update, and "
            "which rows must come out as zero?",
            r"$u_b = s_{w_b}\, x_b A_{w_b}^\top B_{w_b}^\top$, and $u_b = 0$ where $w_b = -1$",
            "Indexing with `which` puts each row beside its own factors, and a batched product "
            "does the rest. -1 would count from the end, so it is clamped for the indexing and its "
            "rows are set to zero afterwards.",
        ),
        wrong=bank.GATHERED,
    ),
    Exercise(
        id="09.4",
        title="which folder a name means",
        minutes=10,
        difficulty=3,
        judge=ex09_doors.judge_folder,
        solution=adapter_folder,
        stub="adapter_folder",
        hints=(
            "A request may say any text. Is it safer to list what is wrong, or what is right?",
            "1. the whole name has the allowed form; 2. the resolved folder's parent is the "
            "resolved root; 3. the card is there",
            "The form lets no slash, dot or line break through, so no name is a path. Resolving "
            "finds a link that leads out. The card is what the next check, of the base's hash, "
            "reads. One error for all of it tells a stranger nothing of the disk.",
        ),
        wrong=bank.FOLDER,
    ),
    Exercise(
        id="09.5",
        title="what vLLM refuses",
        minutes=6,
        difficulty=2,
        judge=ex09_doors.judge_export,
        solution=vllm_problems,
        stub="vllm_problems",
        copies=False,
        hints=(
            "vLLM computes B A beside the base, in slots of one rank. Which fields of the config "
            "ask for anything else?",
            "refused: what REFUSED names and is set; r above max_rank; bias other than none; a "
            "target outside the seven projections",
            "Each field that is refused has its own reason, and all are told at once, so that an "
            "export is mended in one go. What an older folder does not have is not set.",
        ),
        wrong=ex09_bills.EXPORT,
    ),
    Exercise(
        id="09.6",
        title="the share of one tenant",
        minutes=5,
        difficulty=1,
        judge=ex09_doors.judge_bill,
        solution=tenant_gib,
        stub="tenant_gib",
        hints=(
            "What is there once for all tenants, and what is there once for each?",
            r"$\left(\frac{\text{base}}{\text{tenants}} + \text{width} \cdot n\right) / 2^{30}$",
            "The base is shared, so each bears a part of it; an adapter belongs to one. A number "
            "takes four bytes as PEFT saves it and two in bfloat16.",
        ),
        wrong=ex09_bills.BILL,
    ),
]

QUESTIONS = [
    Question(
        "09.q1",
        "An adapter was trained on the NF4 copy of a model. You still have the checkpoint in "
        "bfloat16. Into which weight do you merge?",
        [
            Choice(
                "The checkpoint: it is the more exact one",
                "More exact, and another model: A and B have learnt beside the rounded weight.",
            ),
            Choice(
                "The decoded NF4 weight",
                "The sum of the two is what the forward pass computed all through training.",
                right=True,
            ),
            Choice(
                "The NF4 codes, which stay in 4 bits",
                "The sum must be quantised again, and an update smaller than a step of the code "
                "is rounded away or blown up.",
            ),
        ],
    ),
    Question(
        "09.q2",
        "A merged model shall serve very high traffic, so a colleague quantises it again after "
        "the merge. What is due before it ships?",
        [
            Choice("Nothing, 4 bits were enough in training", "There the update stood outside."),
            Choice(
                "The same gates as for the fine-tune, run on the quantised file",
                "What is served is a new model. Only its own answers tell what the rounding cost.",
                right=True,
            ),
            Choice("A new fine-tune", "Perhaps, but the scores have to say so first."),
        ],
    ),
    Question(
        "09.q3",
        "Fifty customers have an adapter each for the same 8B model, and share one endpoint. "
        "What do you run?",
        [
            Choice("Fifty merged models", "Fifty times the weights, most of them idle."),
            Choice(
                "One base, and the adapters of the rows in each batch beside it",
                "The base is held and computed once; a row adds two thin products of its own.",
                right=True,
            ),
            Choice(
                "One model with all fifty adapters merged into it",
                "Then every customer gets the sum of fifty updates, the others' data included.",
            ),
            Choice(
                "One base, and set_adapter before each request",
                "Right answers, one customer at a time: rows of two customers share no batch.",
            ),
        ],
    ),
    Question(
        "09.q4",
        "All your adapters have rank 8; the server was started with max_lora_rank 64. What does "
        "one slot take on the GPU?",
        [
            Choice("As much as rank 8", "Slots are allocated before any adapter comes."),
            Choice(
                "As much as rank 64, eight times its adapter",
                "Each slot is made for the largest rank allowed: set the limit to what you use.",
                right=True,
            ),
            Choice("Nothing until it is used", "vLLM allocates all slots when it starts."),
        ],
    ),
    Question(
        "09.q5",
        "The makers of the base release version 1.1, and your adapter loads on it without an "
        "error. What do you do?",
        [
            Choice("Serve it: it loaded", "Shapes fit; the weights it was trained beside differ."),
            Choice(
                "Keep 1.0 pinned by its hash; train and score anew for 1.1",
                "An adapter is a difference to one set of weights. The card's hash refuses others.",
                right=True,
            ),
            Choice("Raise alpha a little", "No factor turns an update into one for other weights."),
        ],
    ),
    Question(
        "09.q6",
        "One product, one adapter, heavy traffic, no experiments. Merge, or serve it beside the "
        "base?",
        [
            Choice(
                "Merge",
                "No other adapter shares the base, so nothing pays for the thin products.",
                right=True,
            ),
            Choice("Beside the base, to swap later", "You would pay at each token for a swap."),
            Choice("Both at once", "Then the update is applied twice."),
        ],
    ),
    Question(
        "09.q7",
        "The adapter was trained with dropout 0.05. What must the server do about it?",
        [
            Choice("Set lora_dropout to 0 in the config", "It changes nothing in evaluation."),
            Choice(
                "Put the model into evaluation mode",
                "`eval()` switches dropout off. A model left in training mode answers by chance.",
                right=True,
            ),
            Choice("Divide the update by 0.95", "Training has made up for the share already."),
        ],
    ),
]
