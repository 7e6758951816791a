"""What a search can choose among, and which choices are drawn of many."""

from collections import Counter
from typing import Any

import pytest

from ggufsteer.files.recipe import Recipe, make_recipe
from ggufsteer.maths.directions import METHODS
from ggufsteer.tasks.contrast import assemble
from ggufsteer.tasks.method_search_choices import (
    Choice,
    all_choices,
    draw,
    layers_in_words,
    layers_to_read,
    positions_to_try,
    tells_sides_apart,
)
from ggufsteer.tasks.shapes import plan
from tests.tasks.stand_in import StandIn

PERSONAS = {
    "kind": "personas",
    "positive": ["a happy clerk"],
    "negative": ["a sad clerk"],
    "prompts": ["Tea?", "Rain?"],
}
PAIRS = {"kind": "pairs", "pairs": [["So glad.", "So sad."], ["Tea, glad.", "Tea, sad."]]}
ANSWERED = {"kind": "pairs", "chat": True, "pairs": [{"prompt": "Tea?", "positive": "Oh yes.", "negative": "Oh no."}]}
SUFFIXES = {
    "kind": "suffixes",
    "template": "{persona} {suffix}",
    "positive": ["A"],
    "negative": ["B"],
    "suffixes": ["c"],
}
POSITIONS = ("response", "last", "prompt")
N_LAYER = 8


def recipe(contrast: dict[str, Any] = PERSONAS, **keys: Any) -> Recipe:
    """A recipe of some kind."""
    return make_recipe({"name": "test", "contrast": contrast, **keys})


def choices(n_layer: int = N_LAYER, fixed: tuple[str, ...] = (), **keys: Any) -> list[Choice]:
    """All choices at three positions, unless one is fixed."""
    made = recipe(position="last", **keys)
    return all_choices(made, n_layer, ("last",) if "position" in fixed else ("last", "prompt"), fixed)


@pytest.mark.parametrize("n_layer", [2, 3, 8, 80])
def test_every_choice_is_there_once_and_the_recipe_s_own_first(n_layer: int) -> None:
    """Single layers, bands, and what `auto` means, by every method at every position, with deltas and without."""
    every = choices(n_layer, method="pca", deltas=False)
    assert len(set(every)) == len(every) == len({choice.name for choice in every})
    own = recipe(position="last", method="pca", deltas=False)
    assert (every[0].method, every[0].position) == ("pca", "last")
    assert all_choices(own, n_layer, ("last", "prompt"), ())[0] == every[0]
    assert {choice.method for choice in every} == set(METHODS)
    assert {choice.position for choice in every} == {"last", "prompt"}
    assert all(1 <= layer < n_layer for choice in every for layer in choice.layers)
    assert {choice.deltas for choice in every if len(choice.layers) > 1} in ({True, False}, set())
    assert all(choice.deltas for choice in every[1:] if len(choice.layers) == 1)
    assert len({choice.layers for choice in every}) <= 25


@pytest.mark.parametrize(
    ("axis", "keys", "seen"),
    [
        ("method", {"method": "lda"}, {"lda"}),
        ("position", {}, {"last"}),
        ("deltas", {"deltas": False}, {False}),
    ],
)
def test_what_a_person_has_chosen_stays(axis: str, keys: dict[str, Any], seen: set[object]) -> None:
    """And the rest is open."""
    every = [choice for choice in choices(fixed=(axis,), **keys) if axis != "deltas" or len(choice.layers) > 1]
    assert {getattr(choice, axis) for choice in every} == seen
    for other in {"method", "position", "layers", "deltas"} - {axis}:
        assert len({getattr(choice, other) for choice in every}) > 1


