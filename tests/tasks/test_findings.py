"""What is told of a layer is told of what is added there: planted states that one direction tells apart."""

import numpy as np
import pytest

from ggufsteer.maths.statistics import separation
from ggufsteer.tasks.findings import Findings, findings_of_states, judged_rows
from tests.maths.planted import plant

LAYERS = (2, 3, 5)


def sets_of(n_held_out: int = 12) -> dict[str, np.ndarray]:
    """Planted states of three layers, some of them held out. # (observations, layers, embd)"""
    made = plant(seed=0, pairs=40, layers=len(LAYERS), width=16, gap=4.0, noise=0.5, paired=False)
    kept = len(made.positive) - n_held_out
    return {
        "positive": made.positive[:kept],
        "negative": made.negative[:kept],
        "held_out_positive": made.positive[kept:],
        "held_out_negative": made.negative[kept:],
    }


def found_in(sets: dict[str, np.ndarray]) -> Findings:
    """By the difference of the means."""
    return findings_of_states("mean", 0, sets)


def test_a_layer_is_judged_by_what_is_added_there() -> None:
    """On the states that were held out; layers to which nothing is added keep what was known of their direction."""
    sets = sets_of()
    findings = found_in(sets)
    added = np.random.default_rng(0).standard_normal((2, 16)).astype(np.float32)
    judged = judged_rows(findings, LAYERS, {5: added[1], 2: added[0]}, sets).judged
    expected = separation(added, *(sets[name][:, [0, 2]] for name in ("held_out_positive", "held_out_negative")))
    assert judged is not None
    assert findings.judged is not None
    assert judged.auc[[0, 2]] == pytest.approx(expected.auc)
    assert judged.d_prime[[0, 2]] == pytest.approx(expected.d_prime)
    assert (judged.auc[1], judged.d_prime[1]) == (findings.judged.auc[1], findings.judged.d_prime[1])


def test_a_direction_turned_round_tells_the_sides_apart_the_wrong_way() -> None:
    """And the direction itself, of whatever length, as it did before; what was given stays as it is."""
    sets = sets_of()
    findings = found_in(sets)
    assert findings.judged is not None
    before = findings.judged.auc.copy()
    rows = {2: 7 * findings.directions[0], 3: -findings.directions[1]}
    judged = judged_rows(findings, LAYERS, rows, sets).judged
    assert judged is not None
    assert judged.auc == pytest.approx([before[0], 1 - before[1], before[2]])
    assert np.array_equal(findings.judged.auc, before)
    assert before.min() > 0.6


def test_without_held_out_states_nothing_is_judged() -> None:
    """The findings come back as they are."""
    sets = sets_of(0)
    findings = found_in(sets)
    assert findings.judged is None
    assert judged_rows(findings, LAYERS, {2: findings.directions[0]}, sets) is findings


def test_all_else_that_was_found_stays() -> None:
    """Directions, lengths and means."""
    sets = sets_of()
    findings = found_in(sets)
    judged = judged_rows(findings, LAYERS, {3: -findings.directions[1]}, sets)
    for name in ("directions", "state_norms", "means"):
        assert getattr(judged, name) is getattr(findings, name)
