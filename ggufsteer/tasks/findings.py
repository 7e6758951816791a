"""What is known of a concept: its directions, how well they tell held-out pairs apart, and where states lie."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ggufsteer.maths.directions import Directions, Rows, compute
from ggufsteer.maths.statistics import Separation, evenly_spread, separation, state_norms
from ggufsteer.tasks.observations import NEUTRAL


@dataclass(frozen=True, eq=False)
class Findings:
    """What was found in the states of one contrast."""

    directions: Directions
    """(layers, n_embd), of natural size, `+` towards the positive side."""
    judged: Separation | None
    """How well they tell the held-out observations apart; None where none are held out."""
    state_norms: NDArray[np.float32]
    """Median length of the model's own states. # (layers,)

    As exact as the states themselves: the digits after that depend on the order in which squares are added.
    """
    means: NDArray[np.float64]
    """Mean state of the training observations, of the negative side and then of the positive. # (2, layers, n_embd)"""

    def at(self, places: Sequence[int]) -> Findings:
        """Keep some of the layers, by their places."""
        judged = self.judged and Separation(self.judged.auc[places], self.judged.d_prime[places])
        return Findings(self.directions[places], judged, self.state_norms[places], self.means[:, places])

    def class_means(self, directions: Directions) -> list[tuple[float, float]]:
        """Say where the negative and the positive side lie along each layer's direction, whatever its length.

        A direction without length gives zeros.
        """
        rows = directions.astype(np.float64)
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        units = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)
        negative, positive = (self.means * units).sum(axis=2)
        return list(zip(negative.tolist(), positive.tolist(), strict=True))


def findings_of_states(method: str, seed: int, sets: Mapping[str, Rows]) -> Findings:
    """Compute directions from states that are all there, in memory or on disk.

    Args:
        method: A key of the table of methods.
        seed: For the methods that need one.
        sets: The states (observations, layers, n_embd) of each set; see `ggufsteer.tasks.observations`.

    Raises:
        SteerError: See `ggufsteer.maths.directions.compute`.
    """
    neutral = sets.get(NEUTRAL)
    directions = compute(
        method,
        sets["positive"],
        sets["negative"],
        neutral=neutral if neutral is not None and len(neutral) else None,
        seed=seed,
    )
    positive, negative = sets["held_out_positive"], sets["held_out_negative"]
    judged = separation(directions, positive, negative) if len(positive) and len(negative) else None
    norms = state_norms(_spread_over([sets[name] for name in sets if name != NEUTRAL]))
    means = np.stack([sets[name].mean(axis=0, dtype=np.float64) for name in ("negative", "positive")])
    return Findings(directions, judged, norms.astype(np.float32), means)


def judged_rows(
    findings: Findings, layers: Sequence[int], rows: Mapping[int, Rows], sets: Mapping[str, Rows]
) -> Findings:
    """Give the findings, judged by what is added to some layers instead of by the directions there.

    A mixture adds to a layer what need not tell the sides apart there; whoever reads along it has to know.

    Args:
        findings: Of all layers that were read.
        layers: Those, in order.
        rows: What is added, by layer.
        sets: The states (observations, layers, n_embd) of each set.
    """
    positive, negative = sets["held_out_positive"], sets["held_out_negative"]
    if findings.judged is None or not len(positive) or not len(negative):
        return findings
    chosen = sorted(rows)
    places = [list(layers).index(layer) for layer in chosen]
    found = separation(np.stack([rows[layer] for layer in chosen]), positive[:, places], negative[:, places])
    auc, d_prime = findings.judged.auc.copy(), findings.judged.d_prime.copy()
    auc[places], d_prime[places] = found.auc, found.d_prime
    return dataclasses.replace(findings, judged=Separation(auc, d_prime))


def _spread_over(sets: list[Rows]) -> Rows:
    """Give evenly spread states of all sets. # (at most MEASURED, layers, n_embd)"""
    chosen = evenly_spread(sum(map(len, sets)))
    parts, start = [], 0
    for rows in sets:
        inside = chosen[(chosen >= start) & (chosen < start + len(rows))] - start
        parts.append(rows[inside])
        start += len(rows)
    return np.concatenate(parts)
