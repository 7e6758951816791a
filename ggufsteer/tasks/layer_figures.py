"""How well each layer of a model tells the sides of a recipe apart, whether a vector steers it or not.

The figures are those of an extraction, computed again by the same code for all layers. It decides no layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ggufsteer.tasks.findings import findings_of_states
from ggufsteer.tasks.neutral import neutral_text
from ggufsteer.tasks.progress import ReportProgress, ignore
from ggufsteer.tasks.states import states_in_memory
from ggufsteer.tasks.streamed_mean import mean_findings

if TYPE_CHECKING:
    from ggufsteer.engine.model import Model
    from ggufsteer.files.recipe import Recipe
    from ggufsteer.tasks.observations import Observations


@dataclass(frozen=True)
class LayerFigure:
    """What is known of one layer."""

    layer: int
    state_norm: float
    """Median length of the states of the pairs."""
    auc: float | None
    """How often a held-out positive state lies further along the recipe's direction than a negative one; None where no
    pair is held out."""
    d_prime: float | None
    """Distance of the sides in units of their spread, on the same pairs; infinite where they have none."""


def layer_figures(
    recipe: Recipe, model: Model, observations: Observations, *, report: ReportProgress = ignore
) -> tuple[LayerFigure, ...]:
    """Compute the recipe's direction at every layer that can be steered, and judge it on the held-out pairs.

    Args:
        recipe: Its method is used.
        model: The model; it must not be steered at the moment.
        observations: The recipe's pairs.
        report: Told after every decode.

    Raises:
        SteerError: The states are not finite, or too many for this machine.
        EngineError: The model failed.
    """
    layers = range(1, model.n_layer)
    if recipe.method == "mean":
        found = mean_findings(model, observations, layers, report=report)
    else:
        states = states_in_memory(model, observations, neutral_text(recipe, model), layers, report=report)
        found = findings_of_states(recipe.method, recipe.seed, states)
    judged = found.judged
    return tuple(
        LayerFigure(
            layer=layer,
            state_norm=float(found.state_norms[place]),
            auc=float(judged.auc[place]) if judged else None,
            d_prime=float(judged.d_prime[place]) if judged else None,
        )
        for place, layer in enumerate(layers)
    )
