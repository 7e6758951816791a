"""What vectors do, and at what cost: effect and damage over the strength, beside vectors of chance and a system prompt.

It decides which strengths are measured and when a vector counts as one that does something. All vectors of one call are
measured on the same items, neutral texts and answers; none of the items was used to make them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ggufsteer.errors import SteerError
from ggufsteer.maths.dose import Trial, interval_of_mean, monotonicity, next_strength, slope, trials_to_budget
from ggufsteer.maths.statistics import spread_evenly
from ggufsteer.tasks.calibrate import BUDGET
from ggufsteer.tasks.effect import NONE, Damage, EffectMeasurement, Response
from ggufsteer.tasks.evaluate_chance import N_CHANCE, at_equal_damage, chance_rows, size_of_chance, widened
from ggufsteer.tasks.evaluate_result import (
    Contrast,
    Control,
    Dose,
    Evaluation,
    ItemGain,
    NamedVector,
    PromptControl,
    VectorEvaluation,
)
from ggufsteer.tasks.items import Item, Items, asking_prompt, evaluation_items
from ggufsteer.tasks.neutral_texts import Part, neutral_texts
from ggufsteer.tasks.progress import Progress, ReportProgress, ignore
from ggufsteer.tasks.samples import Sample, Sampling

if TYPE_CHECKING:
    from ggufsteer.engine.measurement import ScoredText
    from ggufsteer.engine.model import Model
    from ggufsteer.files.recipe import Recipe

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

ITEM_TOKENS = 2000
"""What all items' texts may have together; of longer ones there are fewer items, spread evenly over all."""
_LARGE = 30 * 576**2
"""Layers times width squared of a model of 135 million parameters; smaller ones have time for more tokens."""
NEUTRAL_TEXTS = 16
TOLERANCE = 0.1
"""The damage at the strength that all vectors are compared at may differ by this part from the budget. On other texts
it differs by more than that."""
CHANCE_ITEMS = 6
CHANCE_TEXTS = 4
"""What each vector of chance is measured on: it moves all items alike, so that more vectors tell more than items."""
MOST_TRIALS = 3
MOST_DOSES = 7
_NEAR = 0.2
"""A strength that differs by less than this part from one that was measured tells nothing new."""
_USUAL = (0.4, 2.5)
"""Where the budget is reached outside of this, strengths are counted in units of the one that reaches it."""
_USUAL_MAXIMUM = 2.0
_FAR = 0.25
"""Where the damage differs by more than this part from the budget, comparing at equal damage is not what was done."""
_WITHIN_REACH = math.log(10)
"""The damage at 1.0 may be off the budget by this factor, in logarithms, for the usual strengths to lie about it."""
_NO_DAMAGE = 1e-6
_SHOWN_ITEMS = 3

STAGE = "measuring"
STAGE_ANSWERS = "answering"


def evaluate(
    recipe: Recipe,
    model: Model,
    vectors: Sequence[NamedVector],
    *,
    others: Sequence[NamedVector] = (),
    budget: float = BUDGET,
    seed: int = 0,
    with_samples: bool = True,
    report: ReportProgress = ignore,
) -> Evaluation:
    """Measure what vectors do to a recipe's concept.

    Args:
        recipe: Whose concept; its held-out items, marks, questions and system prompt are used.
        model: An open model; it must not be steered at the moment.
        vectors: What is measured, at least one.
        others: Vectors of other concepts, measured on the same items as controls.
        budget: Damage at which effects are compared: the 95th percentile of KL(unsteered ‖ steered) on neutral text, in
            nats.
        seed: Of the neutral texts, the vectors of chance and the intervals. Same seed, same digits.
        with_samples: Whether the model answers questions at five strengths too.
        report: Told what is done.

    Raises:
        SteerError: There is no vector, or nothing to measure it on.
        EngineError: The model failed.
    """
    if not vectors:
        raise SteerError("no vector was given", "name at least one")
    items = _thinned(evaluation_items(recipe, model, report=report), model)
    # Calibration finds its strength on the other half of the texts.
    neutral = neutral_texts(model, NEUTRAL_TEXTS, seed=seed, part=Part.JUDGING, report=report)
    bench = _Bench(model, items, neutral, budget, seed, report, len(vectors))
    prompt = _prompt(asking_prompt(recipe), bench)
    sampling = Sampling(model, recipe) if with_samples else None
    found = tuple(_evaluated(named, bench, others, sampling) for named in vectors)
    return Evaluation(
        recipe=recipe,
        items=items,
        questions=tuple(sampling.questions) if sampling else (),
        budget=budget,
        seed=seed,
        n_distinct=bench.measurement.n_distinct,
        n_neutral_tokens=bench.measurement.n_neutral_tokens,
        n_evaluations=bench.measurement.evaluations,
        n_tokens=bench.n_tokens,
        prompt=prompt,
        vectors=found,
        warnings=tuple(dict.fromkeys(bench.warnings)),
    )


