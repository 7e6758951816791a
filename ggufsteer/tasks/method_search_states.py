"""What a search has to choose from: at each token position the directions of each method, made from states read once.

States of one position are in memory, or on disk where they are many; what stays of them are the directions. It decides
which positions a contrast has, and does not judge.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ggufsteer.errors import RecipeError, SteerError
from ggufsteer.maths.directions import block_deltas
from ggufsteer.tasks.contrast import Contrast, answered_pairs, contrast_of
from ggufsteer.tasks.findings import Findings, findings_of_states
from ggufsteer.tasks.kept_answers import KeptAnswers
from ggufsteer.tasks.method_search_choices import Choice, positions_to_try, tells_sides_apart
from ggufsteer.tasks.neutral import neutral_text, uses_neutral_text
from ggufsteer.tasks.observations import NEUTRAL, Observations
from ggufsteer.tasks.origin import Origin, origin_of
from ggufsteer.tasks.progress import ReportProgress, ignore
from ggufsteer.tasks.recipes import changed
from ggufsteer.tasks.saved_states import states_within_bounds

if TYPE_CHECKING:
    from ggufsteer.engine.model import Model
    from ggufsteer.files.recipe import Recipe

Rows = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Place:
    """What is known of a contrast at one token position."""

    origin: Origin
    findings: Mapping[str, Findings]
    """By method; those that find no direction there are missing."""


@dataclass(frozen=True, eq=False)
class Contrasts:
    """One contrast at several token positions."""

    recipe: Recipe
    model: Model
    layers: tuple[int, ...]
    """The layers that are read, ascending."""
    at: Mapping[str, Contrast]
    """By position, the recipe's own first."""
    save_to: Path | None
    """Where the states of the recipe's own position are to be kept, if they are."""

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        model: Model,
        layers: tuple[int, ...],
        fixed: Collection[str],
        *,
        save_to: Path | None = None,
        report: ReportProgress = ignore,
    ) -> Contrasts:
        """Find out at which positions the two sides can be told apart.

        Raises:
            RecipeError: They cannot be at the recipe's own position.
        """
        pairs, dropped = answered_pairs(recipe, model, keep_beside=save_to, report=report)
        own, *others = positions_to_try(recipe, fixed)
        at = {own: contrast_of(recipe, model, pairs, dropped)}
        for position in others:
            try:
                contrast = contrast_of(changed(recipe, {"position": position}), model, pairs, dropped)
            except RecipeError:
                continue  # this contrast has no such place
            if tells_sides_apart(contrast):
                at[position] = contrast
        return cls(recipe, model, layers, at, save_to)

    def read(self, choices: Iterable[Choice], folder: Path | None, report: ReportProgress = ignore) -> dict[str, Place]:
        """Read the states of every position that is chosen, one after the other, and make directions of them.

        Args:
            choices: What is to be tried; the recipe's own method and position are there in any case.
            folder: Where states may lie that are too many for the memory; None for the system's own place.
            report: Told after every decode.
        """
        own = str(self.recipe.position)
        methods: dict[str, dict[str, None]] = {own: {self.recipe.method: None}}
        for choice in choices:
            methods.setdefault(choice.position, {})[choice.method] = None
        return {position: self._place(position, list(chosen), folder, report) for position, chosen in methods.items()}

    def own_states(self, folder: Path, report: ReportProgress) -> Mapping[str, Rows]:
        """Read the states at the recipe's own position again, and those of neutral text; the folder has to last."""
        return self._states(str(self.recipe.position), True, None, folder, report)[1]

    def _place(self, position: str, methods: list[str], folder: Path | None, report: ReportProgress) -> Place:
        is_own = position == str(self.recipe.position)
        recipes = {method: changed(self.recipe, {"method": method, "position": position}) for method in methods}
        with_neutral = any(map(uses_neutral_text, recipes.values()))
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            keep = self.save_to if is_own else None
            origin, sets = self._states(position, with_neutral, keep, Path(temporary), report)
            findings: dict[str, Findings] = {}
            for method, recipe in recipes.items():
                used = {name: rows for name, rows in sets.items() if name != NEUTRAL or uses_neutral_text(recipe)}
                try:
                    found = findings_of_states(method, recipe.seed, used)
                except SteerError:
                    if is_own and method == self.recipe.method:
                        raise
                    continue  # it finds nothing here, or has too few texts
                first = next(iter(findings.values()), found)
                findings[method] = replace(found, state_norms=first.state_norms, means=first.means)
        return Place(origin, findings)

    def _states(
        self, position: str, with_neutral: bool, keep: Path | None, folder: Path, report: ReportProgress
    ) -> tuple[Origin, Mapping[str, Rows]]:
        """Read the states of one position: into the file that is to be kept, into memory, or into a folder."""
        contrast = self.at[position]
        observations = Observations.of(contrast)
        origin = origin_of(self.model, contrast, observations, self.layers)
        is_own = position == str(self.recipe.position)
        # Elsewhere a neutral text may be too short, which is no mistake of the recipe's: a "mean" leaves it out.
        reading = self.recipe if is_own else changed(self.recipe, {"position": position, "method": "mean"})
        wants_neutral = with_neutral or keep is not None
        neutral = neutral_text(reading, self.model, always=True) if wants_neutral else None
        sets = states_within_bounds(
            keep, folder, reading, self.model, origin, observations, neutral, self.layers, report=report
        )
        if keep is not None and self.recipe.contrast.kind == "responses":
            KeptAnswers.beside(keep).remove()
        return origin, sets


def rows_of_choice(choice: Choice, places: Mapping[str, Place], layers: tuple[int, ...]) -> dict[int, Rows] | None:
    """Give what a choice adds to each of its layers, of natural size; None where it has no direction there."""
    findings = places[choice.position].findings.get(choice.method)
    if findings is None:
        return None
    directions = findings.directions[[layers.index(layer) for layer in choice.layers]]
    if not np.isfinite(directions).all() or not all(map(np.any, directions)):
        return None
    return dict(zip(choice.layers, block_deltas(directions) if choice.deltas else directions, strict=True))
