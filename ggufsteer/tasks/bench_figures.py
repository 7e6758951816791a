"""The numbers of a speed measurement: means and spreads as llama-bench gives them, and ratios of paired runs.

Two ways that took turns share the drift of the machine, so each pair of their times has a ratio of its own. Its median
holds where single runs were disturbed, and its noise says how far it can be trusted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, quantiles, stdev

_NORMAL_QUARTILES = 1.349
"""The distance between the quartiles of a normal distribution, in standard deviations."""
_MEDIAN_FACTOR = math.sqrt(math.pi / 2)
"""How much less sure a median is than a mean, for a normal distribution."""


@dataclass(frozen=True)
class Spread:
    """A mean, and the standard deviation of a sample; 0 where there is only one value."""

    mean: float
    deviation: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Take the values, at least one."""
        return cls(mean(values), stdev(values) if len(values) > 1 else 0.0)


@dataclass(frozen=True)
class Ratio:
    """How many times as fast the one is as the other."""

    median: float
    low: float | None
    """The lower quartile of the pairs; None where there is one pair only."""
    high: float | None
    error: float | None
    """The standard error of the median."""
    pairs: int


def paired_ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """Compare times that were taken by turns.

    Args:
        ours: What each run took.
        theirs: What the run beside it took, in the same unit.

    Returns:
        Their time by ours: above 1 where ours is faster.

    >>> paired_ratio([2.0, 2.0, 4.0], [1.0, 1.0, 2.0])
    Ratio(median=0.5, low=0.5, high=0.5, error=0.0, pairs=3)
    """
    shares = [their / our for our, their in zip(ours, theirs, strict=True)]
    if len(shares) < 2:
        return Ratio(shares[0], None, None, None, 1)
    low, middle, high = quantiles(shares, n=4, method="inclusive")
    error = _MEDIAN_FACTOR * (high - low) / _NORMAL_QUARTILES / math.sqrt(len(shares))
    return Ratio(middle, low, high, error, len(shares))


def ratio_error(first: Spread, n_first: int, second: Spread, n_second: int) -> float | None:
    """Give the standard error of a quotient of two means that were not taken by turns; None where a run stands alone.

    To first order: the quotient times √(s₁²/(n₁·m₁²) + s₂²/(n₂·m₂²)).
    """
    if min(n_first, n_second) < 2 or not first.mean or not second.mean:
        return None
    shares = [(one.deviation / one.mean) ** 2 / count for one, count in ((first, n_first), (second, n_second))]
    return abs(first.mean / second.mean) * math.sqrt(sum(shares))
