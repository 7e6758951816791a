"""Where thinking begins and ends, whatever the pieces are that a text comes in."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from ggufsteer.engine.thoughts import ThoughtTracker


def inside_by_character(text: str, pieces: list[str], prompt: str = "") -> list[bool]:
    """Say for each character of a text whether its piece began inside of the block of thoughts."""
    tracker, labels = ThoughtTracker(prompt), []
    for piece in pieces:
        labels += [tracker.inside] * len(piece)
        tracker.feed(piece)
    assert "".join(pieces) == text
    return labels


def test_a_block_lasts_from_behind_its_opening_to_behind_its_closing() -> None:
    """The closing tag still belongs to it, what follows does not."""
    text = "Hm. <think>so and so</think>Yes."
    labels = inside_by_character(text, list(text))
    thought = "".join(character for character, label in zip(text, labels, strict=True) if label)
    assert thought == "so and so</think>"


@given(st.lists(st.integers(0, 30), max_size=6))
def test_the_division_into_pieces_does_not_matter(cuts: list[int]) -> None:
    """After the whole text the state is the same, however it was cut."""
    text = "a<think>b</think>c<think>d"
    bounds = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    tracker = ThoughtTracker()
    for start, stop in pairwise(bounds):
        tracker.feed(text[start:stop])
    assert tracker.inside
    tracker.feed("e</think>")
    assert not tracker.inside


def test_a_template_may_open_the_block_itself() -> None:
    """An answer then begins inside of it."""
    tracker = ThoughtTracker("<|im_start|>assistant\n<think>\n")
    assert tracker.inside
    tracker.feed("well</think>")
    assert not tracker.inside


def test_another_kind_of_tag_does_not_close() -> None:
    """Only the tag that belongs to the opening one ends the block."""
    tracker = ThoughtTracker()
    tracker.feed("[THINK] a </think> b")
    assert tracker.inside
    tracker.feed("[/THINK]")
    assert not tracker.inside
