"""`ggufsteer recipe`: write, check, list and look at recipes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ggufsteer.cli import console
from ggufsteer.cli.console import counted
from ggufsteer.cli.options import common_options, load_options, model_options, output_option
from ggufsteer.errors import ExitCode, SteerError

if TYPE_CHECKING:
    from ggufsteer.tasks.show import ShownPair, ShownRecipe


@click.group("recipe", no_args_is_help=True)
def recipe_group() -> None:
    """Write, check and look at recipes."""


@recipe_group.command("new", short_help="Write a commented recipe to fill in.")
@click.argument("name")
@output_option("The file to write.", "NAME.toml")
@click.option("--force", is_flag=True, help="Overwrite a file that is already there.")
@common_options
def new_command(name: str, output: Path | None, force: bool, as_json: bool) -> None:
    """Write a commented recipe called NAME, to be filled in."""
    from ggufsteer.cli.saving import check_new
    from ggufsteer.files.atomic import write_text_atomically
    from ggufsteer.tasks.recipes import template

    text = template(name)
    path = output or Path(f"{name}.toml")
    check_new(path, force=force)
    write_text_atomically(path, text)
    if as_json:
        console.document({"recipe": str(path)})
        return
    console.line(f"wrote {path}")
    console.line("fill it in, then: " + console.shell(["ggufsteer", "recipe", "check", str(path)]))


@recipe_group.command("check", short_help="Check recipes; nothing is loaded or computed.")
@click.argument("recipes", nargs=-1, required=True, metavar="RECIPE…")
@common_options
def check_command(recipes: tuple[str, ...], as_json: bool) -> None:
    """Check each RECIPE, a file or the name of a shipped one; nothing is loaded or computed.

    All are checked, whatever is wrong with some; then the exit code is 2.
    """
    from ggufsteer.files.recipe import load_recipe
    from ggufsteer.tasks.shapes import plan

    checked: list[dict[str, Any]] = []
    for name in recipes:
        try:
            recipe = load_recipe(name)
            n_pairs = len(plan(recipe))
        except SteerError as problem:
            checked.append({"recipe": name, "ok": False, "error": problem.message, "hint": problem.hint})
            console.error(problem.message, problem.hint)
            continue
        kind = recipe.contrast.kind
        checked.append({"recipe": name, "ok": True, "name": recipe.name, "kind": kind, "pairs": n_pairs})
        if not as_json:
            console.line(f"{name}: ok ({kind}, {counted(n_pairs, 'pair')})")
    if as_json:
        console.document({"recipes": checked})
    if not all(entry["ok"] for entry in checked):
        raise SystemExit(ExitCode.USAGE)


@recipe_group.command("list")
@common_options
def list_command(as_json: bool) -> None:
    """List the recipes that come with ggufsteer."""
    from ggufsteer.files.recipe import builtin_recipe_names, load_recipe

    recipes = [(name, load_recipe(name)) for name in builtin_recipe_names()]
    if as_json:
        entries = [
            {"name": name, "description": recipe.description, "shows_on_demo": recipe.shows_on_demo}
            for name, recipe in recipes
        ]
        console.document({"recipes": entries})
        return
    rows = [(name, "yes" if recipe.shows_on_demo else "", recipe.description) for name, recipe in recipes]
    console.table(("recipe", "demo model", "what + stands for"), rows, left=(0, 1, 2))


@recipe_group.command("show", short_help="Show the pairs as the model gets them, with token counts.")
@click.argument("recipe")
@click.option(
    "--limit", type=click.IntRange(min=0), default=3, show_default=True, help="How many pairs to show; 0 shows all."
)
@model_options
@common_options
def show_command(recipe: str, limit: int, as_json: bool, **flags: Any) -> None:
    """Show the final pairs of RECIPE, a file or the name of a shipped one, with token counts.

    The pairs are shown as the model gets them. Where the model makes the answers itself, it makes those of the pairs
    that are shown.
    """
    from ggufsteer.files.recipe import load_recipe

    wanted = load_recipe(recipe)
    options = load_options(flags)
    from ggufsteer.engine.builtin import resolve_model
    from ggufsteer.engine.model import Model
    from ggufsteer.tasks.recipes import model_of
    from ggufsteer.tasks.show import show

    path = resolve_model(flags["model"] or model_of(wanted, recipe))
    with Model.open(path, options) as model, console.progress(quiet=as_json) as report:
        shown = show(wanted, model, limit=limit, report=report)
    for warning in shown.warnings:
        console.warn(warning)
    if as_json:
        console.document(_document(shown))
        return
    for number, pair in enumerate(shown.pairs, start=1):
        _print_pair(number, pair)
    console.prose(_totals(shown))


def _print_pair(number: int, pair: ShownPair) -> None:
    console.line(f"pair {number}" + (" (held out)" if pair.held_out else ""))
    for sign, side in (("+", pair.positive), ("-", pair.negative)):
        if side.asked_under is not None:
            console.prose(f"{sign} answered under: {side.asked_under or '(no system prompt)'}", indent="  ")
        read = f"{side.n_rows} of them read, the last is {side.last_read!r}"
        console.line(f"  {sign} {counted(side.n_tokens, 'token')}, {read}")
        console.prose(side.text.rstrip("\n"), indent="    ")
    console.line()


def _totals(shown: ShownRecipe) -> str:
    pairs, tokens = counted(shown.n_pairs, "pair"), f"{counted(shown.n_tokens, 'token')}, equal texts counted once"
    if len(shown.pairs) == shown.n_pairs:
        return f"{pairs} with {tokens}"
    which = "all" if shown.counted_all else "these"
    return f"{len(shown.pairs)} of {pairs} shown (--limit 0 shows all); {which} have {tokens}"


def _document(shown: ShownRecipe) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "recipe": shown.name,
        "pairs": shown.n_pairs,
        "tokens": shown.n_tokens,
        "tokens_of_all_pairs": shown.counted_all,
        "shown": [asdict(pair) for pair in shown.pairs],
        "warnings": list(shown.warnings),
    }
