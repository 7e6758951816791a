"""How large an effect chance makes: vectors without any meaning, measured like the one that is judged.

A direction of noise moves all items alike, so an interval over the items alone is too narrow for it: it says how well
the effect of this very direction is known, not whether another one would have had it too. On the demo model, vectors
made from shuffled labels (the sides of half of the training pairs swapped) pass an interval over the items alone in 5
of 12 draws for "happy" and in 2 of 10 for "french". Their effects at equal damage (root mean square of 40: 0.075 nats a
token for "happy") are those of random directions (0.086), and mixtures of the model's own states do no better.

At a vector's size random directions do a twentieth of its damage, and answer in proportion (what plus and minus have in
common is a quarter of what they differ by), so that one sign tells the other. Then many directions on few items are the
better bargain: eight on 6 items and 4 texts, with one damage for all, leave 0.4 % ("happy") and 2.7 % ("formal") of
shuffled vectors that pass; four on 12 items and 12 texts, both signs, leave 0.8 % and 4.6 % for twice the work.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]

N_CHANCE = 8
_T_FACTORS = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 8: 2.306}
"""97.5 % points of Student's t; the mean of chance is 0 by symmetry, so there are as many degrees as vectors."""
_SMALLEST_DAMAGE = 1e-4
"""Below, a divergence is rounding."""


def chance_rows(rows: Float32, seed: int) -> Iterator[Float32]:
    """Give random vectors with the same length at each layer, (n_layer - 1, n_embd) each."""
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    for number in range(N_CHANCE):
        drawn = np.random.default_rng([seed, number]).standard_normal(rows.shape)
        yield (lengths * drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


def at_equal_damage(effect: float, damage: float, budget: float) -> float:
    """Give what an effect would be at another damage: it grows with the strength, the divergence with its square."""
    return effect * math.sqrt(budget / damage) if damage > _SMALLEST_DAMAGE else 0.0


def size_of_chance(effects: Sequence[float]) -> float:
    """Give what 95 % of the effects of chance stay below, from those of some vectors of chance.

    >>> round(size_of_chance([0.1, -0.1, 0.1, -0.1]), 4)
    0.2776
    """
    return _T_FACTORS[len(effects)] * math.sqrt(sum(effect**2 for effect in effects) / len(effects))


def widened(effect: float, interval: tuple[float, float], chance: float) -> tuple[float, float]:
    """Widen an interval on both sides by what chance does, as independent errors add up.

    >>> widened(1.0, (0.7, 1.3), 0.4)
    (0.5, 1.5)
    """
    low, high = interval
    return effect - math.hypot(effect - low, chance), effect + math.hypot(high - effect, chance)