def test_layers_that_a_person_has_chosen_are_chosen_among() -> None:
    """As the usual calibration does; those of the recipe alone are only one choice of many."""
    fixed = choices(fixed=("layers",), layers="3-5")
    assert {layer for choice in fixed for layer in choice.layers} == {3, 4, 5}
    assert fixed[0].layers == (3, 4, 5)
    free = choices(layers="3-5")
    assert {layer for choice in free for layer in choice.layers} == {1, 2, 3, 4, 5, 6}
    assert free[0].layers == (3, 4, 5)
    assert layers_to_read(recipe(layers="3-5"), N_LAYER, ("layers",)) == (3, 4, 5)
    assert layers_to_read(recipe(layers=[3, 7]), N_LAYER, ()) == (1, 2, 3, 4, 5, 6, 7)


def test_methods_that_need_pairs_do_not_go_with_every_token() -> None:
    """The two sides have different numbers of them."""
    every = all_choices(recipe(position="all"), N_LAYER, ("all", "last"), ())
    assert not any(METHODS[choice.method].needs_pairs for choice in every if choice.position == "all")
    assert any(METHODS[choice.method].needs_pairs for choice in every if choice.position == "last")


@pytest.mark.parametrize("most", [1, 2, 4, 31, 64])
@pytest.mark.parametrize("seed", [0, 7])
def test_what_is_drawn_is_spread_and_begins_with_the_recipe_s_own(most: int, seed: int) -> None:
    """Every method and position has its turn about equally often, whatever the seed; a smaller draw begins a larger."""
    every = choices()
    drawn = draw(every, most, seed)
    assert len(drawn) == len(set(drawn)) == most
    assert drawn[0] == every[0]
    assert draw(every, most, seed) == drawn
    assert draw(every, most + 5, seed)[:most] == drawn
    for marks in ([choice.method for choice in drawn], [choice.position for choice in drawn]):
        assert len(set(marks)) == min(most, 6 if marks[0] == "mean" else 2)
        assert max(Counter(marks).values()) - min(Counter(marks).values()) <= 3


def test_another_seed_draws_others_and_a_large_number_all() -> None:
    """Chance decides what is left out, and nothing is left out needlessly."""
    every = choices()
    assert draw(every, 20, 0) != draw(every, 20, 1)
    assert set(draw(every, 10_000, 0)) == set(every)


@pytest.mark.parametrize(
    ("contrast", "position", "found"),
    [
        (PERSONAS, "last", ["last", "prompt", "response"]),
        (PERSONAS, -1, ["-1", "prompt", "response"]),
        (PERSONAS, -2, ["-2", "last", "prompt", "response"]),
        (ANSWERED, "response", ["response", "last", "prompt"]),
        (SUFFIXES, "last", ["last"]),
        (SUFFIXES, "all", ["all", "last"]),
    ],
)
def test_positions_that_are_tried(contrast: dict[str, Any], position: str | int, found: list[str]) -> None:
    """The recipe's own first, and alone where a person has chosen it."""
    made = recipe(contrast, position=position)
    assert positions_to_try(made, ()) == found
    assert positions_to_try(made, ("position",)) == found[:1]


@pytest.mark.parametrize(
    ("contrast", "position", "expected"),
    [
        (PERSONAS, "last", True),
        (PERSONAS, "prompt", True),
        (PAIRS, "last", True),
        (ANSWERED, "response", True),
        (ANSWERED, "last", True),
        (ANSWERED, "prompt", False),
    ],
)
def test_a_place_before_anything_differs_tells_nothing(contrast: dict[str, Any], position: str, expected: bool) -> None:
    """Two answers to the same question have the same question in front of them."""
    made = recipe(contrast, position=position)
    assert tells_sides_apart(assemble(made, StandIn(), plan(made))) is expected


@pytest.mark.parametrize(
    ("choice", "name"),
    [
        (Choice("mean", "last", (3,), True), "mean at last, layer 3"),
        (Choice("lda", "-2", (3, 4, 5), True), "lda at -2, layers 3-5"),
        (Choice("pca", "prompt", (3, 5), False), "pca at prompt, layers 3,5, whole"),
    ],
)
def test_a_choice_is_named_in_words(choice: Choice, name: str) -> None:
    """For a table, a progress bar and the ledger."""
    assert choice.name == name
    assert layers_in_words(choice.layers) in name
