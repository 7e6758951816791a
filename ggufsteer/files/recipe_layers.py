"""The ways to say which layers a recipe takes: "auto", a list, a range, a band of the depth.

It does not choose: "auto" is left to whoever has measured something.
"""

from __future__ import annotations

import re

from ggufsteer.errors import MisfitError, SteerError

LayerChoice = str | tuple[int, ...]
LAYER_FORMS = 'write "auto", a list such as [2, 3, 4], a range such as "2-4", or a band of the depth such as "0.3-0.6"'
_RANGE = re.compile(r"\s*(\d{1,6})\s*-\s*(\d{1,6})\s*")
_BAND = re.compile(r"\s*(\d?\.\d{1,9}|[01]\.\d{0,9})\s*-\s*(\d?\.\d{1,9}|[01]\.\d{0,9})\s*")


def problem_of_layers(choice: object) -> str | None:
    """What is wrong with a choice of layers, in words; None when nothing is."""
    if isinstance(choice, tuple):
        return _problem_of_list(choice)
    if not isinstance(choice, str):
        return "is no choice of layers"
    if choice == "auto":
        return None
    if found := _RANGE.fullmatch(choice):
        first, last = int(found[1]), int(found[2])
        return _problem_of_list((first,)) or ("runs backwards" if last < first else None)
    if found := _BAND.fullmatch(choice):
        low, high = float(found[1]), float(found[2])
        if not 0.0 <= low < high <= 1.0:
            return "is no band between 0.0 and 1.0, lower end first"
        return None
    return "is no choice of layers"


def parse_layers(text: str) -> LayerChoice:
    """Read a choice from a command line: as in a recipe, with a list spelled "2,3,4".

    Raises `SteerError` when it is none.
    """
    numbers = text.replace(" ", "").split(",")
    choice: LayerChoice = text
    if all(number.isdecimal() and len(number) < 7 for number in numbers):
        choice = tuple(int(number) for number in numbers)
    problem = problem_of_layers(choice)
    if problem is not None:
        raise SteerError(f"layers {text!r:.60}: {problem}", LAYER_FORMS.replace("[2, 3, 4]", "2,3,4"))
    return choice


def resolve_layers(choice: LayerChoice, n_layer: int) -> tuple[int, ...] | None:
    """The layers that a choice means on a model of `n_layer` blocks; None for "auto".

    A band holds the layers N with low <= N / n_layer <= high. Layer 0 is never among them. Raises `MisfitError` when a
    layer lies past the model's end or the band holds none.
    """
    if choice == "auto":
        return None
    if isinstance(choice, tuple):
        layers = choice
    elif found := _RANGE.fullmatch(choice):
        layers = tuple(range(int(found[1]), int(found[2]) + 1))
    else:
        low, high = (float(end) for end in choice.split("-"))
        layers = tuple(layer for layer in range(1, n_layer) if low <= layer / n_layer <= high)
    if not layers:
        raise MisfitError(f"the band {choice} holds no layer of a model with {n_layer} layers", "make it wider")
    if layers[-1] >= n_layer:
        raise MisfitError(
            f"layer {layers[-1]} is asked for, but the model's last one is {n_layer - 1}",
            f'use layers from 1 to {n_layer - 1}, or a band such as "0.3-0.6"',
        )
    return layers


def _problem_of_list(layers: tuple[object, ...]) -> str | None:
    if not layers:
        return "names no layer"
    numbers: list[int] = []
    for layer in layers:
        if isinstance(layer, bool) or not isinstance(layer, int):
            return f"holds {layer!r:.40}, which is no whole number"
        numbers.append(layer)
    if 0 in numbers:
        return "holds layer 0, which llama.cpp cannot steer (layers start at 1)"
    if min(numbers) < 0:
        return f"holds the negative layer {min(numbers)} (layers are counted from the start)"
    if sorted(set(numbers)) != numbers:
        return "is not in rising order without repetition"
    return None
