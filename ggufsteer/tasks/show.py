"""What a recipe comes down to on a model: its pairs as the model gets them, with token counts."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from ggufsteer.tasks.contrast import packed
from ggufsteer.tasks.own_answers import with_own_answers
from ggufsteer.tasks.progress import ReportProgress, ignore
from ggufsteer.tasks.shapes import PlannedPairs, plan
from ggufsteer.tasks.sides import Side, SidePair, Sides

if TYPE_CHECKING:
    from ggufsteer.engine.model import Model
    from ggufsteer.files.recipe import Recipe


@dataclass(frozen=True)
class ShownSide:
    """One side of a pair, for people."""

    text: str
    """What the model reads, chat template and answer included."""
    n_tokens: int
    n_rows: int
    """How many tokens' states are read."""
    last_read: str
    """The last of those tokens as text; empty for a special one."""
    asked_under: str | None = None
    """The system prompt under which the model made the answer; None where it made none."""


@dataclass(frozen=True)
class ShownPair:
    """One pair, for people."""

    positive: ShownSide
    negative: ShownSide
    held_out: bool


@dataclass(frozen=True)
class ShownRecipe:
    """A recipe's pairs, for people."""

    name: str
    pairs: tuple[ShownPair, ...]
    n_pairs: int
    """Of the whole recipe, shown or not."""
    n_tokens: int
    counted_all: bool
    """Whether `n_tokens` is of the whole recipe; else of the pairs shown, since the others have no answers yet."""
    warnings: tuple[str, ...]


def show(recipe: Recipe, model: Model, *, limit: int, report: ReportProgress = ignore) -> ShownRecipe:
    """Return the first pairs of a recipe as the model gets them.

    Args:
        recipe: The recipe.
        model: Whose tokens and chat template are used, and who answers where the recipe asks for its own answers.
        limit: How many pairs; 0 for all.
        report: Told about the answers.

    Raises:
        SteerError: As extraction would.
    """
    planned = plan(recipe)
    answered_by_model = next(iter(planned)).positive.asked_under is not None
    wanted: PlannedPairs = tuple(islice(planned, limit)) if limit and answered_by_model else planned
    pairs, _ = with_own_answers(wanted, model, max_tokens=getattr(recipe.contrast, "max_tokens", 0), report=report)
    sides = Sides(recipe, model, pairs)
    contrast = packed(sides, pooled=sides.pooled)
    everything = len(wanted) == len(planned)
    return ShownRecipe(
        name=recipe.name,
        pairs=tuple(_shown_pair(model, pair) for pair in islice(sides, limit or None)),
        n_pairs=contrast.n_pairs if everything else len(planned),
        n_tokens=contrast.n_tokens,
        counted_all=everything,
        warnings=contrast.warnings,
    )


def _shown_pair(model: Model, pair: SidePair) -> ShownPair:
    return ShownPair(
        positive=_shown(model, pair.positive, pair.planned.positive.asked_under),
        negative=_shown(model, pair.negative, pair.planned.negative.asked_under),
        held_out=pair.planned.held_out,
    )


def _shown(model: Model, side: Side, asked_under: str | None) -> ShownSide:
    return ShownSide(
        text=side.text,
        n_tokens=len(side.tokens),
        n_rows=len(side.rows),
        last_read=model.detokenize([side.tokens[side.rows[-1]]]),
        asked_under=asked_under,
    )
