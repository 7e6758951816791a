"""A real model that nobody here trained: happy against sad shifts the odds of words on prompts it was not made from."""

import itertools

import numpy as np
import pytest

from ggufsteer.engine.model import Model
from ggufsteer.engine.score import log_probabilities
from ggufsteer.engine.steer import steered
from ggufsteer.files.recipe import make_recipe
from ggufsteer.tasks.answer import answers
from ggufsteer.tasks.extract import Extraction, extract

NAMES = ("Tom", "Lily", "Ben", "Mia", "Sam", "Anna", "Max", "Sue", "Tim", "Amy")
DOINGS = (
    "came home", "went to the park", "sat in the garden", "saw the big dog", "opened the box", "looked at the sky",
    "played with the ball", "walked to the shop", "ate the cake", "found a toy", "sat by the tree", "read the book",
    "met a friend", "got a letter",
)  # fmt: skip
PAIRS = [
    [f"{name} {doing} and was so {mood}." for mood in ("happy", "sad")]
    for name, doing in itertools.product(NAMES, DOINGS)
]
UNSEEN_PROMPTS = (
    "Once upon a time, there was a girl named Rose. She felt very",
    "The little cat ran into the house. The cat was",
    "Jack and his mom walked along the river. Jack was so",
    "It was raining. The old man was",
)
STRENGTHS = (-2.0, -1.0, 0.0, 1.0, 2.0)


@pytest.fixture(scope="module")
def happy(stories: Model) -> Extraction:
    """Happy minus sad at the last token, whole differences at all layers, as in the model's own notes."""
    contrast = {"kind": "pairs", "pairs": PAIRS}
    table = {"name": "happy", "layers": (1, 2, 3, 4), "deltas": False, "position": "last", "contrast": contrast}
    return extract(make_recipe(table), stories)


def log_odds(model: Model, prompts: tuple[str, ...]) -> float:
    """Give log p(" happy") - log p(" sad") after the prompts, averaged."""
    sequences, starts = [], []
    for prompt, word in itertools.product(prompts, (" happy", " sad")):
        starts.append(len(model.tokenize(prompt)))
        sequences.append(model.tokenize(prompt + word))
    scores = [float(score.sum()) for score in log_probabilities(model, sequences, starts=starts)]
    return float(np.mean(scores[::2]) - np.mean(scores[1::2]))


def test_log_odds_rise_with_strength_on_unseen_prompts(stories: Model, happy: Extraction) -> None:
    """The log-odds of " happy" over " sad" rise at every step from -2 to 2, by about one a unit of strength."""
    odds = []
    for strength in STRENGTHS:
        with steered(stories, [(happy.vector, strength)]):
            odds.append(log_odds(stories, UNSEEN_PROMPTS))
    assert np.all(np.diff(odds) > 0), odds
    slope = float(np.polyfit(STRENGTHS, odds, 1)[0])
    assert 0.3 < slope < 3.0, odds


def test_the_sides_are_told_apart_on_held_out_pairs(happy: Extraction) -> None:
    """A real concept separates names and places that the vector was not made from."""
    assert happy.n_held_out == 35
    assert max(layer.auc or 0.0 for layer in happy.layers) > 0.95
    assert not happy.warnings


def test_answers_change_with_strength_and_come_back(stories: Model, happy: Extraction) -> None:
    """Steering changes the continuation, and strength 0 is the model as it is, before and after."""
    said = answers(stories, happy.vector, "Tom was very", (0.0, 2.0, -2.0, 0.0), max_tokens=12)
    assert said[0].text == said[3].text
    assert len({answer.text for answer in said}) == 3
