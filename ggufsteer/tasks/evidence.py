"""What a report shows of vectors besides what they do: layers, the states of the pairs, words.

None of it decides anything about a vector, so where a part cannot be had, that is said, and the others are still there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from ggufsteer.errors import EngineError, SteerError
from ggufsteer.tasks.contrast import build_contrast
from ggufsteer.tasks.layer_figures import LayerFigure, layer_figures
from ggufsteer.tasks.lens import lens
from ggufsteer.tasks.observations import Observations
from ggufsteer.tasks.pair_projection import PairProjection, pair_projection
from ggufsteer.tasks.progress import ReportProgress, ignore

if TYPE_CHECKING:
    from ggufsteer.engine.model import Model
    from ggufsteer.files.recipe import Recipe
    from ggufsteer.tasks.evaluate_result import NamedVector
    from ggufsteer.tasks.lens import Lens

LENS_TOKENS = 8
Found = TypeVar("Found")


@dataclass(frozen=True)
class Evidence:
    """What was found; vectors are known by their place."""

    layers: tuple[LayerFigure, ...] = ()
    """Of all layers that can be steered; empty where the recipe's pairs could not be read."""
    projections: Mapping[int, PairProjection] = field(default_factory=dict)
    lenses: Mapping[int, Lens] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def evidence(
    recipe: Recipe,
    model: Model,
    vectors: Sequence[NamedVector],
    *,
    force: bool = False,
    report: ReportProgress = ignore,
) -> Evidence:
    """Read the states of a recipe's pairs again, and what the vectors say in the model's own words.

    Args:
        recipe: Whose pairs.
        model: The model; it must not be steered at the moment.
        vectors: They must fit the model.
        force: Whether vectors of another file of the same shape are read, too.
        report: Told what is done.

    Raises:
        EngineError: The model failed.
    """
    warnings: list[str] = []

    def tried(what: str, work: Callable[[], Found]) -> Found | None:
        try:
            return work()
        except EngineError:
            raise
        except SteerError as problem:
            warnings.append(f"{what}: {problem.message}")
            return None

    pairs = tried("the pairs cannot be shown", lambda: Observations.of(build_contrast(recipe, model, report=report)))
    layers: tuple[LayerFigure, ...] = ()
    projections, lenses = {}, {}
    if pairs is not None:
        layers = tried("layers cannot be judged", lambda: layer_figures(recipe, model, pairs, report=report)) or ()
    for place, one in enumerate(vectors):
        if pairs is not None:
            seen = tried(
                f"{one.name}: its pairs cannot be shown",
                lambda: pair_projection(one.vector, model, pairs, report=report),  # noqa: B023  # called at once
            )
            if seen is not None:
                projections[place] = seen
        read = tried(
            f"{one.name}: its words cannot be read",
            lambda: lens(model, one.vector, k=LENS_TOKENS, force=force, report=report),  # noqa: B023
        )
        if read is not None:
            lenses[place] = read
    return Evidence(layers, projections, lenses, tuple(warnings))
