"""`ggufsteer lens`: the tokens that a vector promotes and suppresses at each layer, and the vectors like it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ggufsteer.cli import console
from ggufsteer.cli.model_choice import model_for_vector
from ggufsteer.cli.options import BUILTIN, WholeNumber, common_options, offline_option, producer_option
from ggufsteer.errors import SteerError

if TYPE_CHECKING:
    from ggufsteer.files.control_vector import ControlVector
    from ggufsteer.tasks.lens import Lens, LensLayer, LensToken, Likeness

MOST_COLUMNS = 5
"""Other vectors whose cosines are shown layer by layer; 80 columns hold so many."""


@click.command("lens")
@click.argument("vector", metavar="FILE|hf:NAME|builtin:NAME")
@click.argument("others", metavar="[OTHER]...", nargs=-1)
@click.option(
    "-m", "--model", metavar=f"FILE|hf:NAME|{BUILTIN}", envvar="LLAMA_ARG_MODEL", show_envvar=True,
    help="The GGUF model; of its weights only the output matrix is loaded.",
)  # fmt: skip
@click.option(
    "-k", "--tokens", "k", metavar="N", default=8, show_default=True, type=WholeNumber(1, 1000),
    help="Most tokens on each side.",
)  # fmt: skip
@click.option(
    "--layers", metavar="WHICH", default="auto", show_default="all of the vector",
    help="Which layers: 2-4, 2,3,4, or 0.3-0.6 (parts of the depth).",
)  # fmt: skip
@offline_option
@producer_option
@click.option("--force", is_flag=True, help="Take vectors although they were made from another model file.")
@common_options
def lens_command(vector: str, others: tuple[str, ...], layers: str, k: int, as_json: bool, **flags: Any) -> None:
    """Show which tokens a control vector promotes and suppresses at each layer, in the model's own words.

    Each direction goes through the model's output norm and output matrix. OTHER vectors, and those that come with
    ggufsteer where they are of the same model, are compared with it by cosine.

    Without -m the demo model is used if the vector was made from it.
    """
    from ggufsteer.cli.model_choice import find_vector
    from ggufsteer.files.recipe_layers import parse_layers

    choice = parse_layers(layers)
    path = find_vector(vector)
    read = _read(vector, path, flags["producer"])
    compared = {name: _read(name, find_vector(name), flags["producer"]) for name in others}
    from ggufsteer.engine.model import LoadOptions, Model
    from ggufsteer.tasks.lens import lens, shipped_vectors

    with Model.open(model_for_vector(flags["model"], read, path), LoadOptions(vocabulary_only=True)) as model:
        wanted = _layers(choice, read, model.n_layer)
        with console.progress(quiet=as_json) as report:
            seen = lens(
                model,
                read,
                wanted,
                k,
                others=shipped_vectors(model, read) | compared,
                force=flags["force"],
                report=report,
            )
    for doubt in seen.doubts:
        console.warn(doubt)
    if as_json:
        console.document({"vector": str(path), "model": str(model.path), **_as_json(seen)})
        return
    _show(seen)


def _read(name: str, path: Path, producer: str | None) -> ControlVector:
    from ggufsteer.files.vector import read_vector

    read = read_vector(path, producer=producer)
    for remark in read.notes:
        console.warn(f"{name}: {remark}")
    return read


def _layers(choice: str | tuple[int, ...], vector: ControlVector, n_layer: int) -> tuple[int, ...]:
    """Give the layers that are meant: a list is taken at its word, a range means those that the vector has."""
    from ggufsteer.files.recipe_layers import resolve_layers

    vector.check_depth(n_layer)
    named = resolve_layers(choice, n_layer)
    if named is None:
        return vector.layers
    found = named if isinstance(choice, tuple) else tuple(layer for layer in named if layer in vector.directions)
    if not found:
        has = ", ".join(map(str, vector.layers))
        raise SteerError(f"--layers {choice}: the vector has no layer there", f"it has {has}")
    return found


def _show(seen: Lens) -> None:
    from ggufsteer.tasks.lens import CLEAR_CHANCE

    console.table(
        ["layer", "chance", "promotes", "suppresses"],
        [[str(one.layer), _percent(one.chance), _words(one.promotes), _words(one.suppresses)] for one in seen.layers],
        left=(2, 3),
    )
    alike = [one for one in seen.likenesses if one.overall is not None]
    if alike:
        _show_likenesses(alike, seen.layers)
    console.note(
        f"chance: the part of random directions whose words stand out as much; above {CLEAR_CHANCE:.0%} there may be "
        "nothing to read. The mark · is a space."
    )
    for remark in seen.notes:
        console.note(remark)


def _show_likenesses(likenesses: Sequence[Likeness], layers: Sequence[LensLayer]) -> None:
    shown = likenesses[:MOST_COLUMNS]
    rows = [["all", *(_cosine(one.overall) for one in shown)]]
    rows += [[str(one.layer), *(_cosine(other.layers.get(one.layer)) for other in shown)] for one in layers]
    console.line()
    console.table(["layer", *_labels(shown)], rows, title="Cosine with other vectors:", left=())
    if len(shown) < len(likenesses):
        console.note(f"{len(shown)} of {len(likenesses)} vectors are shown; --json has all")


def _labels(likenesses: Sequence[Likeness]) -> list[str]:
    """Name vectors shortly where that tells them apart, since five names share a line."""
    short = [
        one.name.removeprefix(f"{BUILTIN}:") if one.name.startswith(f"{BUILTIN}:") else Path(one.name).stem
        for one in likenesses
    ]
    return [label if short.count(label) == 1 else one.name for label, one in zip(short, likenesses, strict=True)]


def _words(tokens: Sequence[LensToken]) -> str:
    """Join the tokens with spaces, which none of them holds when it is shown."""
    return "  ".join(token.shown for token in tokens) or "–"


def _percent(chance: float) -> str:
    return f"{chance:.0%}"


def _cosine(value: float | None) -> str:
    return "–" if value is None else f"{value:+.2f}"


def _as_json(seen: Lens) -> dict[str, Any]:
    return {
        "name": seen.name,
        "tokens": seen.n_tokens,
        "layers": [_layer_as_json(one) for one in seen.layers],
        "similar": [
            {
                "vector": one.name,
                "cosine": one.overall,
                "layers": [{"layer": layer, "cosine": cosine} for layer, cosine in one.layers.items()],
            }
            for one in seen.likenesses
        ],
        "doubts": seen.doubts,
        "notes": seen.notes,
    }


def _layer_as_json(one: LensLayer) -> dict[str, Any]:
    def side(tokens: Sequence[LensToken]) -> list[dict[str, Any]]:
        return [
            {
                "token": token.token,
                "text": token.text,
                "score": token.score,
                "logits": None if one.spread is None else token.score * one.spread,
            }
            for token in tokens
        ]

    return {
        "layer": one.layer,
        "chance": one.chance,
        "promotes": side(one.promotes),
        "suppresses": side(one.suppresses),
    }
