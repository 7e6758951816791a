"""Text that has nothing to do with the concept, for the methods that measure what is loud anyway."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ggufsteer.engine.sequences import TokenSequence, TokenSequences
from ggufsteer.errors import SteerError
from ggufsteer.maths.directions import METHODS
from ggufsteer.tasks.everyday import everyday_prompts
from ggufsteer.tasks.passages import Passage, encode
from ggufsteer.tasks.positions import rows_to_read
from ggufsteer.tasks.shapes import uses_chat
from ggufsteer.tasks.states import NeutralText

if TYPE_CHECKING:
    from ggufsteer.engine.model import Model
    from ggufsteer.files.recipe import Recipe

NEUTRAL_METHODS = ("lda", "crosscov")
"""Methods that make use of neutral states where a recipe gives some; `lda` cannot do without."""


def uses_neutral_text(recipe: Recipe) -> bool:
    """Say whether the recipe's vector depends on neutral text; what was read for other methods must not change it."""
    return METHODS[recipe.method].needs_neutral or (recipe.method in NEUTRAL_METHODS and bool(recipe.eval.neutral))


def neutral_text(recipe: Recipe, model: Model, *, always: bool = False) -> NeutralText | None:
    """Return what neutral text is read, or None where the method uses none.

    The texts are the recipe's `eval.neutral`, or everyday prompts where the method needs some and the recipe has none.
    They go through the chat template where the recipe's own do, and are read where the recipe reads; a recipe that
    reads answers or every token gets every token of them.

    Args:
        recipe: Whose method, texts and position.
        model: Whose tokens and chat template.
        always: Whether some other method may want neutral text later.
    """
    if not (always or uses_neutral_text(recipe)):
        return None
    texts = tuple(recipe.eval.neutral) or everyday_prompts(model.identity.name)
    every_token = recipe.position in ("response", "all")
    position = "all" if every_token else recipe.position
    sequences = []
    for text in texts:
        encoded = encode(model, Passage(text, chat=uses_chat(recipe.contrast)))
        try:
            sequences.append(TokenSequence(encoded.tokens, rows_to_read(position, encoded)))
        except SteerError:
            # Too short for the position. A method that may never be tried must not stop one that needs no such text.
            if recipe.method in NEUTRAL_METHODS:
                raise
    return NeutralText(TokenSequences.pack(sequences), pooled=not every_token) if sequences else None
