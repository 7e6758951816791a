"""`ggufsteer extract`: a recipe, or cvector-generator's two files, to a control vector."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ggufsteer.cli import console
from ggufsteer.cli.extraction_report import show_extraction
from ggufsteer.cli.options import common_options, load_options, model_options, output_option, seed_option
from ggufsteer.errors import SteerError

if TYPE_CHECKING:
    from ggufsteer.files.recipe import Recipe

CHANGEABLE = ("method", "position", "layers", "dose", "seed")
"""Keys of a recipe that a flag of the same name replaces."""


@click.command("extract")
@click.argument("recipe", required=False, metavar="[RECIPE]")
@click.option("--positive-file", type=click.Path(), help="Instead of a recipe: a file of positive texts, one a line.")
@click.option("--negative-file", type=click.Path(), help="The negative texts, line by line against the positive ones.")
@click.option("--method", help="How the direction is computed, in place of the recipe's method.")
@click.option("--position", help="Where states are read: last, -2, prompt, response, all.")
@click.option("--layers", help='Which layers: auto, 2-4, "2,3,4", 0.3-0.6 (parts of the depth).')
@click.option("--dose", type=float, help="How many natural sizes strength 1.0 stands for.")
@output_option("The vector's file.  [default: NAME.gguf, after the recipe's name]")
@click.option("--force", is_flag=True, help="Overwrite the output even if it is no control vector.")
@seed_option
@model_options
@common_options
def extract_command(recipe: str | None, output: Path | None, force: bool, as_json: bool, **flags: Any) -> None:
    """Compute a control vector from RECIPE and save it.

    RECIPE is a file, or the name of a recipe that comes with ggufsteer (see `ggufsteer recipe list`). Options given
    here take the place of the recipe's own keys. Without -m the recipe's model is used, and without one the model that
    comes with ggufsteer.
    """
    wanted = _recipe(recipe, output, flags)
    from ggufsteer.cli.saving import check_output, default_output

    target = output or default_output(wanted.name)
    check_output(target, force=force, protected=[flags["model"], recipe])
    options = load_options(flags)
    from ggufsteer.engine.builtin import resolve_model
    from ggufsteer.engine.model import Model
    from ggufsteer.files.vector import write_vector
    from ggufsteer.tasks.extract import extract

    name = flags["model"] or wanted.model
    _say_which_model(name, wanted)
    with Model.open(resolve_model(name), options) as model:
        with console.progress(quiet=as_json) as report:
            extraction = extract(wanted, model, report=report)
        write_vector(target, extraction.vector)
        show_extraction(extraction, target, model.path, as_json=as_json, model_is_builtin=name in (None, "builtin"))


def _recipe(name: str | None, output: Path | None, flags: dict[str, Any]) -> Recipe:
    """Return the recipe that was asked for, with the command line's own values in it."""
    positive_file, negative_file = flags["positive_file"], flags["negative_file"]
    if (positive_file is None) != (negative_file is None):
        raise SteerError("--positive-file and --negative-file go together", "give both, or a recipe")
    if (name is None) == (positive_file is None):
        given = "both a recipe and --positive-file" if name else "neither a recipe nor --positive-file"
        raise SteerError(f"{given} was given", "give one of the two; `ggufsteer recipe list` names some recipes")
    from ggufsteer.tasks.recipes import changed, recipe_from_files

    changes = {key: flags[key] for key in CHANGEABLE if flags[key] is not None}
    if name is None:
        own_name = output.stem if output else "control_vector"
        return changed(recipe_from_files(positive_file, negative_file, own_name), changes)
    from ggufsteer.files.recipe import load_recipe

    return changed(load_recipe(name), changes)


def _say_which_model(name: str | None, recipe: Recipe) -> None:
    if name not in (None, "builtin"):
        return
    if name is None:
        console.note("no model was given: using the small demo model that comes with ggufsteer (-m takes another)")
    if not recipe.shows_on_demo:
        console.warn(
            f"recipe '{recipe.name}' is written for real chat models, not for the demo model; give one with -m"
        )
