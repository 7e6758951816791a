"""How a candidate of a search is judged: effect at equal damage, on more texts from round to round.

Damage is that of the sign that does more, so that no candidate is good because one of its sides is harmless. It
measures, and decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ggufsteer.files.search_ledger import Judged
from ggufsteer.maths.dose import trials_to_budget
from ggufsteer.maths.statistics import spread_evenly
from ggufsteer.tasks.effect import Damage, EffectMeasurement
from ggufsteer.tasks.fluent import FluencyMeasurement
from ggufsteer.tasks.layer_search import as_matrix, corrected_effect, nearest, relative_size
from ggufsteer.tasks.method_search import Round

if TYPE_CHECKING:
    from ggufsteer.engine.measurement import ScoredText
    from ggufsteer.engine.model import Model
    from ggufsteer.tasks.items import Item

Rows = Mapping[int, NDArray[np.float32]]

FEWEST_ITEMS = 4
FEWEST_TEXTS = 6
FIRST_SIZE = 0.5
"""The first trial of the first candidate adds this part of the states' length."""
_CLOSE = (0.15, 0.05)
"""By which part damage may miss the budget, before and in the last round; the rest is corrected by the law that effect
grows with the square root of the divergence."""
_TRIALS = (5, 8)


class ModelJudge:
    """Items and neutral text on one model, and the answers that it gives."""

    def __init__(
        self,
        model: Model,
        items: Sequence[Item],
        neutral: Sequence[ScoredText],
        *,
        system: str,
        budget: float,
        rows_of: Callable[[str], Rows],
        state_norms: Mapping[int, float],
    ) -> None:
        """Plan nothing yet: each round is planned when its first candidate comes.

        Args:
            model: An open model; it must not be steered at the moment.
            items: What shows the concept; all of them in the last round.
            neutral: Texts to do damage to; all of them in the last round.
            system: A system prompt that asks for the concept; see `FluencyMeasurement`.
            budget: The damage at which candidates are compared.
            rows_of: Gives what a candidate adds, of any size, by its name.
            state_norms: Median length of the states, by layer.
        """
        self._model = model
        self._items = items
        self._neutral = neutral
        self._system = system
        self._budget = budget
        self._rows_of = rows_of
        self._state_norms = state_norms
        self._planned = 0
        self._shown: EffectMeasurement | None = None
        self._broken: EffectMeasurement | None = None
        self._answers: FluencyMeasurement | None = None

    def __call__(self, name: str, each: Round, before: float) -> Judged:
        """Judge a candidate.

        Args:
            name: Which.
            each: In which round.
            before: The strength that was found in the round before; 0 where there was none.
        """
        shown, broken = self._measurements(each)
        rows = self._rows_of(name)
        matrix = as_matrix(self._model, rows)
        seen: dict[float, Damage] = {}

        def damage(strength: float) -> float:
            signs = (np.float32(strength), np.float32(-strength))
            seen[strength] = max((broken.under(sign * matrix).neutral for sign in signs), key=lambda found: found.p95)
            return seen[strength].p95

        trials = trials_to_budget(
            damage,
            self._budget,
            first=before or FIRST_SIZE / relative_size(rows, self._state_norms),
            tolerance=_CLOSE[each.is_last],
            most=_TRIALS[each.is_last],
        )
        trial = nearest(trials, self._budget)
        sized = np.float32(trial.strength) * matrix
        effect = float((shown.under(sized).log_odds - shown.under(-sized).log_odds).mean())
        return Judged(
            round=each.number,
            candidate=name,
            strength=trial.strength,
            effect=corrected_effect(effect, trial.damage, self._budget),
            damage=trial.damage,
            mean_damage=seen[trial.strength].mean,
            fluent=self._heard().under(sized).fluent if each.is_last else None,
        )

    def _measurements(self, each: Round) -> tuple[EffectMeasurement, EffectMeasurement]:
        """Give items and neutral text of a round; those of the round before are forgotten, for they are large."""
        if self._planned != each.number or self._shown is None or self._broken is None:
            self._planned = each.number
            self._shown = self._broken = None
            items = spread_evenly(self._items, max(FEWEST_ITEMS, round(each.share * len(self._items))))
            texts = self._neutral[: max(FEWEST_TEXTS, round(each.share * len(self._neutral)))]
            self._shown = EffectMeasurement(self._model, items, (), with_own=False)
            self._broken = EffectMeasurement(self._model, (), texts, with_own=False)
        return self._shown, self._broken

    def _heard(self) -> FluencyMeasurement:
        if self._answers is None:
            self._answers = FluencyMeasurement(self._model, system=self._system)
        return self._answers
