"""What is known of vectors as the JSON document that reports are drawn from.

It decides the names of its keys, and no numbers. Keys of what was not measured are missing, or null.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from ggufsteer.tasks.versions import SETTINGS, versions

if TYPE_CHECKING:
    from ggufsteer.engine.model import Model
    from ggufsteer.files.control_vector import ControlVector
    from ggufsteer.files.recipe import Recipe
    from ggufsteer.tasks.calibrate import Calibration
    from ggufsteer.tasks.effect import Damage
    from ggufsteer.tasks.evaluate_result import (
        Control,
        Dose,
        Evaluation,
        ItemGain,
        NamedVector,
        PromptControl,
        VectorEvaluation,
    )
    from ggufsteer.tasks.evidence import Evidence
    from ggufsteer.tasks.layer_search import Step
    from ggufsteer.tasks.lens import Lens
    from ggufsteer.tasks.pair_projection import PairProjection
    from ggufsteer.tasks.samples import Sample

FORMAT = 1
Document = dict[str, Any]
Kind = Literal["extraction", "evaluation", "calibration"]


def report_document(
    kind: Kind,
    recipe: Recipe,
    model: Model,
    vectors: Sequence[NamedVector],
    *,
    evaluation: Evaluation | None,
    evidence: Evidence,
    calibration: Calibration | None = None,
) -> Document:
    """Give all that is known of vectors, in plain values.

    Args:
        kind: What was done.
        recipe: The concept.
        model: What it was done on.
        vectors: They.
        evaluation: What they do; None where that could not be measured.
        evidence: What else is shown of them.
        calibration: How the only one came to its dose, where that was found just now.
    """
    identity = model.identity
    return {
        "format": FORMAT,
        "kind": kind,
        "title": recipe.name,
        "description": recipe.description,
        "model": {
            "name": identity.name,
            "architecture": identity.architecture,
            "n_layer": identity.n_layer,
            "n_embd": identity.n_embd,
            "content_hash": identity.content_hash,
            "path": str(model.path),
        },
        "recipe": {"name": recipe.name, "hash": recipe.content_hash, "text": recipe.text},
        "versions": versions(),
        "settings": {name: str(getattr(model.options, name)) for name in SETTINGS},
        "seed": evaluation.seed if evaluation else recipe.seed,
        **(_measured(evaluation) if evaluation else {}),
        "vectors": [
            {
                **_vector(named, place, evidence),
                **(_effects(evaluation.vectors[place], evaluation) if evaluation else {}),
                "calibration": _calibration(named, evaluation.vectors[place] if evaluation else None, calibration),
            }
            for place, named in enumerate(vectors)
        ],
        "warnings": [*(evaluation.warnings if evaluation else ()), *evidence.warnings],
    }


def _measured(evaluation: Evaluation) -> Document:
    """Say what all vectors were measured on."""
    items = evaluation.items
    return {
        "measured_on": f"{len(items)} items ({items.source}), {evaluation.n_neutral_tokens} tokens of neutral text",
        "budget": evaluation.budget,
        "items": {
            "source": items.source,
            "count": len(items),
            "distinct_tokens": evaluation.n_distinct,
            "evaluations": evaluation.n_evaluations,
            "tokens_in_all": evaluation.n_tokens,
            "neutral_tokens": evaluation.n_neutral_tokens,
        },
        "system_prompt": _prompt(evaluation.prompt),
    }


def _prompt(prompt: PromptControl | None) -> Document | None:
    if prompt is None:
        return None
    return {
        "text": prompt.text,
        "effect": prompt.effect,
        "interval": list(prompt.interval),
        "neutral": _damage(prompt.damage) if prompt.damage else None,
    }


def _vector(named: NamedVector, place: int, evidence: Evidence) -> Document:
    """Give what is known of a vector before it is measured."""
    provenance = named.vector.provenance
    return {
        "name": named.name,
        "path": named.path,
        "method": provenance.method,
        "position": provenance.position,
        "layers": list(named.vector.layers),
        "recommended": provenance.strength_recommended,
        "maximum": provenance.strength_maximum,
        "layer_figures": _layer_figures(named.vector, evidence),
        "projection": _projection(evidence.projections.get(place)),
        "lens": _lens(evidence.lenses.get(place)),
    }


def _effects(vector: VectorEvaluation, evaluation: Evaluation) -> Document:
    """Give what a vector does."""
    at = vector.at_budget
    return {
        "verdict": vector.verdict,
        "slope": vector.slope,
        "monotonicity": vector.monotonicity,
        "wrong_way": vector.wrong_way,
        "at_budget": {"strength": at.strength, "effect": at.effect, "interval": list(at.interval)},
        "doses": [_dose(dose, _sample_at(vector, dose.strength)) for dose in vector.doses],
        "controls": [_control(control) for control in vector.controls],
        "pairs": {"best": [_pair(one) for one in vector.best], "worst": [_pair(one) for one in vector.worst]},
        "samples": _samples(vector, evaluation.questions),
    }


def _layer_figures(vector: ControlVector, evidence: Evidence) -> list[Document]:
    """Give the layers of the model, or where they were not judged again, what the vector says of its own."""
    if evidence.layers:
        return [
            {
                "layer": one.layer,
                "size": vector.length(one.layer) if one.layer in vector.directions else 0.0,
                "state_norm": one.state_norm,
                "auc": one.auc,
                # One state a side has no spread, and JSON knows no infinity.
                "d_prime": one.d_prime if one.d_prime is not None and math.isfinite(one.d_prime) else None,
            }
            for one in evidence.layers
        ]
    provenance = vector.provenance
    return [
        {
            "layer": layer,
            "size": vector.length(layer),
            "state_norm": provenance.state_norms.get(layer),
            "auc": provenance.separation.get(layer),
            "d_prime": None,
        }
        for layer in vector.layers
    ]


def _projection(projection: PairProjection | None) -> Document | None:
    if projection is None:
        return None
    return {"layer": projection.layer, "points": [dataclasses.asdict(one) for one in projection.points]}


def _sample_at(vector: VectorEvaluation, strength: float) -> Sample | None:
    return next((sample for sample in vector.samples if sample.strength == strength), None)


def _dose(dose: Dose, sample: Sample | None) -> Document:
    return {
        "strength": dose.strength,
        "effect": dose.effect,
        "interval": list(dose.interval),
        "wrong_way": dose.wrong_way,
        "neutral": _damage(dose.neutral),
        "own": _damage(dose.own) if dose.own else None,
        "marks": sample.marks if sample else None,
        "opposite_marks": sample.opposite_marks if sample else None,
        "fluency": {
            "distinct_2": sample.fluency.distinct_2,
            "longest_repeat": sample.fluency.longest_repeat,
            "compression": sample.fluency.compression,
            "surprise": sample.fluency.surprise,
            "ended": sample.fluency.ended,
            "fluent": sample.fluency.fluent,
        }
        if sample
        else None,
    }


def _damage(damage: Damage) -> Document:
    return {"mean": damage.mean, "p95": damage.p95, "perplexity_ratio": damage.perplexity_ratio}


def _control(control: Control) -> Document:
    return {
        "kind": control.kind,
        "name": control.name,
        "effect": control.effect,
        "interval": list(control.interval),
        "neutral": _damage(control.neutral) if control.neutral else None,
    }


def _pair(one: ItemGain) -> Document:
    return {"text": one.question, "positive": one.positive, "negative": one.negative, "score": one.gain}


def _samples(vector: VectorEvaluation, questions: tuple[str, ...]) -> list[Document] | None:
    if not vector.samples:
        return None
    return [
        {
            "question": question,
            "answers": [
                {
                    "strength": sample.strength,
                    "text": sample.answers[number].text,
                    "ended": sample.answers[number].ended,
                }
                for sample in vector.samples
            ],
        }
        for number, question in enumerate(questions)
    ]


def _lens(lens: Lens | None) -> list[Document] | None:
    if lens is None:
        return None
    return [
        {
            "layer": one.layer,
            "promoted": [token.shown for token in one.promotes],
            "suppressed": [token.shown for token in one.suppresses],
            "chance": one.chance,
        }
        for one in lens.layers
    ]


def _calibration(
    named: NamedVector, vector: VectorEvaluation | None, calibration: Calibration | None
) -> Document | None:
    """Say what was tried; of an earlier calibration what the file says, with the damage on the texts of today."""
    if calibration is not None:
        return {
            "budget": calibration.budget,
            "p95": calibration.p95,
            "check_p95": calibration.check_p95,
            "maximum": calibration.maximum,
            "fluent": calibration.fluent,
            "steps": [_step(step) for step in calibration.steps],
            "evaluations": calibration.n_evaluations + calibration.n_search_evaluations,
            "tokens": calibration.n_tokens,
        }
    provenance = named.vector.provenance
    if provenance.damage_budget is None:
        return None
    now = [dose.neutral.p95 for dose in vector.doses if dose.strength == 1.0] if vector else []
    return {
        "budget": provenance.damage_budget,
        "p95": provenance.damage,
        "check_p95": now[0] if now else None,
        "steps": [],
        "evaluations": None,
    }


def _step(step: Step) -> Document:
    return {
        "what": step.what,
        "layers": list(step.layers),
        "strength": step.strength,
        "effect": step.effect,
        "p95": step.damage,
        "chosen": step.chosen,
    }
