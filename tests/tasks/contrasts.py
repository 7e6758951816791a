"""Recipes of every shape and position, small enough for a random model."""

from collections.abc import Mapping
from typing import Any

from ggufsteer.files.recipe import Recipe, make_recipe

_NAMES = ("Tom", "Lily", "Ben", "Mia", "Sam", "Anna")
PLAIN = {
    "kind": "pairs",
    "pairs": [
        [f"{name} was so {word} at {place}." for word in ("happy", "sad")]
        for name in _NAMES
        for place in ("home", "the sea")
    ],
}
ANSWERED = {
    "kind": "pairs",
    "chat": True,
    "pairs": [
        {"prompt": f"What is {thing}?", "positive": f"A joy, my {thing}!", "negative": f"{thing}, sadly."}
        for thing in ("tea", "bread", "rain", "snow", "music", "a boat")
    ],
}
PERSONAS = {
    "kind": "personas",
    "positive": ["a happy clerk"],
    "negative": ["a sad clerk"],
    "prompts": ["Tea?", "Bread?", "Rain?", "Snow?", "Music?"],
}
OWN_ANSWERS = {**PERSONAS, "kind": "responses", "max_tokens": 4}
SUFFIXES = {
    "kind": "suffixes",
    "template": "{persona}: {suffix}",
    "positive": ["happy"],
    "negative": ["sad"],
    "suffixes": ["I went home", "It is late", "You are here", "Rain falls", "We sing"],
}
READ: Mapping[str, tuple[Mapping[str, Any], str | int]] = {
    "last": (PLAIN, "last"),
    "second to last": (PLAIN, -2),
    "prompt": (PERSONAS, "prompt"),
    "response": (ANSWERED, "response"),
    "own answers": (OWN_ANSWERS, "response"),
    "all": (PERSONAS, "all"),
    "cuts in one pass": (SUFFIXES, "last"),
}
"""A contrast and a position that makes sense of it: pooled and row by row, with equal and unequal numbers of rows."""
UNPAIRED = ("all",)
"""Those whose sides have different numbers of observations."""


def recipe_of(contrast: Mapping[str, Any] = PLAIN, **keys: Any) -> Recipe:
    """Make a recipe, of plain pairs unless told otherwise."""
    return make_recipe({"name": "test", "contrast": contrast, **keys})
