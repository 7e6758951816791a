"""How fluent a model's answers stay when it is steered: everyday questions, answered greedily."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ggufsteer.engine.generate import Answer, generate
from ggufsteer.engine.interventions import NOTHING, Steering
from ggufsteer.engine.score import log_probabilities
from ggufsteer.maths.fluency import Fluency, fluency
from ggufsteer.tasks.everyday import everyday_prompts
from ggufsteer.tasks.neutral_texts import Part, heads
from ggufsteer.tasks.passages import chat_text, encode_text

if TYPE_CHECKING:
    from ggufsteer.engine.model import Model

N_ANSWERS = 24
ANSWER_TOKENS = 40


class FluencyMeasurement:
    """Questions to be answered under one steering after the other."""

    def __init__(
        self,
        model: Model,
        questions: Sequence[str] = (),
        *,
        system: str = "",
        n_answers: int = N_ANSWERS,
        part: Part = Part.DOSE,
        max_tokens: int = ANSWER_TOKENS,
    ) -> None:
        """Answer the questions once without steering, to know what is usual.

        Args:
            model: An open model; it must not be steered at the moment.
            questions: What is asked through the chat template; everyday questions where there are none.
            system: A system prompt that asks for the concept. Words that are likely under it are no sign of damage: a
                refusal in French surprises the plain model, and is good language all the same.
            n_answers: How many everyday questions.
            part: Which of them.
            max_tokens: Where an answer is cut off.
        """
        self._model = model
        if questions:
            self.prompts = [encode_text(model, chat_text(model, question)) for question in questions]
        else:
            beginnings = heads(model, part)
            questions = everyday_prompts(model.identity.name)[part :: len(Part)] if model.has_chat_template else ()
            self.prompts = [beginnings[index % len(beginnings)] for index in range(n_answers)]
        self._prompted = [
            encode_text(model, chat_text(model, questions[index % len(questions)], system))
            if system and questions
            else []
            for index in range(len(self.prompts))
        ]
        self._max_tokens = max_tokens
        self.plain = self.answers(NOTHING)
        """The unsteered model's answers."""
        self._known: dict[tuple[int, tuple[int, ...]], float] = {}
        surprises = self._surprises([self.plain])[0]
        # Those of steered answers are not kept: their last digits depend on what they were computed with.
        self._known = {
            (place, one.tokens): seen for place, (one, seen) in enumerate(zip(self.plain, surprises, strict=True))
        }
        self._usual = float(np.mean(surprises))

    def answers(self, steering: Steering | NDArray[np.float32]) -> list[Answer]:
        """Give greedy answers under a steering, or with rows added; afterwards the model is steered as before."""
        with self._model.context.steered_by(steering):
            return generate(self._model, self.prompts, max_tokens=self._max_tokens)

    def under(self, steering: Steering | NDArray[np.float32]) -> Fluency:
        """Measure the answers under a steering, or with rows added."""
        return self.of(self.answers(steering))

    def of(self, answers: Sequence[Answer]) -> Fluency:
        """Measure answers that were given to these questions."""
        return self.of_each([answers])[0]

    def of_each(self, given: Sequence[Sequence[Answer]]) -> list[Fluency]:
        """Measure answers that were given under several steerings; what they begin with alike is computed once."""
        return [
            fluency(
                [answer.text for answer in answers],
                [answer.tokens for answer in answers],
                surprises,
                [answer.ended for answer in answers],
                self._usual,
            )
            for answers, surprises in zip(given, self._surprises(given), strict=True)
        ]

    def _surprises(self, given: Sequence[Sequence[Answer]]) -> list[list[float]]:
        """Give minus the mean log-probability of each answer's tokens under the unsteered model, in nats.

        Where there is a system prompt, the smaller of what they are with it and without it; 0 for an empty answer.
        """
        keys = [[(place, answer.tokens) for place, answer in enumerate(answers)] for answers in given]
        new = [key for key in dict.fromkeys(chain(*keys)) if key[1] and key not in self._known]
        heads = [(self.prompts[place], self._prompted[place] or self.prompts[place]) for place, _ in new]
        with self._model.context.steered_by(NOTHING):
            scores = log_probabilities(
                self._model,
                [[*head, *tokens] for (_, tokens), both in zip(new, heads, strict=True) for head in both],
                starts=[len(head) for both in heads for head in both],
            )
        least = [-max(float(one.mean()), float(two.mean())) for one, two in zip(scores[::2], scores[1::2], strict=True)]
        known = {**self._known, **dict(zip(new, least, strict=True))}
        return [[known.get(key, 0.0) for key in row] for row in keys]
