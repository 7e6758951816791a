"""From a recipe to pairs of token sequences, without a model."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from ggufsteer.errors import RecipeError
from ggufsteer.files.recipe import Recipe, make_recipe
from ggufsteer.tasks.contrast import Contrast, assemble, build_contrast
from ggufsteer.tasks.shapes import plan
from tests.tasks.stand_in import StandIn

PROMPTS = [
    f"Tell me about {topic}." for topic in ("tea", "bread", "rain", "snow", "music", "the sea", "cats", "trains")
]


def recipe(contrast: Mapping[str, Any], **keys: Any) -> Recipe:
    """Make a recipe of one contrast."""
    return make_recipe({"name": "test", "contrast": dict(contrast), **keys})


def personas(**keys: Any) -> dict[str, Any]:
    """Give a contrast of personas with some keys of its own."""
    return {"kind": "personas", "positive": ["happy"], "negative": ["sad"], "prompts": PROMPTS, **keys}


def build(contrast: Mapping[str, Any], **keys: Any) -> Contrast:
    """Plan and assemble on the stand-in."""
    wanted = recipe(contrast, **keys)
    return assemble(wanted, StandIn(), plan(wanted))


def test_product_takes_every_template_and_prompt() -> None:
    """Two templates, eight prompts and one pair of personas make sixteen pairs."""
    built = build(personas(templates=["Be {persona}.", "You are {persona}."]))
    assert built.n_pairs == 16


def test_product_cycles_the_shorter_list_of_personas() -> None:
    """One positive and three negative personas make three pairs a prompt, the positive one in each."""
    pairs = plan(recipe(personas(negative=["sad", "angry", ""], templates=["Be {persona}."])))
    assert [(pair.positive.system, pair.negative.system) for pair in pairs[:3]] == [
        ("Be happy.", "Be sad."),
        ("Be happy.", "Be angry."),
        ("Be happy.", ""),
    ]


def test_zip_takes_prompt_persona_and_template_by_number() -> None:
    """Prompt i meets persona i and template i, each list cycled."""
    pairs = plan(
        recipe(
            personas(positive=["glad", "gay"], templates=["Be {persona}.", "{persona}!", "So {persona}"], combine="zip")
        )
    )
    assert [pair.positive.system for pair in pairs] == [
        "Be glad.", "gay!", "So glad", "Be gay.", "glad!", "So gay", "Be glad.", "gay!",
    ]  # fmt: skip
    assert [pair.positive.text for pair in pairs] == PROMPTS


def test_both_sides_of_a_persona_pair_ask_the_same() -> None:
    """Only the system prompt differs."""
    for pair in plan(recipe(personas())):
        assert replace(pair.positive, system="") == replace(pair.negative, system="")


def test_braces_of_a_template_that_are_text_stay_text() -> None:
    """Doubled braces become single ones."""
    (pair, *_) = plan(recipe(personas(templates=["{{json}} {persona}"])))
    assert pair.positive.system == "{json} happy"


def test_response_pairs_are_read_without_the_persona() -> None:
    """The answer is asked for under the persona and read without it."""
    (pair, *_) = plan(recipe({**personas(), "kind": "responses"}))
    assert (pair.positive.asked_under, pair.positive.system) == ("You are happy.", "")


def test_response_pairs_can_keep_the_persona() -> None:
    """`keep_persona` leaves the system prompt there while the answer is read."""
    (pair, *_) = plan(recipe({**personas(), "kind": "responses", "keep_persona": True}))
    assert (pair.positive.asked_under, pair.positive.system) == ("You are happy.", "You are happy.")


def test_explicit_pairs_are_read_as_they_stand() -> None:
    """Plain pairs get no template and no system prompt."""
    built = build({"kind": "pairs", "pairs": [["I love it", "I hate it"]]})
    assert [side.text for side in (*built.positive, *built.negative)] == ["I love it", "I hate it"]


def test_explicit_pairs_can_be_user_messages() -> None:
    """With `chat` each side goes through the template."""
    built = build({"kind": "pairs", "chat": True, "pairs": [["I love it", "I hate it"]]})
    assert built.positive[0].text == "<|im_start|>user\nI love it<|im_end|>\n<|im_start|>assistant\n"


def test_given_answers_are_read_over_their_own_tokens() -> None:
    """Pairs with a prompt are read at the answer."""
    pair = {"prompt": "How is it?", "positive": "A joy", "negative": "A pain"}
    built = build({"kind": "pairs", "chat": True, "pairs": [pair]}, position="response")
    model = StandIn()
    model.tokenize(built.positive[0].text)
    side = built.positive[0]
    assert side.text.endswith("assistant\nA joy")
    assert side.rows == tuple(range(len(side.tokens) - 3, len(side.tokens)))


def test_a_held_out_prompt_is_in_no_training_pair() -> None:
    """All pairs of one prompt are on the same side of the split."""
    wanted = recipe(personas(templates=["Be {persona}.", "You are {persona}."]), holdout=0.4)
    built = assemble(wanted, StandIn(), plan(wanted))
    held = {pair.keys for pair, flag in zip(plan(wanted), built.held_out, strict=True) if flag}
    trained = {pair.keys for pair, flag in zip(plan(wanted), built.held_out, strict=True) if not flag}
    assert held
    assert not held & trained


def test_the_same_recipe_gives_the_same_contrast() -> None:
    """Planning is deterministic."""
    assert build(personas()) == build(personas())


def test_every_token_makes_rows_that_belong_to_no_pair() -> None:
    """Position `all` gives one observation a token."""
    assert not build(personas(), position="all").pooled


def test_sides_that_never_differ_are_refused() -> None:
    """A contrast without a difference is an error and not a vector of zeros."""

    class Deaf(StandIn):
        """Hears no difference between two words of five letters."""

        def tokenize(self, text: str, *, special: bool = True, add_start: bool = True) -> list[int]:
            return [len(word) for word in text.split()]

    wanted = recipe({"kind": "pairs", "pairs": [["happy tea", "angry tea"]]})
    with pytest.raises(RecipeError, match="no difference"):
        build_contrast(wanted, Deaf())  # type: ignore[arg-type]  # nothing but tokens is asked of it


def test_a_position_that_is_not_there_names_the_pair() -> None:
    """The error says which pair is too short."""
    wanted = recipe({"kind": "pairs", "pairs": [["a b c d", "a b c e"], ["f", "g"]]}, position=-3)
    with pytest.raises(RecipeError, match=r"'test': pair 2: position -3"):
        assemble(wanted, StandIn(), plan(wanted))


def test_too_few_prompts_for_a_hold_out_are_said() -> None:
    """Nobody is told that a vector separates when nothing was held out."""
    wanted = recipe({"kind": "pairs", "pairs": [["I love it", "I hate it"]]})
    built = build_contrast(wanted, StandIn())  # type: ignore[arg-type]  # nothing but tokens is asked of it
    assert "hold any out" in built.warnings[0]


SUFFIXES = {
    "kind": "suffixes",
    "template": "Act as if you are {persona}. {suffix}",
    "positive": ["happy"],
    "negative": ["very sad"],
    "suffixes": ["I went to the park", "It is"],
}


def test_every_cut_of_a_suffix_is_read() -> None:
    """A suffix of nine tokens gives nine rows on both sides, which lie on the same words."""
    built = build(SUFFIXES)
    assert (built.n_pairs, built.pooled) == (2, False)
    for positive, negative in zip(built.positive, built.negative, strict=True):
        ours = [positive.tokens[row] for row in positive.rows]
        assert ours == [negative.tokens[row] for row in negative.rows]
    assert [len(side.rows) for side in built.positive] == [9, 3]


def test_text_after_the_suffix_makes_every_cut_a_text_of_its_own() -> None:
    """A template that goes on after the suffix is run once for each cut."""
    built = build({**SUFFIXES, "template": "As {persona}: {suffix} END", "suffixes": ["I went home"]})
    assert [side.text for side in built.positive] == [
        "As happy: I END",
        "As happy: I  END",
        "As happy: I went END",
        "As happy: I went  END",
        "As happy: I went home END",
    ]
    assert built.pooled


def test_all_cuts_of_a_suffix_are_held_out_together() -> None:
    """Cuts of one text are nearly the same text."""
    suffixes = [f"number {word} of many" for word in ("one", "two", "three", "four", "five")]
    built = build({**SUFFIXES, "template": "As {persona}: {suffix} END", "suffixes": suffixes}, holdout=0.4)
    by_suffix: dict[str, set[bool]] = {}
    for side, flag in zip(built.positive, built.held_out, strict=True):
        longest = max((suffix for suffix in suffixes if side.text[10:-4].strip() in suffix), key=len)
        if len(side.text) > 25:
            by_suffix.setdefault(longest, set()).add(flag)
    assert by_suffix
    assert all(len(flags) == 1 for flags in by_suffix.values())


@pytest.mark.parametrize("template", [SUFFIXES["template"], "As {persona}: {suffix} END"])
def test_a_held_out_cut_is_never_one_of_training(template: str) -> None:
    """Suffixes that begin alike have the same first cuts: these are judged on by none."""
    suffixes = [f"{first} {word} of many" for first in ("number", "figure") for word in ("one", "two", "three", "four")]
    built = build({**SUFFIXES, "template": template, "suffixes": suffixes}, holdout=0.4)
    texts: dict[bool, set[tuple[int, ...]]] = {True: set(), False: set()}
    for pair, flag in zip(built.sides, built.held_out, strict=True):
        assert len(pair[0].rows) == len(pair[1].rows)
        texts[flag] |= {side.tokens[: row + 1] for side in pair for row in side.rows}
    assert texts[True]
    assert texts[False]
    assert not texts[True] & texts[False]
