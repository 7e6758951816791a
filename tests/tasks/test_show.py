"""What people are shown is what extraction would read."""

import numpy as np
import pytest

from ggufsteer.engine.model import Model
from ggufsteer.files.recipe import Recipe, make_recipe
from ggufsteer.tasks.contrast import build_contrast
from ggufsteer.tasks.shapes import plan
from ggufsteer.tasks.show import show

SUFFIXES = [f"{first} {word} of many" for first in ("number", "figure") for word in ("one", "two", "three", "four")]
CONTRASTS = [
    {"kind": "pairs", "pairs": [[f"{text} a", f"{text} b"] for text in SUFFIXES]},
    {"kind": "personas", "positive": ["happy"], "negative": [""], "prompts": SUFFIXES},
    {"kind": "responses", "positive": ["happy"], "negative": [""], "prompts": SUFFIXES[:4], "max_tokens": 2},
    *(
        {"kind": "suffixes", "template": template, "positive": ["glad"], "negative": ["sad"], "suffixes": SUFFIXES}
        for template in ("As {persona}: {suffix}", "As {persona}: {suffix} END")
    ),
]


def recipe(contrast: dict[str, object]) -> Recipe:
    """Make a recipe that holds out a good part."""
    return make_recipe({"name": "test", "holdout": 0.4, "contrast": contrast})


@pytest.mark.parametrize("contrast", CONTRASTS, ids=lambda contrast: f"{contrast['kind']}-{len(contrast)}")
def test_every_pair_is_shown_as_it_is_read(contrast: dict[str, object], tiny: Model) -> None:
    """All pairs with their tokens, rows and hold-out, those left out of a hold-out left out here as well."""
    wanted = recipe(contrast)
    built, shown = build_contrast(wanted, tiny), show(wanted, tiny, limit=0)
    for sequences, sides in (
        (built.positive, [pair.positive for pair in shown.pairs]),
        (built.negative, [pair.negative for pair in shown.pairs]),
    ):
        assert [side.n_tokens for side in sides] == sequences.lengths.tolist()
        assert [side.n_rows for side in sides] == sequences.row_counts.tolist()
    assert np.array_equal([pair.held_out for pair in shown.pairs], built.held_out)
    assert (shown.n_pairs, shown.n_tokens, shown.counted_all) == (built.n_pairs, built.n_tokens, True)


def test_the_first_pairs_are_the_first_of_all(tiny: Model) -> None:
    """A limit shortens what is shown and changes neither the pairs nor the totals."""
    for contrast in CONTRASTS:
        if contrast["kind"] == "responses":
            continue
        few, everything = (show(recipe(contrast), tiny, limit=limit) for limit in (2, 0))
        assert few.pairs == everything.pairs[:2]
        assert (few.n_pairs, few.n_tokens) == (everything.n_pairs, everything.n_tokens)


def test_showing_some_answers_counts_all_pairs(tiny: Model) -> None:
    """The number of pairs is the recipe's; the tokens are those of the answers that were made."""
    shown = show(recipe(CONTRASTS[2]), tiny, limit=1)
    assert (len(shown.pairs), shown.n_pairs, shown.counted_all) == (1, 4, False)
    assert shown.pairs[0].positive.asked_under == "You are happy."
    assert shown.pairs[0].negative.asked_under == ""
    assert shown.pairs[0].held_out == next(iter(plan(recipe(CONTRASTS[2])))).held_out
