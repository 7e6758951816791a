"""Effect and damage of a steering: what it does to items that show a concept, and to texts that have none of it.

Everything is measured against the unsteered model, which is measured once, however many vectors and doses follow.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ggufsteer.engine.generate import generate
from ggufsteer.engine.measurement import Measured, Measurement, ScoredText, most_followed
from ggufsteer.maths.statistics import spread_evenly
from ggufsteer.tasks.items import Item, Items
from ggufsteer.tasks.passages import Passage, encode

if TYPE_CHECKING:
    from ggufsteer.engine.interventions import Steering
    from ggufsteer.engine.model import Model

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

OWN_ANSWERS = 12
OWN_TOKENS = 32
"""The length of the model's own answers."""
PERCENTILE = 95


@dataclass(frozen=True)
class Damage:
    """How far the model's distributions have moved on some texts."""

    mean: float
    """Mean KL(unsteered ‖ steered) in nats a token."""
    p95: float
    """Its 95th percentile over the tokens."""
    perplexity_ratio: float
    """Perplexity of the texts when steered, by that when not."""


NONE = Damage(0.0, 0.0, 1.0)
"""Where there is no text to do damage to."""


@dataclass(frozen=True, eq=False)
class Response:
    """What one steering does."""

    log_odds: Float64
    """Of each item: mean log p of the positive side's tokens minus that of the negative side's, nats a token."""
    neutral: Damage
    own: Damage | None
    """On the model's own unsteered answers to the items' questions; None where the items are no questions."""


class EffectMeasurement:
    """Items, neutral text and the model's own answers, to be measured under one steering after the other."""

    def __init__(
        self, model: Model, items: Items | Sequence[Item], neutral: Sequence[ScoredText], *, with_own: bool = True
    ) -> None:
        """Plan it.

        Args:
            model: An open model; it must not be steered at the moment.
            items: What shows the concept; those that cannot be scored are left out.
            neutral: What shows nothing of it; left out from the end where memory does not suffice.
            with_own: Whether the model's own answers to some of the items' questions are measured too.
        """
        self.model = model
        given = items.items if isinstance(items, Items) else items
        self.items = tuple(item for item in given if item.scored(model) is not None)
        answered = _own_answers(model, _questions(self.items) if with_own else [])
        room = most_followed(model)
        self._own = _within([text for _, text in answered], room // 3)
        self._questions = [question for question, _ in answered[: len(self._own)]]
        self._neutral = _within(neutral, room - sum(map(len, self._own)))
        scored = [text for item in self.items for text in item.scored(model) or ()]
        self._measurement = Measurement(model, scored, [*self._neutral, *self._own])
        self.evaluations = 0
        """How often the model was evaluated on everything."""

    def part(self, n_items: int, n_neutral: int) -> EffectMeasurement:
        """Give some of the items, spread evenly, and the first neutral texts, to be measured by themselves.

        The unsteered model is not evaluated again for it.
        """
        places = spread_evenly(range(len(self.items)), n_items) if n_items else []
        chosen = copy.copy(self)
        chosen.items = tuple(self.items[place] for place in places)
        chosen._neutral, chosen._own, chosen._questions = self._neutral[:n_neutral], [], []
        sides = [side for place in places for side in (2 * place, 2 * place + 1)]
        chosen._measurement = self._measurement.part(sides, range(len(chosen._neutral)))
        chosen.evaluations = 0
        return chosen

    @property
    def n_computed(self) -> int:
        """Tokens that were computed so far; those of parts count with the parts."""
        return self._measurement.n_computed

    @property
    def n_distinct(self) -> int:
        """Tokens that one evaluation computes."""
        return self._measurement.n_distinct

    @property
    def n_neutral_tokens(self) -> int:
        """Tokens of neutral text at which distributions are compared."""
        return sum(map(len, self._neutral))

    def unsteered(self) -> Response:
        """Measure the model as it is; only the first call evaluates it."""
        self.evaluations = max(self.evaluations, 1)
        return self._response(self._measurement.unsteered())

    def under(self, steering: Steering | Float32) -> Response:
        """Measure the model under a steering, or with rows added (n_layer - 1, embd).

        Raises:
            EngineError: The model failed, or gave output that is not a number.
        """
        self.unsteered()
        self.evaluations += 1
        return self._response(self._measurement.under(steering))

    def prompted(self, system: str) -> tuple[Float64, Damage | None]:
        """Measure what a system prompt does: the items' log-odds under it, and the damage on the own answers."""
        scored = [text for item in self.items for text in item.scored(self.model, system) or ()]
        prompts = [encode(self.model, replace(question, system=system)).tokens for question in self._questions]
        reworded = [
            ScoredText((*prompt, *text.tokens[text.start :]), len(prompt))
            for prompt, text in zip(prompts, self._own, strict=True)
        ]
        plain = self._measurement.part((), range(len(self._neutral), len(self._neutral) + len(self._own)))
        after = plain.reworded(reworded, scored)
        log_odds = _log_odds(after.log_probabilities[: len(scored)])
        if not self._own:
            return log_odds, None
        before = plain.unsteered().log_probabilities
        return log_odds, _damage(after.divergences, before, after.log_probabilities[len(scored) :])

    def _response(self, measured: Measured) -> Response:
        n_scored, n_neutral = 2 * len(self.items), len(self._neutral)
        base = self._measurement.unsteered().log_probabilities[n_scored:]
        logs, moved = measured.log_probabilities[n_scored:], measured.divergences
        return Response(
            log_odds=_log_odds(measured.log_probabilities[:n_scored]),
            neutral=_damage(moved[:n_neutral], base[:n_neutral], logs[:n_neutral]) if n_neutral else NONE,
            own=_damage(moved[n_neutral:], base[n_neutral:], logs[n_neutral:]) if self._own else None,
        )


def _log_odds(log_probabilities: Sequence[Float64]) -> Float64:
    means = np.array([scores.mean() for scores in log_probabilities])
    result: Float64 = means[0::2] - means[1::2]
    return result


def _damage(divergences: Sequence[Float64], before: Sequence[Float64], after: Sequence[Float64]) -> Damage:
    every = np.concatenate(divergences)
    lost = float(np.concatenate(before).mean() - np.concatenate(after).mean())
    return Damage(
        mean=float(every.mean()),
        p95=float(np.percentile(every, PERCENTILE)),
        perplexity_ratio=float(np.exp(min(lost, 700.0))),
    )


def _questions(items: Sequence[Item]) -> list[Passage]:
    asked = dict.fromkeys(item.positive.text for item in items if item.positive.chat)
    return [Passage(text, chat=True) for text in spread_evenly(list(asked), OWN_ANSWERS)]


def _own_answers(model: Model, questions: Sequence[Passage]) -> list[tuple[Passage, ScoredText]]:
    if not questions:
        return []
    prompts = [encode(model, question).tokens for question in questions]
    answers = generate(model, prompts, max_tokens=OWN_TOKENS)
    return [
        (question, ScoredText((*prompt, *answer.tokens), len(prompt)))
        for question, prompt, answer in zip(questions, prompts, answers, strict=True)
        if answer.tokens
    ]


def _within(texts: Sequence[ScoredText], most_tokens: int) -> list[ScoredText]:
    """Give the first texts that have so many scored tokens together at most, but at least one of them."""
    n_tokens = np.cumsum([len(text) for text in texts])
    return list(texts[: max(1, int(np.searchsorted(n_tokens, most_tokens, side="right")))]) if texts else []
