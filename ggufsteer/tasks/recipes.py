"""Recipes that a command makes or changes: from two files, from flags, from a template to fill in."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from typing import Any

from ggufsteer.files.hub_names import is_hub_name
from ggufsteer.files.recipe import Recipe, find_recipe, make_recipe
from ggufsteer.files.recipe_layers import parse_layers

SOURCE = "command line"


def recipe_from_files(positive_file: str, negative_file: str, name: str) -> Recipe:
    """Return the recipe that llama.cpp's cvector-generator follows in silence: two files, line against line.

    Args:
        positive_file: Texts of the side that + points to, one a line.
        negative_file: As many of the other side.
        name: What to call the vector; characters that a name cannot hold become `-`.

    Raises:
        FileFormatError: A file cannot be read, or the two do not pair up.
    """
    contrast = {"kind": "files", "positive_file": positive_file, "negative_file": negative_file}
    return make_recipe({"name": usable_name(name), "contrast": contrast}, SOURCE)


def changed(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """Return the recipe with some of its keys replaced by what the command line says, checked like a file.

    Args:
        recipe: Returned as it is where nothing changes.
        changes: Keys of a recipe; layers and position as written on a command line.

    Raises:
        RecipeError: A value is none that a recipe could have.
    """
    if not changes:
        return recipe
    # The contrast goes over as it is: written out as tables, thousands of pairs would be there twice more.
    table = {key: value for key, value in recipe if value is not None} | dict(changes)
    if "layers" in changes:
        table["layers"] = parse_layers(changes["layers"])
    if "position" in changes and re.fullmatch(r"-\d{1,6}", changes["position"]):
        table["position"] = int(changes["position"])
    return make_recipe(table, f"recipe '{recipe.name}', changed on the {SOURCE}")


def model_of(recipe: Recipe, name: str) -> str | None:
    """Return the model that a recipe names; a path is looked up beside the recipe, as its other files are.

    Args:
        recipe: The recipe.
        name: Its file, or its name where it came with the program.
    """
    if recipe.model is None or recipe.model == "builtin" or is_hub_name(recipe.model):
        return recipe.model
    return str(find_recipe(name).parent / recipe.model)


def usable_name(text: str) -> str:
    """Return a name for a recipe and its files made from any text: at most 40 letters, digits and `-`.

    >>> usable_name("A cheerful pirate, in 1720!")
    'a-cheerful-pirate-in-1720'
    """
    words = re.sub(r"[^\w]+", "-", text.lower()).strip("-_")
    return words[:40].strip("-_") or "vector"


TEMPLATE = """\
# A recipe: one concept, and the contrast that shows it to the model.
# Check it with `ggufsteer recipe check`, look at it with `ggufsteer recipe show`, use it with `ggufsteer extract`.

name = "{name}"
description = "What + stands for, in one sentence."

# Which model: a path from here, "hf:user/repository:Q4_K_M" for one from the hub, or "builtin" for the small one that
# comes with ggufsteer. `-m` goes first.
# model = "model.gguf"

# How the direction is computed: "mean" is the one to begin with; pca, pca_diff, lda, logistic, crosscov are there too.
method = "mean"

# Which tokens are read: "last", "prompt", "response", "all", or -2, -3, … counted from the end. Style lives in the
# answer ("response"), what is about to be said in the last token of the prompt ("last").
position = "response"

# Which layers: "auto" (chosen by what they do; with a dose, a band in the middle), "8-16", [8, 9, 10], or parts of the
# depth such as "0.3-0.6".
layers = "auto"

# How many natural sizes (distances between the two sides) strength 1.0 stands for. Without it layers and strength are
# calibrated; with it they are taken as they stand here.
# dose = 2.0

# The share of the prompts that is kept to judge the vector, and the seed that chooses them.
holdout = 0.25
seed = 0

[contrast]
# The model answers every prompt under each persona, and the answers are read without the persona's system prompt.
# Other kinds: "personas" (read before any answer), "pairs" (texts of your own), "files" (two files, line against line),
# "suffixes" (a text cut at each token).
kind = "responses"
positive = ["a cheerful person", "somebody in a sunny mood"]
negative = ["a gloomy person", "somebody in a dark mood"]   # "" stands for the model's plain self
templates = ["You are {{persona}}.", "Answer as {{persona}} would."]
prompts = [
    "What should I cook tonight?",
    "Tell me about the history of bread.",
    "How do I fall asleep faster?",
    "Describe a walk in the rain.",
    "Why do leaves change their colour in autumn?",
    "What makes a good friend?",
    "Give me three ideas for a free afternoon.",
    "How does a lighthouse work?",
]
combine = "zip"      # prompt i with persona i and template i; "product" takes every combination
max_tokens = 64

[eval]
# What the finished vector is measured on. Nothing of it is used to make the vector.
questions = ["Tell me about the sea.", "What do you think of Mondays?"]
marks = ["happy", "wonderful", "glad"]
opposite_marks = ["sad", "gloomy"]
"""


def template(name: str) -> str:
    """Return a commented recipe to fill in, as TOML text that is valid as it stands.

    Raises:
        RecipeError: The name cannot be a recipe's.
    """
    make_recipe({**tomllib.loads(TEMPLATE.format(name="name")), "name": name}, SOURCE)
    return TEMPLATE.format(name=name)
