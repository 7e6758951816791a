"""From a recipe and a model to a control vector, with a report on every layer.

The vector is computed from the training pairs and judged on the held-out ones. The same recipe, model file and version
give the same bytes. It prints nothing and writes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ggufsteer.errors import RecipeError, SteerError
from ggufsteer.files.control_vector import ControlVector, Provenance
from ggufsteer.maths.directions import METHODS, block_deltas, compute
from ggufsteer.maths.statistics import Separation, separation, state_norms
from ggufsteer.tasks.contrast import Contrast, build_contrast
from ggufsteer.tasks.layers import chosen_layers
from ggufsteer.tasks.neutral import neutral_rows
from ggufsteer.tasks.progress import Progress, ReportProgress, ignore
from ggufsteer.tasks.states import read_states
from ggufsteer.tasks.versions import versions

if TYPE_CHECKING:
    from ggufsteer.engine.model import Model
    from ggufsteer.files.recipe import Recipe

SETTINGS = ("n_ctx", "n_batch", "n_ubatch", "n_gpu_layers", "flash_attention")
"""How a model is loaded changes its numbers in the last digits, and with them now and then a word of its answers.

The number of threads is not among them: each number is computed by one thread alone.
"""

Rows = NDArray[np.float32]

CHANCE = 0.6
"""A vector whose best held-out AUC is below this tells the sides hardly better apart than a coin (0.5)."""


@dataclass(frozen=True)
class LayerReport:
    """What is known of one layer of a vector."""

    layer: int
    size: float
    """Length of what strength 1.0 adds at this layer."""
    state_norm: float
    """Median length of the model's own states there."""
    auc: float | None
    """How often a held-out positive state lies further along the direction than a negative one; None: none held out."""
    d_prime: float | None
    """Distance of the sides in units of their spread, on the same pairs."""

    @property
    def relative_size(self) -> float:
        """The size as a part of the states' length; infinite where they have none."""
        return self.size / self.state_norm if self.state_norm else float("inf")


@dataclass(frozen=True)
class Extraction:
    """A vector and how it came about."""

    vector: ControlVector
    layers: tuple[LayerReport, ...]
    n_pairs: int
    n_held_out: int
    n_tokens: int
    """Tokens of all different texts that were read."""
    warnings: tuple[str, ...]


def extract(recipe: Recipe, model: Model, *, report: ReportProgress = ignore) -> Extraction:
    """Compute the control vector of a recipe for a model.

    Each layer's direction has natural size (1.0 = the distance between the two sides along it); with `deltas` a layer
    gets only what it adds to the one before it, so that several layers do not count the same difference several times;
    then everything is multiplied by the recipe's dose. `+` points to the positive side.

    Args:
        recipe: What to contrast, and how.
        model: The model; it must not be steered at the moment.
        report: Called with the progress of each stage.

    Raises:
        RecipeError: The recipe does not fit the model, or its method does not fit its position.
        SteerError: The two sides have no difference, or the model's states are not finite.
    """
    layers = chosen_layers(recipe.layers, model.n_layer)
    _refuse_unpaired(recipe)
    contrast = build_contrast(recipe, model, report=report)
    positive, negative, held_out = read_states(model, contrast, layers, report=report)
    directions = compute(
        recipe.method,
        positive[~held_out[0]],
        negative[~held_out[1]],
        neutral=neutral_rows(recipe, model, layers, report=report),
        seed=recipe.seed,
    )
    _refuse_degenerate(recipe, layers, directions)
    report(Progress("identifying the model file", 0, 1, "files"))
    judged = _judged(directions, positive[held_out[0]], negative[held_out[1]])
    written = np.float32(recipe.dose) * (block_deltas(directions) if recipe.deltas else directions)
    reports = _layer_reports(layers, written, state_norms(np.concatenate([positive, negative])), judged)
    return Extraction(
        vector=ControlVector(
            directions={layer: written[index] for index, layer in enumerate(layers)},
            provenance=_provenance(recipe, model, layers, reports, contrast),
        ),
        layers=reports,
        n_pairs=contrast.n_pairs,
        n_held_out=sum(contrast.held_out),
        n_tokens=contrast.n_tokens,
        warnings=tuple(filter(None, (model.reader_note, *contrast.warnings, *_warnings(reports)))),
    )


def _refuse_unpaired(recipe: Recipe) -> None:
    if recipe.position == "all" and METHODS[recipe.method].needs_pairs:
        unpaired = ", ".join(name for name, method in METHODS.items() if not method.needs_pairs)
        raise RecipeError(
            f"recipe '{recipe.name}': method: {recipe.method!r} compares pairs of states, but position = \"all\" reads "
            "every token, and the two sides have different numbers of them",
            f'use another position, such as "last", or one of the methods {unpaired}',
        )


def _refuse_degenerate(recipe: Recipe, layers: Sequence[int], directions: Rows) -> None:
    for layer, direction in zip(layers, directions, strict=True):
        length = float(np.linalg.norm(direction.astype(np.float64)))
        if not np.isfinite(length) or length == 0.0:
            seen = "has no length" if length == 0.0 else "is not finite"
            raise SteerError(
                f"recipe '{recipe.name}': the direction of layer {layer} {seen}",
                "check with `ggufsteer recipe show` that the two sides differ at the token that is read",
            )


def _judged(directions: Rows, positive: Rows, negative: Rows) -> Separation | None:
    return separation(directions, positive, negative) if len(positive) and len(negative) else None


def _layer_reports(
    layers: Sequence[int], written: Rows, norms: NDArray[np.float64], judged: Separation | None
) -> tuple[LayerReport, ...]:
    sizes = np.linalg.norm(written.astype(np.float64), axis=1)
    return tuple(
        LayerReport(
            layer=layer,
            size=float(sizes[index]),
            state_norm=float(norms[index]),
            auc=float(judged.auc[index]) if judged else None,
            d_prime=float(judged.d_prime[index]) if judged else None,
        )
        for index, layer in enumerate(layers)
    )


def _warnings(reports: Sequence[LayerReport]) -> tuple[str, ...]:
    judged = [(report.auc, report.layer) for report in reports if report.auc is not None]
    if judged and max(judged)[0] < CHANCE:
        auc, layer = max(judged)
        seen = (
            f"on held-out pairs it tells the sides apart hardly better than chance (best AUC {auc:.2f}, layer {layer})"
        )
        return (f"{seen}: the vector may not steer; try other prompts, more of them, or another position",)
    return ()


def _provenance(
    recipe: Recipe, model: Model, layers: tuple[int, ...], reports: Sequence[LayerReport], contrast: Contrast
) -> Provenance:
    held_out = sum(contrast.held_out)
    return Provenance(
        name=recipe.name,
        description=recipe.description,
        recipe_text=recipe.text,
        recipe_hash=recipe.content_hash,
        model=model.identity,
        method=recipe.method,
        position=str(recipe.position),
        layers=layers,
        separation={report.layer: report.auc for report in reports if report.auc is not None},
        state_norms={report.layer: report.state_norm for report in reports},
        dose=recipe.dose,
        measured_on=f"{held_out} held-out of {contrast.n_pairs} pairs" if held_out else "",
        versions=versions(),
        settings={name: str(getattr(model.options, name)) for name in SETTINGS},
        seed=recipe.seed,
    )
