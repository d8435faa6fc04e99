"""The questions of notebook 09, those that popular lessons ask about serving among them."""

from labkit.exercises.questions import Choice, Question

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
