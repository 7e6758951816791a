"""A finished vector, of whatever origin, brought to the right dose on a model."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from ggufsteer.files.control_vector import ControlVector
from ggufsteer.tasks.calibrate import BUDGET, SEARCH_ITEMS, Calibration, calibrate
from ggufsteer.tasks.components import components_of_vector
from ggufsteer.tasks.items import asking_prompt, training_items
from ggufsteer.tasks.layer_search import candidates_of_vector
from ggufsteer.tasks.progress import ReportProgress, ignore

if TYPE_CHECKING:
    from ggufsteer.engine.model import Model
    from ggufsteer.files.recipe import Recipe


def calibrate_vector(
    vector: ControlVector,
    recipe: Recipe,
    model: Model,
    *,
    budget: float = BUDGET,
    keep_layers: bool = False,
    report: ReportProgress = ignore,
) -> tuple[ControlVector, Calibration]:
    """Choose among a vector's layers, and find its strength; see `ggufsteer.tasks.calibrate`.

    Args:
        vector: What to calibrate; it must fit the model.
        recipe: Whose training pairs show the concept.
        model: The model; it must not be steered at the moment.
        budget: The 95th percentile of the divergence on neutral text, in nats.
        keep_layers: Whether all its layers stay, as they are beside each other.
        report: Told what is done.

    Returns:
        The vector with strength 1.0 at the right dose, and how it was found.

    Raises:
        RecipeError: The recipe has no pairs that can be scored.
        SteerError: The vector moves nothing.
    """
    rows = dict(vector.directions)
    provenance = vector.provenance
    as_it_is = keep_layers or len(rows) == 1
    new_rows, calibration = calibrate(
        model,
        [("whole", rows)] if as_it_is else candidates_of_vector(rows),
        provenance.state_norms,
        training_items(recipe, model, SEARCH_ITEMS, report=report),
        components=() if as_it_is else components_of_vector(rows),
        system=asking_prompt(recipe),
        budget=budget,
        seed=recipe.seed,
        report=report,
    )
    kept = vector.limited_to(new_rows)
    deepest = max(new_rows)
    before, after = vector.length(deepest), float((new_rows[deepest].astype(float) ** 2).sum() ** 0.5)
    return (
        dataclasses.replace(
            kept,
            directions=new_rows,
            provenance=dataclasses.replace(
                kept.provenance,
                dose=provenance.dose * after / before if before else provenance.dose,
                strength_recommended=1.0,
                strength_maximum=calibration.maximum or None,
                damage_budget=calibration.budget,
                damage=calibration.p95,
            ),
        ),
        calibration,
    )
