"""`ggufsteer ablate-map`: which parts of the model carry a vector's concept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ggufsteer.cli import console
from ggufsteer.cli.model_choice import model_for_vector
from ggufsteer.cli.options import WholeNumber, common_options, load_options, model_options, producer_option, seed_option
from ggufsteer.cli.vectors import recipe_for_vector

if TYPE_CHECKING:
    from ggufsteer.tasks.ablate_map import AblationMap, BlockLoss, Loss

BAR = 12
"""Signs for a share of 100 %."""
NAMES = {"whole": " as a whole", "attention": "'s attention", "mlp": "'s MLP"}


@click.command("ablate-map")
@click.argument("vector", metavar="FILE|hf:NAME|builtin:NAME")
@click.option(
    "--recipe", "recipe_name", metavar="FILE|NAME", show_default="the one in the vector's file",
    help="The recipe whose items and personas are used.",
)  # fmt: skip
@click.option(
    "--layers", metavar="WHICH", default="auto", show_default="all from 1 on",
    help="Which blocks are knocked out: 2-4, 2,3,4, or 0.3-0.6 (parts of the depth).",
)  # fmt: skip
@click.option(
    "--items", "most_items", metavar="N", default=16, show_default=True, type=WholeNumber(2), help="Most items to use."
)
@producer_option
@click.option("--force", is_flag=True, help="Use the vector although it was made from another model file.")
@seed_option
@model_options
@common_options
def ablate_map_command(
    vector: str, recipe_name: str | None, layers: str, most_items: int, as_json: bool, **flags: Any
) -> None:
    """Show which blocks carry a vector's concept, and whether it is their attention or their MLP.

    Under the recipe's persona the model expresses the concept. What each block, its attention, and its MLP write along
    the vector's direction is then kept out of the residual stream, and the share of the effect that is lost is shown.

    Each knock-out goes through all items: of a large model, --layers and --items make it shorter.

    Without -m the demo model is used if the vector was made from it.
    """
    from ggufsteer.cli.model_choice import find_vector
    from ggufsteer.files.recipe_layers import parse_layers, resolve_layers
    from ggufsteer.files.vector import read_vector

    choice = parse_layers(layers)
    path = find_vector(vector)
    read = read_vector(path, producer=flags["producer"])
    for remark in read.notes:
        console.warn(f"{vector}: {remark}")
    recipe = recipe_for_vector(recipe_name, read, path)
    options = load_options(flags)
    from ggufsteer.engine.model import Model
    from ggufsteer.tasks.ablate_map import ablate_map
    from ggufsteer.tasks.versions import versions

    with Model.open(model_for_vector(flags["model"], read, path), options) as model:
        with console.progress(quiet=as_json) as report:
            found = ablate_map(
                model,
                read,
                recipe,
                resolve_layers(choice, model.n_layer),
                most_items=most_items,
                force=flags["force"],
                seed=flags["seed"] or 0,
                report=report,
            )
        origin = {
            "vector": str(path),
            "model": {"path": str(model.path), "content_hash": model.identity.content_hash},
            "recipe": {"name": recipe.name, "hash": recipe.content_hash},
            "versions": versions(),
        }
    for doubt in found.doubts:
        console.warn(doubt)
    if as_json:
        console.document({**origin, **_as_json(found)})
        return
    _show(found)


def _show(found: AblationMap) -> None:
    rows = [_row(str(one.layer) + ("" if one.layer == one.direction_layer else "*"), one) for one in found.blocks]
    rows += [
        ["all", _percent(found.everything), _interval(found.everything), "", "", "", "", bar(found.everything.share)],
        ["random", _percent(found.random), _interval(found.random), "", "", "", "", bar(found.random.share)],
    ]
    console.prose(_headline(found))
    console.line()
    console.table(
        ["layer", "whole", "95 %", "attention", "95 %", "MLP", "95 %", "whole"],
        rows,
        title="Share of the effect that is lost when a part cannot write along the vector:",
        left=(0, 7),
    )
    console.line()
    console.prose(_strongest(found))
    console.note(
        "all: all these blocks at once; random: the same along random directions. Below 0, the effect grew. Shares "
        "need not sum up to 100 %."
    )
    for remark in found.notes:
        console.note(("* " if "nearest" in remark else "") + remark)
    console.note(
        f"cost: {console.counted(found.evaluations, 'evaluation')} of {found.distinct_tokens:,} distinct tokens"
    )


def _headline(found: AblationMap) -> str:
    texts = " / ".join(f"“{text}”" for text in found.context_texts[:2])
    more = len(found.context_texts) - 2
    low, high = found.interval
    return (
        f"With the {found.context} {texts}{f' and {more} more' if more > 0 else ''} the log-odds of "
        f"{console.counted(found.n_items, 'item')} ({found.source}) rise by {found.effect:.2f} nats a token "
        f"({low:.2f} to {high:.2f}): the effect."
    )


def _strongest(found: AblationMap) -> str:
    parts = [f"layer {layer}{NAMES[part]} ({_percent(loss)})" for layer, part, loss in found.strongest()]
    if not parts:
        return "No part surely carries any of the effect along this vector."
    return f"Most is carried by {', then '.join(parts)}; all blocks together: {_percent(found.everything)}."


def _row(name: str, block: BlockLoss) -> list[str]:
    cells = [cell for loss in (block.whole, block.attention, block.mlp) for cell in (_percent(loss), _interval(loss))]
    return [name, *cells, bar(block.whole.share)]


def _percent(loss: Loss | None) -> str:
    return "–" if loss is None else f"{loss.share:.0%}"


def _interval(loss: Loss | None) -> str:
    if loss is None or loss.interval is None:
        return "–" if loss is None else "?"
    low, high = (round(100 * value) for value in loss.interval)
    return f"{low} to {high}"


def bar(share: float) -> str:
    """Draw a share: as many full blocks as it has of `BAR`; light ones where knocking out made the effect grow."""
    length = min(BAR, round(abs(share) * BAR))
    return ("█" if share > 0 else "░") * length


def _as_json(found: AblationMap) -> dict[str, Any]:
    return {
        "name": found.name,
        "context": {"kind": found.context, "texts": found.context_texts},
        "items": {"count": found.n_items, "source": found.source},
        "log_odds": {"plain": found.plain, "expressed": found.expressed},
        "effect": found.effect,
        "interval": found.interval,
        "blocks": [
            {
                "layer": one.layer,
                "direction_layer": one.direction_layer,
                "whole": _loss_as_json(one.whole),
                "attention": _loss_as_json(one.attention),
                "mlp": _loss_as_json(one.mlp),
            }
            for one in found.blocks
        ],
        "all": _loss_as_json(found.everything),
        "random": _loss_as_json(found.random),
        "strongest": [{"layer": layer, "part": part, "share": loss.share} for layer, part, loss in found.strongest()],
        "distinct_tokens": found.distinct_tokens,
        "evaluations": found.evaluations,
        "doubts": found.doubts,
        "notes": found.notes,
    }


def _loss_as_json(loss: Loss | None) -> dict[str, Any] | None:
    return None if loss is None else {"share": loss.share, "interval": loss.interval, "effect": loss.effect}
