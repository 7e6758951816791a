"""From a recipe and a model to a contrast: which tokens are run, which of their states are read, which are held out.

It plans; it reads no state. The order of everything is fixed by the recipe and its seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ggufsteer.errors import RecipeError, SteerError
from ggufsteer.tasks import suffixes
from ggufsteer.tasks.own_answers import with_own_answers
from ggufsteer.tasks.passages import Encoded, Tokenizer, encode
from ggufsteer.tasks.positions import rows_to_read
from ggufsteer.tasks.progress import ReportProgress, ignore
from ggufsteer.tasks.shapes import PlannedPair, plan
from ggufsteer.tasks.split import held_out

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
    paired: bool
    """Whether observation i of one side belongs to observation i of the other."""
    warnings: tuple[str, ...] = ()

    @property
    def n_pairs(self) -> int:
        """Number of pairs of sequences."""
        return len(self.positive)

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
        RecipeError: A pair is the same on both sides, has no token at the recipe's position, or is too long.
        SteerError: The model has no chat template, or gives no answers.
    """
    pairs, dropped = with_own_answers(
        plan(recipe), model, max_tokens=getattr(recipe.contrast, "max_tokens", 0), report=report
    )
    return assemble(recipe, model, pairs, dropped)


def assemble(recipe: Recipe, model: Tokenizer, pairs: Sequence[PlannedPair], dropped: int = 0) -> Contrast:
    """Turn planned pairs, answers included, into a contrast.

    Args:
        recipe: Where to read, how much to hold out.
        model: Whose tokens are used.
        pairs: What to read.
        dropped: How many pairs were lost before, for the warning.
    """
    in_one_pass = recipe.position == "last" and all(
        suffixes.readable_in_one_pass(passage) for pair in pairs for passage in (pair.positive, pair.negative)
    )
    sides: list[tuple[Side, Side]] = []
    keys: list[tuple[str, ...]] = []
    for number, pair in enumerate(pairs, start=1):
        try:
            read = _cut_pair(model, pair) if in_one_pass else _read_pair(recipe, model, pair)
        except SteerError as problem:
            raise RecipeError(f"recipe '{recipe.name}': pair {number}: {problem.message}", problem.hint) from problem
        sides += read
        keys += [pair.keys] * len(read)
    _refuse_identical(recipe, sides)
    flags = held_out(keys, recipe.holdout, recipe.seed)
    return Contrast(
        positive=tuple(positive for positive, _ in sides),
        negative=tuple(negative for _, negative in sides),
        held_out=flags,
        pooled=not (in_one_pass or recipe.position == "all"),
        paired=recipe.position != "all",
        warnings=_warnings(recipe, pairs, sides, flags, dropped),
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


def _side(encoded: Encoded, rows: tuple[int, ...]) -> Side:
    return Side(encoded.text, encoded.tokens, rows)


def _refuse_identical(recipe: Recipe, sides: Sequence[tuple[Side, Side]]) -> None:
    if all(positive.tokens == negative.tokens for positive, negative in sides):
        raise RecipeError(
            f"recipe '{recipe.name}': both sides are the same in every pair ({len(sides)}), so they have no difference",
            "let the sides differ in the concept; for answers of the model choose personas that change what it says",
        )


def _warnings(
    recipe: Recipe,
    pairs: Sequence[PlannedPair],
    sides: Sequence[tuple[Side, Side]],
    flags: Sequence[bool],
    dropped: int,
) -> tuple[str, ...]:
    found = []
    if dropped:
        found.append(f"{dropped} of {dropped + len(pairs)} pairs were left out because an answer was empty")
    same = sum(positive.tokens == negative.tokens for positive, negative in sides)
    if same:
        found.append(f"{same} of {len(sides)} pairs are the same on both sides and add nothing")
    if recipe.holdout > 0 and not any(flags):
        found.append("too few different prompts to hold any out: how well the vector separates was not measured")
    return tuple(found)
