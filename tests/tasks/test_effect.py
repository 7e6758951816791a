"""Effect and damage of a steering: zero for none, mirrored for turned vectors, and what a prompt does beside them."""

import numpy as np
import pytest

from ggufsteer.engine.measurement import ScoredText
from ggufsteer.engine.model import Model
from ggufsteer.engine.score import log_probabilities
from ggufsteer.tasks import effect as effect_module
from ggufsteer.tasks.effect import NONE, EffectMeasurement
from ggufsteer.tasks.items import Item, Items
from ggufsteer.tasks.passages import Passage, chat_text, encode_text

ASKED = [
    Item(
        Passage(f"What of {thing}?", chat=True, answer=f"A joy, my {thing}!"),
        Passage(f"What of {thing}?", chat=True, answer=f"{thing}, sadly."),
    )
    for thing in ("tea", "rain", "snow")
]
BARE = [Item(Passage(f"{name} was so happy."), Passage(f"{name} was so sad.")) for name in ("Tom", "Mia")]
NEUTRAL = [ScoredText((70, 20, 33, 9, 111, 4, 250), 1), ScoredText((41, 42, 43, 44, 45), 1)]


def rows_of(model: Model, size: float = 1.0, seed: int = 0) -> np.ndarray:
    """Something to add to each layer. # (n_layer - 1, n_embd)"""
    made = np.random.default_rng(seed).standard_normal((model.n_layer - 1, model.n_embd))
    rows: np.ndarray = (size * made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)
    return rows


def turned(items: list[Item]) -> list[Item]:
    """The same items with their sides changed."""
    return [Item(item.negative, item.positive) for item in items]


@pytest.fixture(scope="module")
def measurement(tiny: Model) -> EffectMeasurement:
    """Items of both kinds, neutral text and the model's own answers."""
    return EffectMeasurement(tiny, Items((*ASKED, *BARE), "made up"), NEUTRAL)


def test_no_steering_does_no_damage(measurement: EffectMeasurement, tiny: Model) -> None:
    """Rows of zeros give the unsteered model's log-odds bit for bit, on neutral text and on its own answers."""
    plain, nothing = measurement.unsteered(), measurement.under(0 * rows_of(tiny))
    assert np.array_equal(plain.log_odds, nothing.log_odds)
    for damage in (plain.neutral, nothing.neutral, plain.own, nothing.own):
        assert damage is not None
        assert damage == NONE


def test_log_odds_are_differences_of_means(measurement: EffectMeasurement, tiny: Model) -> None:
    """Of the log-probabilities that the engine gives each side's tokens, so that length counts for nothing."""
    expected = []
    for item in [*ASKED, *BARE]:
        scored = item.scored(tiny)
        assert scored is not None
        positive, negative = log_probabilities(
            tiny, [text.tokens for text in scored], starts=[text.start for text in scored]
        )
        expected.append(positive.mean() - negative.mean())
    assert measurement.unsteered().log_odds == pytest.approx(np.array(expected), abs=1e-3)


def test_turned_items_have_turned_log_odds(measurement: EffectMeasurement, tiny: Model) -> None:
    """Bit for bit, under any steering; the damage asks nothing of the items."""
    rows = rows_of(tiny, 2.0)
    other = EffectMeasurement(tiny, turned([*ASKED, *BARE]), NEUTRAL, with_own=False).under(rows)
    same = measurement.under(rows)
    assert other.log_odds == pytest.approx(-same.log_odds, abs=1e-3)
    assert other.neutral.p95 == pytest.approx(same.neutral.p95, rel=1e-2)


def test_a_small_vector_and_its_mirror_have_opposite_effects_and_equal_damage(
    measurement: EffectMeasurement, tiny: Model
) -> None:
    """To first order the effect, to second order the damage."""
    rows, plain = rows_of(tiny, 0.1), measurement.unsteered().log_odds
    ahead, back = measurement.under(rows), measurement.under(-rows)
    there, otherwise = ahead.log_odds - plain, back.log_odds - plain
    assert np.abs(there).max() > 0.003
    assert np.abs(there + otherwise).max() < 0.3 * np.abs(there).max()
    assert back.neutral.mean == pytest.approx(ahead.neutral.mean, rel=0.2)


def test_damage_grows_with_the_square_of_small_strengths(measurement: EffectMeasurement, tiny: Model) -> None:
    """On neutral text and on the model's own answers."""
    once, twice = measurement.under(rows_of(tiny, 0.2)), measurement.under(rows_of(tiny, 0.4))
    assert twice.neutral.mean / once.neutral.mean == pytest.approx(4, rel=0.2)
    assert once.own is not None
    assert twice.own is not None
    assert twice.own.mean / once.own.mean == pytest.approx(4, rel=0.3)
    assert once.neutral.mean < once.neutral.p95


def test_own_answers_lose_likelihood(measurement: EffectMeasurement, tiny: Model) -> None:
    """They are the greedy ones, so whatever moves the model makes them less likely."""
    own = measurement.under(rows_of(tiny, 4.0)).own
    assert own is not None
    assert own.perplexity_ratio > 1.05


