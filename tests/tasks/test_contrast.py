"""From a recipe to pairs of token sequences, without a model."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from ggufsteer.errors import RecipeError
from ggufsteer.files.recipe import Recipe, make_recipe
from ggufsteer.tasks import contrast as contrast_module
from ggufsteer.tasks.contrast import Contrast, assemble, build_contrast
from ggufsteer.tasks.shapes import plan
from ggufsteer.tasks.sides import SidePair, Sides
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


def read(contrast: Mapping[str, Any], **keys: Any) -> list[SidePair]:
    """Give the sides that are read of each pair, texts included."""
    wanted = recipe(contrast, **keys)
    return list(Sides(wanted, StandIn(), plan(wanted)))


def test_product_takes_every_template_and_prompt() -> None:
    """Two templates, eight prompts and one pair of personas make sixteen pairs."""
    built = build(personas(templates=["Be {persona}.", "You are {persona}."]))
    assert built.n_pairs == 16


def test_product_cycles_the_shorter_list_of_personas() -> None:
    """One positive and three negative personas make three pairs a prompt, the positive one in each."""
    pairs = plan(recipe(personas(negative=["sad", "angry", ""], templates=["Be {persona}."])))
    assert [(pair.positive.system, pair.negative.system) for pair in list(pairs)[:3]] == [
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
    (pair,) = read({"kind": "pairs", "pairs": [["I love it", "I hate it"]]})
    assert [side.text for side in (pair.positive, pair.negative)] == ["I love it", "I hate it"]


def test_explicit_pairs_can_be_user_messages() -> None:
    """With `chat` each side goes through the template."""
    (pair,) = read({"kind": "pairs", "chat": True, "pairs": [["I love it", "I hate it"]]})
    assert pair.positive.text == "<|im_start|>user\nI love it<|im_end|>\n<|im_start|>assistant\n"


def test_given_answers_are_read_over_their_own_tokens() -> None:
    """Pairs with a prompt are read at the answer."""
    pair = {"prompt": "How is it?", "positive": "A joy", "negative": "A pain"}
    (both,) = read({"kind": "pairs", "chat": True, "pairs": [pair]}, position="response")
    side = both.positive
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
    first, second = build(personas()), build(personas())
    for one, other in ((first.positive, second.positive), (first.negative, second.negative)):
        assert list(one) == list(other)
    assert first.held_out.tolist() == second.held_out.tolist()


def test_the_packed_tokens_are_those_of_the_sides() -> None:
    """Nothing is lost or mixed up between the two sides, and a plan may be gone through again."""
    built, pairs = build(personas(), position="prompt"), read(personas(), position="prompt")
    for packed, sides in (
        (built.positive, [pair.positive for pair in pairs]),
        (built.negative, [pair.negative for pair in pairs]),
    ):
        assert [(one.tokens, one.rows) for one in packed] == [(side.tokens, side.rows) for side in sides]
    assert built.held_out.tolist() == [pair.planned.held_out for pair in pairs]
    assert built.n_held_out == sum(pair.planned.held_out for pair in pairs) > 0


def test_equal_texts_are_counted_once() -> None:
    """Four pairs with the same negative text have five different texts, of three tokens and a start token each."""
    built = build({"kind": "pairs", "pairs": [[f"very {word}", "very bad"] for word in ("a", "b", "c", "d")]})
    assert built.n_tokens == 5 * 4


def test_pairs_without_a_difference_in_their_tokens_are_counted() -> None:
    """Texts may differ where the tokens do not."""

    class Brief(StandIn):
        """Hears only how long a word is."""

        def tokenize(self, text: str, *, special: bool = True, add_start: bool = True) -> list[int]:
            return [len(word) for word in text.split()]

    wanted = recipe({"kind": "pairs", "pairs": [["happy tea", "angry tea"], ["happy tea", "sad tea"]]})
    built = assemble(wanted, Brief(), plan(wanted))
    assert built.n_same == 1
    assert built.warnings == ("1 of 2 pairs are the same on both sides: they only make the vector shorter",)


def test_more_tokens_than_were_reserved_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory that a side begins with is no limit."""
    wanted = build(personas(), position="all")
    monkeypatch.setattr(contrast_module, "RESERVED", 3)
    small = build(personas(), position="all")
    assert list(small.positive) == list(wanted.positive)
    assert list(small.negative) == list(wanted.negative)


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
    contrast = {**SUFFIXES, "template": "As {persona}: {suffix} END", "suffixes": ["I went home"]}
    assert [pair.positive.text for pair in read(contrast)] == [
        "As happy: I END",
        "As happy: I  END",
        "As happy: I went END",
        "As happy: I went  END",
        "As happy: I went home END",
    ]
    assert build(contrast).pooled


def test_all_cuts_of_a_suffix_are_held_out_together() -> None:
    """Cuts of one text are nearly the same text."""
    suffixes = [f"number {word} of many" for word in ("one", "two", "three", "four", "five")]
    by_suffix: dict[str, set[bool]] = {}
    for pair in read({**SUFFIXES, "template": "As {persona}: {suffix} END", "suffixes": suffixes}, holdout=0.4):
        text = pair.positive.text
        longest = max((suffix for suffix in suffixes if text[10:-4].strip() in suffix), key=len)
        if len(text) > 25:
            by_suffix.setdefault(longest, set()).add(pair.planned.held_out)
    assert by_suffix
    assert all(len(flags) == 1 for flags in by_suffix.values())


@pytest.mark.parametrize("template", [SUFFIXES["template"], "As {persona}: {suffix} END"])
def test_a_held_out_cut_is_never_one_of_training(template: str) -> None:
    """Suffixes that begin alike have the same first cuts: these are judged on by none."""
    suffixes = [f"{first} {word} of many" for first in ("number", "figure") for word in ("one", "two", "three", "four")]
    built = build({**SUFFIXES, "template": template, "suffixes": suffixes}, holdout=0.4)
    texts: dict[bool, set[tuple[int, ...]]] = {True: set(), False: set()}
    for positive, negative, flag in zip(built.positive, built.negative, built.held_out.tolist(), strict=True):
        assert len(positive.rows) == len(negative.rows)
        texts[flag] |= {side.tokens[: row + 1] for side in (positive, negative) for row in side.rows}
    assert texts[True]
    assert texts[False]
    assert not texts[True] & texts[False]


def test_cuts_of_which_every_token_is_read_stay_whole() -> None:
    """A held-out cut is judged by where it ends: all of its tokens are read, or the whole cut is left out."""
    suffixes = [f"{first} {word} of many" for first in ("number", "figure") for word in ("one", "two", "three", "four")]
    pairs = read({**SUFFIXES, "suffixes": suffixes}, holdout=0.4, position="all")
    assert len(pairs) < sum(len(suffix.split()) * 2 - 1 for suffix in suffixes)
    for pair in pairs:
        assert pair.positive.rows == tuple(range(1, len(pair.positive.tokens)))
