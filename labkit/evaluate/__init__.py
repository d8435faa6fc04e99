"""Answers, scores and an evaluation that decides.

scores       greedy answers in batches, graded by exact rules
bootstrap    intervals for shares and paired differences
gates        what a fine-tune must reach, fixed in a file before it is trained
report       every gate decided by its interval, base beside tuned
probes       the task, old skills, refusals and their look-alikes, for one model
judges       a model that grades, and how far it agrees with the rule
shapes       answers held to a form while they are written
recorded     recorded runs: forgetting, over-fitting, refusals undone
prompting    the same task without training: examples in the prompt, or questions
"""

from labkit.evaluate.forced import ForcedScore, forced_hits, forced_score
from labkit.evaluate.gates import Gate, GateError, Gates
from labkit.evaluate.judges import (
    Agreement,
    Judge,
    JudgeError,
    Questions,
    Rule,
    YesNo,
    agreement,
    kappa,
)
from labkit.evaluate.probes import (
    Measure,
    lookalikes,
    marked,
    measure,
    poison,
    refusal_rates,
    suite,
)
from labkit.evaluate.prompting import by_questions, few_shot
from labkit.evaluate.recorded import Checkpoint, best_checkpoint
from labkit.evaluate.report import Line, Report, decide, verdict
from labkit.evaluate.resampling import (
    Interval,
    bootstrap,
    coverage,
    interval,
    needed,
    paired,
    paired_bootstrap,
)
from labkit.evaluate.scores import (
    SkillScore,
    TaskScore,
    answers,
    fields_right,
    grade_skills,
    grade_task,
    is_json,
    score_regression,
    score_task,
)
from labkit.evaluate.shapes import Shape, filled, record_shape

__all__ = [
    "Agreement",
    "Checkpoint",
    "ForcedScore",
    "Gate",
    "GateError",
    "Gates",
    "Interval",
    "Judge",
    "JudgeError",
    "Line",
    "Measure",
    "Questions",
    "Report",
    "Rule",
    "Shape",
    "SkillScore",
    "TaskScore",
    "YesNo",
    "agreement",
    "answers",
    "best_checkpoint",
    "bootstrap",
    "by_questions",
    "coverage",
    "decide",
    "few_shot",
    "fields_right",
    "filled",
    "forced_hits",
    "forced_score",
    "grade_skills",
    "grade_task",
    "interval",
    "is_json",
    "kappa",
    "lookalikes",
    "marked",
    "measure",
    "needed",
    "paired",
    "paired_bootstrap",
    "poison",
    "record_shape",
    "refusal_rates",
    "score_regression",
    "score_task",
    "suite",
    "verdict",
]
