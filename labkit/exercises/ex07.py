"""Notebook 07: the variants of LoRA, six exercises and five questions.

Each bank (`ex07_wrong`) holds mistakes that published lessons ship: rsLoRA with alpha = 2 rank on
top, the higher rate for A, a base that still holds what A and B hold, a rank for each layer chosen
in that layer alone. The judges are in `ex07_judges` and `ex07_shares`.
"""

from labkit.adalora import weakest
from labkit.exercises import ex07_judges as judges
from labkit.exercises import ex07_shares as shares
from labkit.exercises import ex07_wrong as bank
from labkit.exercises.exercise import Exercise
from labkit.exercises.questions import Choice, Question
from labkit.variants import alternate, lora_plus, principal, rslora, shared_update

TITLE = "The variants"

EXERCISES = [
    Exercise(
        id="07.1",
        title="rsLoRA's scale",
        minutes=4,
        difficulty=1,
        judge=judges.judge_rslora,
        solution=rslora,
        stub="rslora",
        copies=False,
        hints=(
            "A sum of many unlike directions grows like the root of their number. By what must it "
            "be divided to stay as large as it was?",
            r"$s = \alpha / \sqrt{r}$, with $\alpha$ the same at every rank",
            "The layer holds alpha and rank. A, B and alpha stay: whoever raises alpha with the "
            "rank as well undoes the rule.",
        ),
        wrong=bank.RSLORA,
    ),
    Exercise(
        id="07.2",
        title="two learning rates",
        minutes=7,
        difficulty=2,
        judge=judges.judge_lora_plus,
        solution=lora_plus,
        stub="lora_plus",
        copies=False,
        hints=(
            "One factor begins at zero, and has the way to go. Which one wants the higher rate?",
            r"$\eta_A = \eta$ and $\eta_B = \lambda \eta$, with $\lambda \ge 1$",
            "An optimizer takes a list of groups, each with a rate of its own. A ratio below 1 would "
            "give A the higher rate, as some lessons have it, so it is refused aloud.",
        ),
        wrong=bank.LORA_PLUS,
    ),
    Exercise(
        id="07.3",
        title="the strongest directions, and the rest",
        minutes=8,
        difficulty=3,
        judge=judges.judge_principal,
        solution=principal,
        stub="principal",
        copies=False,
        hints=(
            "The layer computes rest + scale * B A. What must that be at the start?",
            r"$W = USV^\top$; $A = \sqrt{S_r / s}\,V_r^\top$, $B = U_r \sqrt{S_r / s}$, rest "
            r"$= W - sBA$",
            "torch.linalg.svd returns the transpose Vh, so its rows are directions. The layer "
            "multiplies by the scale, so S is divided by it first. Each factor takes the root, "
            "so both have gradients of like size.",
        ),
        wrong=bank.PRINCIPAL,
    ),
    Exercise(
        id="07.4",
        title="LoftQ's turns",
        minutes=9,
        difficulty=3,
        judge=shares.judge_alternate,
        solution=alternate,
        stub="alternate",
        copies=False,
        hints=(
            "A pair makes up for a loss. Once it does, is the base that was rounded without it "
            "still the best?",
            r"$Q_t = q(W - L_{t-1})$, then $L_t = sBA$ is the best of its rank to $W - Q_t$; "
            r"$L_0 = 0$",
            "The pair is for W less the base, not for what was rounded. The base comes back as it was "
            "rounded, so that 4 bits can hold it.",
        ),
        wrong=bank.ALTERNATE,
    ),
    Exercise(
        id="07.5",
        title="which triplets go",
        minutes=7,
        difficulty=2,
        judge=shares.judge_weakest,
        solution=weakest,
        stub="weakest",
        copies=False,
        hints=(
            "The budget is one for all layers. With what is the score of a triplet compared?",
            "off where score <= limit, with the limit the (n - budget)-th smallest of all n scores",
            "All scores are put into one row; `kthvalue` finds the limit, and each layer compares "
            "its own scores with it. A layer may lose all or none.",
        ),
        wrong=bank.WEAKEST,
    ),
    Exercise(
        id="07.6",
        title="one pair for all layers",
        minutes=7,
        difficulty=2,
        judge=shares.judge_shared_update,
        solution=shared_update,
        stub="shared_update",
        copies=False,
        hints=(
            "The pair is as large as the largest map. Which part of it fits this one?",
            r"$b \odot B_{:out}(d \odot A_{:,:in}\,x)$",
            "A's first columns and B's first rows serve this map. d stretches what A reads, b what "
            "B writes; b is zero at the start, so the layer starts as its base.",
        ),
        wrong=bank.SHARED_UPDATE,
    ),
]

QUESTIONS = [
    Question(
        "07.q1",
        "A lesson compares LoRA with rsLoRA at rank 64, alpha 64, at one learning rate, and rsLoRA "
        "scores higher. What has it shown?",
        [
            Choice("That the root is the better rule", "One point tells no rule: see the other."),
            Choice(
                "That a scale of 8 did better than a scale of 1 at that rate",
                "64 / 64 is 1, and 64 / 8 is 8. Plain LoRA at alpha 512 is the very same run, and "
                "LoRA at another rate was not tried.",
                right=True,
            ),
            Choice("That high ranks are stable", "One rank was run: nothing is said of others."),
        ],
    ),
    Question(
        "07.q2",
        "A colleague sends you a PiSSA adapter, saved with save_pretrained alone. You load it on "
        "the model from the hub. What do you get?",
        [
            Choice(
                "A model that is off: the strongest directions are counted twice",
                "A and B were trained beside the rest; the hub's weight still holds what they hold.",
                right=True,
            ),
            Choice("The colleague's model", "Only beside the base that was left at the start."),
            Choice("The untrained model", "B is not zero: the update is large from the start."),
        ],
    ),
    Question(
        "07.q3",
        "PEFT's LoftQ, one turn, alpha = 2 rank: how near to W does the model start?",
        [
            Choice("As near as with alpha = rank", "PEFT leaves the scale out of A and B."),
            Choice(
                "As far as plain rounding",
                "The pair is added twice: R - 2 R_r is as long as R, since only signs differ.",
                right=True,
            ),
            Choice("Twice as near", "The second time moves away again."),
        ],
    ),
    Question(
        "07.q4",
        "AdaLoRA trains in a plain Trainer loop that never calls update_and_allocate. What happens?",
        [
            Choice("An error names the call", "None does: the loop runs to its end."),
            Choice(
                "It trains at its first rank and prunes nothing",
                "Scores are read and triplets chosen in that call alone.",
                right=True,
            ),
            Choice("It prunes at the end", "Nothing else than that call prunes."),
        ],
    ),
    Question(
        "07.q5",
        "VeRA trains a fraction of LoRA's numbers. What does that save in a step of training?",
        [
            Choice("Most of its time", "Its rank is higher, so its products are larger."),
            Choice(
                "Adam's state and the file; neither base nor activations",
                "What trains was the smallest part of QLoRA's memory already.",
                right=True,
            ),
            Choice("Most of its memory", "The frozen base and the activations stay."),
        ],
    ),
]
