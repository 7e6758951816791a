"""Answers at several strengths, to be read side by side: which questions, which strengths, and what shows in them.

The same greedy answers are the samples, the share that bears marks of the concept, and the fluency. It knows no
divergence: what a strength costs is measured elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ggufsteer.tasks.everyday import everyday_prompts
from ggufsteer.tasks.fluent import FluencyMeasurement
from ggufsteer.tasks.items import asking_prompt
from ggufsteer.tasks.neutral_texts import Part

if TYPE_CHECKING:
    from ggufsteer.engine.generate import Answer
    from ggufsteer.engine.model import Model
    from ggufsteer.files.recipe import Recipe
    from ggufsteer.maths.fluency import Fluency

MOST_QUESTIONS = 6


@dataclass(frozen=True)
class Sample:
    """All answers at one strength."""

    strength: float
    answers: tuple[Answer, ...]
    """One a question, in their order."""
    marks: float | None
    """Share of answers with a mark of the concept; None where the recipe names no marks."""
    opposite_marks: float | None
    fluency: Fluency


class Sampling:
    """Questions, to be answered under one vector after the other; the plain answers are given once."""

    def __init__(self, model: Model, recipe: Recipe) -> None:
        """Choose the questions: the recipe's own, or everyday ones that no calibration has used."""
        self._recipe = recipe
        asked = recipe.eval.questions[:MOST_QUESTIONS] if model.has_chat_template else ()
        self._fluency = FluencyMeasurement(
            model, asked, system=asking_prompt(recipe), n_answers=MOST_QUESTIONS, part=Part.JUDGING
        )
        everyday = (
            everyday_prompts(model.identity.name)[Part.JUDGING :: len(Part)] if model.has_chat_template else ("",)
        )
        self.questions = asked or tuple(everyday[index % len(everyday)] for index in range(MOST_QUESTIONS))

    def at(self, rows: NDArray[np.float32], strengths: Sequence[float]) -> tuple[Sample, ...]:
        """Let the model answer with rows times each strength added, (n_layer - 1, n_embd)."""
        given = [
            self._fluency.answers(np.float32(strength) * rows) if strength else self._fluency.plain
            for strength in strengths
        ]
        marked = self._recipe.eval
        return tuple(
            Sample(
                strength,
                tuple(answers),
                share_marked(answers, marked.marks),
                share_marked(answers, marked.opposite_marks),
                fluent,
            )
            for strength, answers, fluent in zip(strengths, given, self._fluency.of_each(given), strict=True)
        )


def share_marked(answers: Sequence[Answer], marks: Sequence[str]) -> float | None:
    """Give the share of answers that hold one of some words, whatever their case; None without any word.

    A mark that begins or ends in a letter or digit is found where no other letter or digit follows on there.
    """
    if not marks:
        return None
    found = re.compile("|".join(map(_pattern, marks)), re.IGNORECASE)
    return sum(found.search(answer.text) is not None for answer in answers) / len(answers)


def _pattern(mark: str) -> str:
    before = r"(?<!\w)" if mark[:1].isalnum() else ""
    after = r"(?!\w)" if mark[-1:].isalnum() else ""
    return before + re.escape(mark) + after