def test_each_question_is_answered_once(tiny: Model) -> None:
    """By the unsteered model, however many items ask it, and by none where texts are bare."""
    twice = EffectMeasurement(tiny, [*ASKED[:1], *turned(ASKED[:1])], NEUTRAL)
    once = EffectMeasurement(tiny, ASKED[:1], NEUTRAL)
    repeated, single = twice.under(rows_of(tiny)).own, once.under(rows_of(tiny)).own
    assert repeated is not None
    assert single is not None
    assert repeated.p95 == pytest.approx(single.p95, rel=1e-2)
    assert EffectMeasurement(tiny, BARE, NEUTRAL).under(rows_of(tiny)).own is None
    assert EffectMeasurement(tiny, ASKED, NEUTRAL, with_own=False).under(rows_of(tiny)).own is None


@pytest.mark.parametrize("rows", [0.0, 3.0])
def test_parts_may_be_missing(tiny: Model, rows: float) -> None:
    """Without neutral text there is no damage, without items no log-odds."""
    without_neutral = EffectMeasurement(tiny, ASKED, ()).under(rows_of(tiny, rows))
    assert without_neutral.neutral == NONE
    assert len(without_neutral.log_odds) == len(ASKED)
    without_items = EffectMeasurement(tiny, (), NEUTRAL).under(rows_of(tiny, rows))
    assert without_items.log_odds.size == 0
    assert without_items.own is None


def test_a_prompt_changes_items_and_own_answers(measurement: EffectMeasurement, tiny: Model) -> None:
    """Its damage is on answers that the plain model gave; bare texts do not meet it."""
    log_odds, damage = measurement.prompted("Speak of nothing but joy.")
    plain = measurement.unsteered().log_odds
    n_asked = len(ASKED)
    assert np.abs(log_odds - plain)[:n_asked].max() > 0.01
    assert log_odds[n_asked:] == pytest.approx(plain[n_asked:], abs=1e-3)
    assert damage is not None
    assert damage.p95 > damage.mean > 0.01


def test_no_prompt_is_the_plain_model(measurement: EffectMeasurement) -> None:
    """An empty one changes nothing."""
    log_odds, damage = measurement.prompted("")
    assert log_odds == pytest.approx(measurement.unsteered().log_odds, abs=1e-3)
    assert damage is not None
    assert damage.p95 == pytest.approx(0, abs=1e-4)
    assert damage.perplexity_ratio == pytest.approx(1, abs=1e-3)


def test_a_prompt_has_no_damage_where_nothing_was_answered(tiny: Model) -> None:
    """Bare texts have no answers."""
    log_odds, damage = EffectMeasurement(tiny, BARE, NEUTRAL).prompted("Speak of joy.")
    assert len(log_odds) == len(BARE)
    assert damage is None


def test_what_does_not_fit_into_memory_is_left_out_from_the_end(tiny: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Own answers take a third at most, neutral text the rest, each one text at least."""
    monkeypatch.setattr(effect_module, "most_followed", lambda _: 8)
    assert EffectMeasurement(tiny, BARE, NEUTRAL).n_neutral_tokens == len(NEUTRAL[0])
    monkeypatch.setattr(effect_module, "most_followed", lambda _: 10)
    assert EffectMeasurement(tiny, BARE, NEUTRAL).n_neutral_tokens == sum(map(len, NEUTRAL))
    monkeypatch.setattr(effect_module, "most_followed", lambda _: 1)
    smallest = EffectMeasurement(tiny, ASKED, NEUTRAL)
    assert smallest.n_neutral_tokens == len(NEUTRAL[0])
    assert smallest.under(rows_of(tiny)).own is not None


def test_evaluations_are_counted(tiny: Model) -> None:
    """The unsteered model counts once, however often it is asked for."""
    counted = EffectMeasurement(tiny, BARE, NEUTRAL)
    counted.unsteered()
    counted.unsteered()
    counted.under(rows_of(tiny))
    counted.under(rows_of(tiny, 2.0))
    assert counted.evaluations == 3
    text = encode_text(tiny, chat_text(tiny, "What of tea?"))
    assert counted.n_distinct < 10 * len(text)


def test_a_part_has_fewer_items_and_texts_and_the_same_numbers(measurement: EffectMeasurement, tiny: Model) -> None:
    """Items from the first to the last, texts from the start, no own answers; the unsteered model costs nothing."""
    part = measurement.part(3, 1)
    assert part.items == (ASKED[0], ASKED[2], BARE[1])
    assert part.n_neutral_tokens == len(NEUTRAL[0])
    assert part.unsteered().log_odds == pytest.approx(measurement.unsteered().log_odds[[0, 2, 4]])
    assert part.n_computed == 0
    found, whole = part.under(rows_of(tiny)), measurement.under(rows_of(tiny))
    assert found.log_odds == pytest.approx(whole.log_odds[[0, 2, 4]], abs=1e-3)
    assert found.own is None
    assert 0 < part.n_computed == part.n_distinct < measurement.n_distinct
    assert measurement.part(0, 2).under(rows_of(tiny)).neutral.p95 == pytest.approx(whole.neutral.p95, rel=1e-2)


def test_items_that_cannot_be_scored_take_nobody_s_place(tiny: Model) -> None:
    """Their neighbours keep their own log-odds, and neutral text its damage."""
    useless = Item(Passage("Tom sang."), Passage("Tom sang."))
    mixed = EffectMeasurement(tiny, [BARE[0], useless, BARE[1]], NEUTRAL).under(rows_of(tiny))
    plain = EffectMeasurement(tiny, BARE, NEUTRAL).under(rows_of(tiny))
    assert mixed.log_odds == pytest.approx(plain.log_odds, abs=1e-3)
    assert mixed.neutral.p95 == pytest.approx(plain.neutral.p95, rel=1e-2)
