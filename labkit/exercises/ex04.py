"""Notebook 04: the fine-tune, six exercises and four questions.

Each bank (`ex04_wrong`) holds mistakes that published lessons ship or learners made: key and value
projections counted at the query width, labels shifted twice, the real end-of-turn token masked,
gradients never cleared, an adapter file sized by its optimizer. The judges are in `ex04_judges`.
"""

from labkit.adapters import training_bytes
from labkit.data import IGNORE, mask_prompt
from labkit.evaluate import fields_right
from labkit.exercises import ex04_judges as judges
from labkit.exercises import ex04_wrong as bank
from labkit.exercises.exercise import Exercise
from labkit.exercises.questions import Choice, Question
from labkit.loss import next_token_loss
from labkit.train import lora_parameters, training_step

TITLE = "QLoRA fine-tune"

EXERCISES = [
    Exercise(
        id="04.1",
        title="count the trainable parameters",
        minutes=8,
        difficulty=2,
        judge=judges.judge_lora_parameters,
        solution=lora_parameters,
        stub="lora_parameters",
        hints=(
            "Which seven linear maps does a Llama layer hold, and what goes in and out of each?",
            r"$\text{layers} \cdot r \cdot \sum_{7}(\text{in} + \text{out})$, where q_proj puts out "
            r"$\text{heads} \cdot \text{head dim}$, and k_proj and v_proj put out "
            r"$\text{kv heads} \cdot \text{head dim}$",
            "Query and output projections are heads * head_dim wide, key and value projections "
            "kv_heads * head_dim; the widths come from the config, so any Llama can be counted.",
        ),
        wrong=bank.LORA_PARAMETERS,
    ),
    Exercise(
        id="04.2",
        title="mask the prompt",
        minutes=5,
        difficulty=1,
        judge=judges.judge_mask_prompt,
        solution=mask_prompt,
        stub="mask_prompt",
        copies=False,
        hints=(
            "Which tokens of the chat should the model learn to write, and which only to read?",
            f"labels = {IGNORE} for each prompt token, then the tokens that follow it unchanged",
            "The labels stay under their own tokens, because the loss shifts them by one. The "
            "end-of-turn token is the last label: without it the model never stops.",
        ),
        wrong=bank.MASK_PROMPT,
    ),
    Exercise(
        id="04.3",
        title="the next-token loss",
        minutes=8,
        difficulty=3,
        judge=judges.judge_next_token_loss,
        solution=next_token_loss,
        stub="next_token_loss",
        hints=(
            "The logits at position t are a guess. Of which token?",
            r"$-\frac{1}{n}\sum_t \log p_{t-1}(\text{label}_t)$ over the $n$ labels that are not "
            f"{IGNORE}. `F.cross_entropy` takes logits (tokens, vocab) and labels (tokens,), and "
            f"its `ignore_index` is {IGNORE} unless you say otherwise.",
            "Dropping the last guess and the first label lines both up. cross_entropy leaves "
            f"{IGNORE} out and divides by the labels that count.",
        ),
        wrong=bank.NEXT_TOKEN_LOSS,
    ),
    Exercise(
        id="04.4",
        title="one training step",
        minutes=8,
        difficulty=2,
        judge=judges.judge_training_step,
        solution=training_step,
        stub="training_step",
        copies=False,
        hints=(
            "A gradient adds to what is already there. What must happen before the second step?",
            "clear, loss, backward, clip, step; return loss.item(). To clip: "
            "`torch.nn.utils.clip_grad_norm_(model.parameters(), clip)`",
            "clip_grad_norm_ stands between backward and step, since it changes the gradients "
            "that the optimizer reads. item() lets the graph go.",
        ),
        wrong=bank.TRAINING_STEP,
    ),
    Exercise(
        id="04.5",
        title="grade an answer",
        minutes=8,
        difficulty=2,
        judge=judges.judge_fields_right,
        solution=fields_right,
        stub="fields_right",
        hints=(
            "What does json.loads do with an answer that was cut off?",
            "right fields = number of keys of the truth whose value the answer gives unchanged, "
            "with the same type",
            "Only json.JSONDecodeError is caught, since only a broken answer is expected. `in` "
            "makes a missing field a wrong one, also where the truth holds null. The types are "
            "compared because True == 1 and 420.0 == 420 in Python.",
        ),
        wrong=bank.FIELDS_RIGHT,
    ),
    Exercise(
        id="04.6",
        title="predict the adapter's bytes, without the file's header",
        minutes=5,
        difficulty=1,
        judge=judges.judge_training_bytes,
        solution=training_bytes,
        stub="training_bytes",
        hints=(
            "In which dtype does PEFT keep A and B, and what does Adam add to each number? "
            "Leave out the file's header.",
            r"file, without its header: $4n$ bytes; training: $4n \cdot (1 + 1 + 2)$ bytes",
            "Weight, gradient and two moments are float32 here: Adam keeps a running mean of the "
            "gradient (first moment) and of its square (second). Only the weight is saved.",
        ),
        wrong=bank.TRAINING_BYTES,
    ),
]

QUESTIONS = [
    Question(
        "04.q1",
        "What happens if prepare_model_for_kbit_training is left out?",
        [
            Choice(
                "The loss turns NaN at once",
                "The cell above trains without it: every loss is finite, and near the other run.",
            ),
            Choice(
                "Training works; norms and embeddings keep their own dtype",
                "The function casts norms, embeddings and head to float32, which costs memory, and "
                "switches on gradient checkpointing, which saves activations and costs time.",
                right=True,
            ),
            Choice(
                "Dropout stays on in the frozen layers",
                "The function has nothing to do with dropout.",
            ),
        ],
    ),
    Question(
        "04.q2",
        "The tokenizer has no pad token, so a lesson sets pad = eos. What may go wrong?",
        [
            Choice(
                "A collator that masks padding masks the real end of turn too",
                "Every eos label becomes -100, so the model never learns to stop.",
                right=True,
            ),
            Choice(
                "Padding is attended to",
                "Right padding stands behind every real token, and a causal model looks back only.",
            ),
            Choice("Nothing", "It depends on the collator: look at the labels before you train."),
        ],
    ),
    Question(
        "04.q3",
        "Run one masks the prompt and ends at loss 0.9. Run two does not and ends at 0.6. "
        "Which is better?",
        [
            Choice("Run two", "Its mean is over other tokens, most of them easy prompt text."),
            Choice("Run one", "A higher loss is no merit: the two numbers measure other things."),
            Choice(
                "The losses cannot be compared",
                "They average over different tokens. Score both on the same test answers.",
                right=True,
            ),
        ],
    ),
    Question(
        "04.q4",
        "Which learning rate would you try first when you change full fine-tuning for LoRA?",
        [
            Choice("The same", "LoRA then learns slowly: its best rate is about ten times higher."),
            Choice(
                "About ten times higher",
                "Over 14 models the fitted factor was 9.8; for very short runs, below some 100 "
                "steps, it is nearer 15 (Thinking Machines, LoRA Without Regret).",
                right=True,
            ),
            Choice(
                "Ten times lower, since B starts at zero",
                "B = 0 makes the start harmless, and B moves at the first step; that asks for no "
                "smaller rate.",
            ),
        ],
    ),
]
