"""Everything that a report says of vectors, as one document: what they do, and what else there is to see of them.

It decides what happens where there is nothing to measure on: an evaluation is then an error, and the report of a vector
that was just made shows the rest, and says what is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ggufsteer.errors import EngineError, SteerError
from ggufsteer.tasks.calibrate import BUDGET
from ggufsteer.tasks.evaluate import evaluate
from ggufsteer.tasks.evaluation_document import Document, Kind, report_document
from ggufsteer.tasks.evidence import Evidence, evidence
from ggufsteer.tasks.progress import ReportProgress, ignore

if TYPE_CHECKING:
    from ggufsteer.engine.model import Model
    from ggufsteer.files.recipe import Recipe
    from ggufsteer.tasks.calibrate import Calibration
    from ggufsteer.tasks.evaluate_result import Evaluation, NamedVector


def examine(
    kind: Kind,
    recipe: Recipe,
    model: Model,
    vectors: Sequence[NamedVector],
    *,
    others: Sequence[NamedVector] = (),
    budget: float = BUDGET,
    seed: int = 0,
    with_samples: bool = True,
    with_evidence: bool = True,
    calibration: Calibration | None = None,
    force: bool = False,
    report: ReportProgress = ignore,
) -> Document:
    """Measure vectors, and gather what else is shown of them.

    Args:
        kind: What was asked for; see above.
        recipe: The concept.
        model: The model; it must not be steered at the moment.
        vectors: What is examined; they must fit the model.
        others: See `ggufsteer.tasks.evaluate.evaluate`, as for the three after it.
        budget: Damage at which effects are compared.
        seed: Of every random choice.
        with_samples: Whether the model answers, too.
        with_evidence: Whether the parts are wanted that only the page shows.
        calibration: How the vector came to its dose just now.
        force: Whether vectors of another file of the same shape are read, too.
        report: Told what is done.

    Raises:
        SteerError: An evaluation has nothing to measure on.
        EngineError: The model failed.
    """
    evaluation: Evaluation | None = None
    missing: tuple[str, ...] = ()
    try:
        evaluation = evaluate(
            recipe, model, vectors, others=others, budget=budget, seed=seed, with_samples=with_samples, report=report
        )
    except EngineError:
        raise
    except SteerError as problem:
        if kind == "evaluation":
            raise
        missing = (f"what the vector does was not measured: {problem}",)
    found = evidence(recipe, model, vectors, force=force, report=report) if with_evidence else Evidence()
    document = report_document(
        kind, recipe, model, vectors, evaluation=evaluation, evidence=found, calibration=calibration
    )
    document["warnings"] = [*missing, *document["warnings"]]
    return document
