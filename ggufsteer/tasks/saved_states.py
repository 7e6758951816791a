"""States on disk with all that a vector needs to be made from them: saved while a model runs, read back without one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ggufsteer.errors import FileFormatError, SteerError
from ggufsteer.files.activations import Activations, ActivationsWriter, Layout
from ggufsteer.files.recipe import Recipe, parse_recipe
from ggufsteer.tasks.observations import NEUTRAL, SETS, Observations
from ggufsteer.tasks.origin import Origin
from ggufsteer.tasks.progress import ReportProgress, ignore
from ggufsteer.tasks.states import NeutralText, counts_of, read_states, states_in_memory

if TYPE_CHECKING:
    from ggufsteer.engine.model import Model

RECIPE_KEY = "ggufsteer.recipe"
ORIGIN_KEY = "ggufsteer.origin"

Rows = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class SavedStates:
    """What `save_states` has written."""

    recipe: Recipe
    origin: Origin
    layers: tuple[int, ...]
    states: Mapping[str, Rows]
    """For each set (observations, layers, n_embd), read from the disk as it is used."""


MEMORY_BYTES = 512 << 20
"""States up to this size are kept in memory, more of them on disk: those of a wide model are gigabytes."""


def states_within_bounds(
    keep: Path | None,
    folder: Path,
    recipe: Recipe,
    model: Model,
    origin: Origin,
    observations: Observations,
    neutral: NeutralText | None,
    layers: Sequence[int],
    *,
    report: ReportProgress = ignore,
) -> Mapping[str, Rows]:
    """Read states into the file that is to be kept, else into memory, or into a folder where they are many.

    Args:
        keep: The file; None for none.
        folder: Where a file may lie that nobody keeps.
        recipe: See `save_states`, like all that follow.
    """
    n_observations = sum(counts_of(observations, neutral).values())
    if keep is None and n_observations * len(layers) * model.n_embd * 4 <= MEMORY_BYTES:
        return states_in_memory(model, observations, neutral, layers, report=report)
    path = keep or folder / "states"
    return save_states(path, recipe, model, origin, observations, neutral, layers, report=report)


def save_states(
    path: Path,
    recipe: Recipe,
    model: Model,
    origin: Origin,
    observations: Observations,
    neutral: NeutralText | None,
    layers: Sequence[int],
    *,
    report: ReportProgress = ignore,
) -> Mapping[str, Rows]:
    """Read states into a file, going on where an interrupted run of the same extraction stopped.

    Args:
        path: The file; until it is complete it is called `PATH.partial`.
        recipe: What is contrasted.
        model: The model.
        origin: Where the states come from.
        observations: What to read.
        neutral: What to read besides.
        layers: Ascending layer numbers.
        report: Told after every decode.

    Returns:
        For each set the states (observations, layers, n_embd), as they lie in the file.

    Raises:
        SteerError: The disk is full, or `PATH.partial` belongs to another extraction.
    """
    layout = Layout(
        counts=counts_of(observations, neutral),
        layers=tuple(layers),
        n_embd=model.n_embd,
        metadata={RECIPE_KEY: recipe.text, ORIGIN_KEY: origin.as_text()},
    )
    with ActivationsWriter.open(path, layout) as writer:
        read_states(
            model,
            observations,
            neutral,
            layers,
            writer.write,
            steps_done=writer.steps_done,
            checkpoint=writer.checkpoint,
            report=report,
        )
        writer.finish()
    return _sets(Activations.open(path))


def open_saved(path: Path) -> SavedStates:
    """Open a file of states.

    Raises:
        FileFormatError: It is missing, damaged, unfinished, or was not written by `save_states`.
    """
    file = Activations.open(path)
    mend = "give a file that `ggufsteer extract --save-activations` has written"
    missing = [key for key in (RECIPE_KEY, ORIGIN_KEY) if key not in file.layout.metadata]
    missing += [name for name in (*SETS, NEUTRAL) if name not in file.layout.counts]
    if missing:
        raise FileFormatError(f"{path}: holds states, but not its {missing[0]!r}", mend)
    try:
        origin = Origin.from_text(file.layout.metadata[ORIGIN_KEY])
        recipe = parse_recipe(file.layout.metadata[RECIPE_KEY], f"the recipe in {path}")
    except SteerError as problem:
        raise FileFormatError(f"{path}: {problem.message}", mend) from problem
    if file.layout.n_embd != origin.model.n_embd or file.layout.layers[-1] >= origin.model.n_layer:
        raise FileFormatError(f"{path}: its states do not have the shape of its model {origin.model.label}", mend)
    return SavedStates(recipe, origin, file.layout.layers, _sets(file))


def _sets(file: Activations) -> dict[str, Rows]:
    return {name: file.rows(name) for name in file.layout.counts}
