"""States of text that has nothing to do with the concept, for the methods that measure what is loud anyway."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ggufsteer.maths.directions import METHODS
from ggufsteer.tasks.contrast import Side
from ggufsteer.tasks.everyday import everyday_prompts
from ggufsteer.tasks.passages import Passage, encode
from ggufsteer.tasks.positions import rows_to_read
from ggufsteer.tasks.progress import ReportProgress, ignore
from ggufsteer.tasks.shapes import uses_chat
from ggufsteer.tasks.states import capture_sides

if TYPE_CHECKING:
    from ggufsteer.engine.model import Model
    from ggufsteer.files.recipe import Recipe

NEUTRAL_METHODS = ("lda", "crosscov")
"""Methods that make use of neutral states where a recipe gives some; `lda` cannot do without."""


def neutral_rows(
    recipe: Recipe, model: Model, layers: Sequence[int], *, report: ReportProgress = ignore
) -> NDArray[np.float32] | None:
    """Return neutral states (observations, layers, n_embd), or None where the method uses none.

    The texts are the recipe's `eval.neutral`, or everyday prompts where the method needs some and the recipe has none.
    They go through the chat template where the recipe's own do, and are read where the recipe reads; a recipe that
    reads answers or every token gets every token of them.
    """
    texts = tuple(recipe.eval.neutral) if recipe.method in NEUTRAL_METHODS else ()
    if METHODS[recipe.method].needs_neutral and not texts:
        texts = everyday_prompts(model.identity.name)
    if not texts:
        return None
    every_token = recipe.position in ("response", "all")
    sides = []
    for text in texts:
        encoded = encode(model, Passage(text, chat=uses_chat(recipe.contrast)))
        rows = rows_to_read("all" if every_token else recipe.position, encoded)
        sides.append(Side(encoded.text, encoded.tokens, rows))
    return np.concatenate(capture_sides(model, sides, layers, pooled=not every_token, report=report))
