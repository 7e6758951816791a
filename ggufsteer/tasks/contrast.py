"""From a recipe and a model to a contrast: which tokens are run, which of their states are read, which are held out.

It plans; it reads no state. The order of everything is fixed by the recipe and its seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ggufsteer.errors import RecipeError, SteerError
from ggufsteer.tasks import suffixes
from ggufsteer.tasks.own_answers import with_own_answers
from ggufsteer.tasks.passages import Encoded, Tokenizer, encode
from ggufsteer.tasks.positions import rows_to_read
from ggufsteer.tasks.progress import ReportProgress, ignore
from ggufsteer.tasks.shapes import PlannedPair, plan

if TYPE_CHECKING:
    from ggufsteer.engine.model import Model
    from ggufsteer.files.recipe import Recipe


@dataclass(frozen=True)
class Side:
    """One side of a pair as the model gets it."""

    text: str
    """What the tokens say, chat template included."""
    tokens: tuple[int, ...]
    rows: tuple[int, ...]
    """Indices of the tokens whose states are read."""


@dataclass(frozen=True)
class Contrast:
    """Pairs of token sequences, side by side: `positive[i]` and `negative[i]` differ in the concept only."""

    positive: tuple[Side, ...]
    negative: tuple[Side, ...]
    held_out: tuple[bool, ...]
    """For each pair whether it is kept from the computation, to judge its result."""
    pooled: bool
    """Whether a side counts as one observation, the mean over its rows; else each row is one."""
    warnings: tuple[str, ...] = ()

    @property
    def n_pairs(self) -> int:
        """Number of pairs of sequences."""
        return len(self.positive)

    @property
    def sides(self) -> tuple[tuple[Side, Side], ...]:
        """The pairs, each as (positive, negative)."""
        return tuple(zip(self.positive, self.negative, strict=True))

    @property
    def n_tokens(self) -> int:
        """Tokens of all different sequences: what has to be computed."""
        return sum(map(len, {side.tokens for side in (*self.positive, *self.negative)}))


def build_contrast(recipe: Recipe, model: Model, *, report: ReportProgress = ignore) -> Contrast:
    """Turn a recipe into a contrast for one model; lets the model answer where the recipe asks for its own answers.

    Args:
        recipe: What to contrast, where to read, how much to hold out.
        model: Whose tokens and chat template are used.
        report: Told about the answers.

    Raises:
        RecipeError: No pair differs, or one has no token at the recipe's position.
        SteerError: The model has no chat template, or gives no answers.
    """
    planned = plan(recipe)
    pairs, dropped = with_own_answers(
        planned, model, max_tokens=getattr(recipe.contrast, "max_tokens", 0), report=report
    )
    contrast = assemble(recipe, model, pairs)
    if all(positive.tokens == negative.tokens for positive, negative in contrast.sides):
        raise RecipeError(
            f"recipe '{recipe.name}': both sides are the same in every pair ({contrast.n_pairs}), so they have no "
            "difference",
            "let the sides differ in the concept; for answers of the model choose personas that change what it says",
        )
    found = []
    if dropped:
        found.append(f"{dropped} of {len(planned)} pairs were left out because an answer was empty")
    if recipe.holdout > 0 and not any(contrast.held_out):
        found.append("too few different prompts to hold any out: how well the vector separates was not measured")
    return replace(contrast, warnings=(*found, *contrast.warnings))


def assemble(recipe: Recipe, model: Tokenizer, pairs: Sequence[PlannedPair]) -> Contrast:
    """Turn planned pairs, answers included, into a contrast.

    Args:
        recipe: Where to read.
        model: Whose tokens are used.
        pairs: What to read.

    Raises:
        RecipeError: A pair has no token at the recipe's position.
    """
    in_one_pass = recipe.position == "last" and all(
        suffixes.readable_in_one_pass(passage) for pair in pairs for passage in (pair.positive, pair.negative)
    )
    sides: list[tuple[Side, Side]] = []
    flags: list[bool] = []
    for number, pair in enumerate(pairs, start=1):
        try:
            read = _cut_pair(model, pair) if in_one_pass else _read_pair(recipe, model, pair)
        except SteerError as problem:
            raise RecipeError(f"recipe '{recipe.name}': pair {number}: {problem.message}", problem.hint) from problem
        sides += read
        flags += [pair.held_out] * len(read)
    if any(pair.positive.suffix is not None for pair in pairs):
        sides, flags = _without_known_beginnings(sides, flags, each_row=in_one_pass)
    same = sum(positive.tokens == negative.tokens for positive, negative in sides)
    return Contrast(
        positive=tuple(positive for positive, _ in sides),
        negative=tuple(negative for _, negative in sides),
        held_out=tuple(flags),
        pooled=not (in_one_pass or recipe.position == "all"),
        warnings=(f"{same} of {len(sides)} pairs are the same on both sides: they only make the vector shorter",)
        if same
        else (),
    )


def _cut_pair(model: Tokenizer, pair: PlannedPair) -> list[tuple[Side, Side]]:
    positive, negative = (suffixes.with_suffix(model, passage) for passage in (pair.positive, pair.negative))
    rows = suffixes.rows_of_suffix(positive, negative)
    return [(_side(positive, rows[0]), _side(negative, rows[1]))]


def _read_pair(recipe: Recipe, model: Tokenizer, pair: PlannedPair) -> list[tuple[Side, Side]]:
    if pair.positive.suffix is None:
        passages = [(pair.positive, pair.negative)]
    else:
        passages = list(zip(suffixes.cuts(model, pair.positive), suffixes.cuts(model, pair.negative), strict=True))
    result = []
    for both in passages:
        positive, negative = (encode(model, passage) for passage in both)
        result.append(
            (
                _side(positive, rows_to_read(recipe.position, positive)),
                _side(negative, rows_to_read(recipe.position, negative)),
            )
        )
    return result


def _without_known_beginnings(
    sides: Sequence[tuple[Side, Side]], flags: Sequence[bool], *, each_row: bool
) -> tuple[list[tuple[Side, Side]], list[bool]]:
    """Leave out of the held-out pairs every text that also begins a training text.

    Two suffixes that begin with the same word have the same cut after it, and a vector must not be judged on what it
    was made from. Where each row of a pair is a cut of its own, the others of the pair stay.
    """
    training = [pair for pair, held_out in zip(sides, flags, strict=True) if not held_out]
    known = {
        side.tokens[: row + 1]
        for pair in training
        for side in pair
        for row in (side.rows if each_row else side.rows[-1:])
    }
    kept: list[tuple[Side, Side]] = []
    kept_flags: list[bool] = []
    for (positive, negative), held_out in zip(sides, flags, strict=True):
        ours, theirs = positive.rows, negative.rows
        if held_out:
            ends = zip(ours, theirs, strict=True) if each_row else [(ours[-1], theirs[-1])]
            unknown = [
                end for end in ends if known.isdisjoint((positive.tokens[: end[0] + 1], negative.tokens[: end[1] + 1]))
            ]
            if not unknown:
                continue
            if each_row:
                ours, theirs = zip(*unknown, strict=True)
        kept.append((replace(positive, rows=ours), replace(negative, rows=theirs)))
        kept_flags.append(held_out)
    return kept, kept_flags


def _side(encoded: Encoded, rows: tuple[int, ...]) -> Side:
    return Side(encoded.text, encoded.tokens, rows)
