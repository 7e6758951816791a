"""Which layers are read and steered: from the recipe's words to numbers for one model."""

from __future__ import annotations

from collections.abc import Sequence

from ggufsteer.errors import RecipeError

AUTO_BAND = (0.3, 0.6)
"""The part of the depth that `auto` takes.

Published choices agree on the middle: a refusal direction was found best at 0.38 to 0.63 of the depth in five models
(arXiv:2406.11717), CAST steers Llama-3-8B at 15 to 23 of 32, and steering layers 33 to 35 of a 36-layer model changed
nothing. The band lies at their lower half because a change needs later layers to become words, and it is about a third
of the depth wide. The last layer is never in it: its mean state is many times larger than that of the layers before.
"""

Layers = str | Sequence[int] | tuple[float, float]


def resolve_layers(wanted: Layers, n_layer: int, source: str = "the recipe") -> tuple[int, ...]:
    """Return the layers a recipe means for a model of `n_layer` layers, ascending.

    A fraction band `a-b` reaches from layer `floor(a * n_layer)` to `floor(b * n_layer)`; layer 0, which llama.cpp cannot
    steer, and what lies past the last layer are cut off. `"auto"` is the band of `AUTO_BAND`.

    Args:
        wanted: `"auto"`, `"2-4"`, `"0.3-0.6"`, or a list of layer numbers.
        n_layer: Layers of the model; layer N is the output of block N, counted from 0.
        source: What to call the recipe in an error.

    Raises:
        RecipeError: A layer is not in 1 to `n_layer` - 1, or the model has no layer to steer.

    >>> resolve_layers("auto", 32)
    (9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19)
    >>> resolve_layers("2-4", 8)
    (2, 3, 4)
    """
    if n_layer < 2:
        raise RecipeError(
            f"the model has {n_layer} layer(s): there is none that can be steered",
            "llama.cpp steers from layer 1 on; use a model with at least 2 layers",
        )
    if wanted == "auto":
        return _band(*AUTO_BAND, n_layer)
    if isinstance(wanted, str):
        layers = _written_range(wanted, n_layer, source)
    else:
        layers = tuple(int(layer) for layer in wanted)
    outside = [layer for layer in layers if not 1 <= layer < n_layer]
    if outside or not layers:
        seen = outside[0] if outside else wanted
        raise RecipeError(
            f"{source}: layers: {seen} is not a layer that can be steered; this model has layers 1 to {n_layer - 1}",
            'use layers = "auto", or a fraction band such as "0.3-0.6", which fits every model',
        )
    return tuple(sorted(set(layers)))


def _band(low: float, high: float, n_layer: int) -> tuple[int, ...]:
    # The small addition keeps 0.3 * 10 from becoming 2 by rounding.
    first = min(max(int(low * n_layer + 1e-9), 1), n_layer - 1)
    last = min(max(int(high * n_layer + 1e-9), first), n_layer - 1)
    return tuple(range(first, last + 1))


def _written_range(text: str, n_layer: int, source: str) -> tuple[int, ...]:
    first, _, last = text.partition("-")
    try:
        if "." in text:
            return _band(float(first), float(last), n_layer)
        return tuple(range(int(first), int(last or first) + 1))
    except ValueError:
        raise RecipeError(
            f"{source}: layers: {text!r} is no choice of layers",
            'use "auto", a list such as [2, 3], a range such as "2-4", or a fraction band such as "0.3-0.6"',
        ) from None
