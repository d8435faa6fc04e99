"""Exercises that check themselves: judges, hints, quiz questions and the progress board.

exercise    what an exercise is, and its bank of wrong answers
limits      stops what runs for too long
judging     runs a judge; always comes back with a verdict
compare     names how an answer differs from the right one
progress    one small file per learner
engine      what a notebook calls
questions   quiz questions with a reason for each choice
overview    the progress board
exNN        the exercises of notebook NN
"""

from labkit.exercises.engine import (
    check,
    exercises,
    find,
    folded_hints,
    hint,
    solution,
    source_of,
    use,
)
from labkit.exercises.exercise import Exercise, Verdict, Wrong
from labkit.exercises.overview import board
from labkit.exercises.questions import Choice, Question, questions, quiz

__all__ = [
    "Choice",
    "Exercise",
    "Question",
    "Verdict",
    "Wrong",
    "board",
    "check",
    "exercises",
    "find",
    "folded_hints",
    "hint",
    "questions",
    "quiz",
    "solution",
    "source_of",
    "use",
]