class _Bench:
    """What every vector of a call is measured with."""

    def __init__(
        self,
        model: Model,
        items: Items,
        neutral: Sequence[ScoredText],
        budget: float,
        seed: int,
        report: ReportProgress,
        n_vectors: int,
    ) -> None:
        self.model, self.budget, self.seed = model, budget, seed
        self.measurement = EffectMeasurement(model, items, neutral)
        self.report = report
        self._trial = self.measurement.part(0, NEUTRAL_TEXTS)
        self._chance = self.measurement.part(CHANCE_ITEMS, CHANCE_TEXTS)
        self.warnings: list[str] = []
        self._expected = 2 + n_vectors * (MOST_DOSES - 1 + N_CHANCE)
        report(Progress(STAGE, 0, self._expected, "evaluations"))
        self.base = self.measurement.unsteered().log_odds

    def under(self, rows: Float32, strength: float) -> Response:
        """Measure a strength; rows are (n_layer - 1, n_embd)."""
        response = self.measurement.under(np.float32(strength) * rows)
        self.tell()
        return response

    def tell(self) -> None:
        """Report how far the measuring is."""
        done = self.measurement.evaluations + self._chance.evaluations
        self.report(Progress(STAGE, done, max(done, self._expected), "evaluations", self.n_tokens))

    def damage(self, rows: Float32, strength: float) -> float:
        """Give the damage on neutral text of a strength."""
        return self._trial.under(np.float32(strength) * rows).neutral.p95

    def by_chance(self, rows: Float32) -> tuple[float, Damage]:
        """Give the effect from minus to plus rows without meaning on a few items, and their damage on a few texts.

        It is twice the effect of plus: at the size of a vector they do so little that it grows in proportion.
        """
        response = self._chance.under(rows)
        self.tell()
        return 2 * float((response.log_odds - self._chance.unsteered().log_odds).mean()), response.neutral

    @property
    def n_tokens(self) -> int:
        """Tokens that were computed so far."""
        return sum(one.n_computed for one in (self.measurement, self._trial, self._chance))

    def rows(self, named: NamedVector) -> Float32:
        return named.vector.as_rows(self.model.n_layer)


def _thinned(items: Items, model: Model) -> Items:
    """Leave items out where all of them have more tokens than `ITEM_TOKENS`."""
    n_tokens = sum(len(text.tokens) for item in items.items for text in item.scored(model) or ())
    room = ITEM_TOKENS * max(1.0, _LARGE / (model.n_layer * model.n_embd**2))
    most = max(1, int(room * len(items) / n_tokens))
    if most >= len(items):
        return items
    return Items(tuple(spread_evenly(items.items, most)), f"{most} of {len(items)} {items.source}")


def _evaluated(
    named: NamedVector, bench: _Bench, others: Sequence[NamedVector], sampling: Sampling | None
) -> VectorEvaluation:
    rows = bench.rows(named)
    responses, strength = _responses(rows, bench, named.vector.provenance.strength_maximum or _USUAL_MAXIMUM)
    damage = responses[strength].neutral.p95
    if abs(damage - bench.budget) > _FAR * bench.budget:
        bench.warnings.append(
            f"vector '{named.name}': the damage at strength {strength:.2g} is {damage:.2g} nats, not {bench.budget:g}"
        )
    gains = responses[strength].log_odds - responses[-strength].log_odds
    chance, random = _chance(rows, strength, bench)
    interval = widened(float(gains.mean()), interval_of_mean(gains, bench.seed), chance)
    ordered = sorted(responses)
    doses = tuple(_dose(one, responses[one], bench) for one in ordered)
    effects = [dose.effect for dose in doses]
    shown = 1.0 if _USUAL[0] <= strength <= _USUAL[1] else strength
    best, worst = _extremes(bench.measurement.items, responses[shown].log_odds - bench.base)
    return VectorEvaluation(
        named=named,
        verdict="no effect" if interval[0] <= 0 <= interval[1] else "effect",
        slope=slope(ordered, effects),
        monotonicity=monotonicity(ordered, effects),
        wrong_way=float((gains < 0).mean()),
        at_budget=Contrast(strength, float(gains.mean()), interval),
        doses=doses,
        controls=(random, *(_other(other, bench) for other in others)),
        samples=_samples(rows, ordered, shown, named, sampling, bench.report),
        best=best,
        worst=worst,
    )


def _responses(rows: Float32, bench: _Bench, maximum: float) -> tuple[dict[float, Response], float]:
    """Measure the strengths; gives what each of them does, and the one whose damage is nearest to the budget."""
    found = {0.0: bench.measurement.unsteered()}

    def measure(strength: float) -> float:
        if strength not in found:
            found[strength] = bench.under(rows, strength)
        return found[strength].neutral.p95

    known = [Trial(1.0, measure(1.0))]
    if TOLERANCE < abs(math.log(max(known[0].damage, _NO_DAMAGE) / bench.budget)) < _WITHIN_REACH:
        # A strength on the other side of the budget, which is measured anyway, spares trials.
        other = maximum if known[0].damage < bench.budget else 0.5
        known.append(Trial(other, measure(other)))
    at = _strength_at_budget(rows, known, bench)
    measure(at)
    measure(-at)
    unit = 1.0 if _USUAL[0] <= at <= _USUAL[1] else at
    for part in (maximum, -_USUAL_MAXIMUM, 0.5, -1.0, -0.5):
        strength = part * unit
        if len(found) < MOST_DOSES and all(abs(strength - one) > _NEAR * abs(strength) for one in found):
            measure(strength)
    return found, at


def _strength_at_budget(rows: Float32, known: Sequence[Trial], bench: _Bench) -> float:
    """Find the strength at which the damage is the budget; on neutral text alone, which costs a third."""
    trials = trials_to_budget(
        lambda strength: bench.damage(rows, strength),
        bench.budget,
        known=known,
        tolerance=TOLERANCE,
        most=len(known) + MOST_TRIALS,
    )
    return min(trials, key=lambda trial: abs(trial.damage - bench.budget)).strength


def _dose(strength: float, response: Response, bench: _Bench) -> Dose:
    changes = response.log_odds - bench.base
    return Dose(
        strength=strength,
        effect=float(changes.mean()),
        interval=interval_of_mean(changes, bench.seed),
        wrong_way=float((np.sign(strength) * changes < 0).mean()),
        neutral=response.neutral,
        own=response.own,
    )


def _chance(rows: Float32, strength: float, bench: _Bench) -> tuple[float, Control]:
    """Measure directions of chance of the same size; gives how far an interval has to reach for them alone."""
    found = [bench.by_chance(np.float32(strength) * direction) for direction in chance_rows(rows, bench.seed)]
    # One percentile of a few texts is rough; directions without meaning do much the same damage.
    mean, p95 = (float(np.mean([getattr(damage, which) for _, damage in found])) for which in ("mean", "p95"))
    effects = [at_equal_damage(effect, p95, bench.budget) for effect, _ in found]
    reach = size_of_chance(effects)
    same = Damage(mean * bench.budget / p95, bench.budget, 1.0) if p95 > 0 else NONE
    name = f"{len(effects)} random vectors"
    return reach, Control("random", name, float(np.mean(effects)), (-reach, reach), same)


def _other(other: NamedVector, bench: _Bench) -> Control:
    """Measure a vector of another concept, at a strength that follows from its damage at 1.0."""
    rows = bench.rows(other)
    strength = next_strength([Trial(1.0, bench.under(rows, 1.0).neutral.p95)], bench.budget)
    ahead, back = bench.under(rows, strength), bench.under(rows, -strength)
    gains = ahead.log_odds - back.log_odds
    return Control("vector", other.name, float(gains.mean()), interval_of_mean(gains, bench.seed), ahead.neutral)


def _prompt(text: str, bench: _Bench) -> PromptControl | None:
    if not text or not bench.model.has_chat_template:
        return None
    log_odds, damage = bench.measurement.prompted(text)
    gains = log_odds - bench.base
    return PromptControl(text, float(gains.mean()), interval_of_mean(gains, bench.seed), damage or NONE)


def _extremes(items: Sequence[Item], gains: Float64) -> tuple[tuple[ItemGain, ...], tuple[ItemGain, ...]]:
    """Give the items that a vector moves most, and those that it moves least, or the wrong way."""
    order = np.argsort(-gains, kind="stable").tolist()
    count = min(_SHOWN_ITEMS, len(order) // 2)
    found = [_gain(items[number], float(gains[number])) for number in order]
    return tuple(found[:count]), tuple(found[::-1][:count])


def _gain(item: Item, gain: float) -> ItemGain:
    positive, negative = item.answers
    return ItemGain(item.question, positive, negative, gain)


def _samples(
    rows: Float32,
    measured: Sequence[float],
    unit: float,
    named: NamedVector,
    sampling: Sampling | None,
    report: ReportProgress,
) -> tuple[Sample, ...]:
    """Let the model answer at five strengths, all of which were measured."""
    if sampling is None:
        return ()
    most = named.vector.provenance.strength_maximum or _USUAL_MAXIMUM
    wanted = [part * unit for part in (-1.0, 0.0, 0.5, 1.0, most)]
    strengths = sorted({min(measured, key=lambda one: abs(one - strength)) for strength in wanted})
    report(Progress(STAGE_ANSWERS, 0, len(strengths), "strengths"))
    return sampling.at(rows, strengths)
