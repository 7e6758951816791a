"""The mean difference, computed while the model runs: no state is kept, however many pairs there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ggufsteer.engine.capture import Wanted, observe
from ggufsteer.maths.directions import mean_directions
from ggufsteer.maths.statistics import Separation, evenly_spread, separation, separation_of_scores
from ggufsteer.tasks.findings import Findings
from ggufsteer.tasks.observations import Observations
from ggufsteer.tasks.progress import ReportProgress, ignore
from ggufsteer.tasks.states import reporting

if TYPE_CHECKING:
    from ggufsteer.engine.model import Model

KEPT_BYTES = 8 << 20
"""Held-out states up to this size are kept until the directions are known; more of them are read afterwards."""

Places = NDArray[np.int32]


def mean_findings(
    model: Model, observations: Observations, layers: Sequence[int], *, report: ReportProgress = ignore
) -> Findings:
    """Compute the mean difference in memory that does not grow with the number of pairs.

    Held-out observations are judged along directions that are known only at the end. A few are kept until then. Many
    are read after the others, and nothing of them is kept but their places along the directions.

    Args:
        model: The model.
        observations: What to read.
        layers: Ascending layer numbers.
        report: Told after every decode.

    Raises:
        SteerError: The states are not finite, or the sides do not differ.
    """
    work = _Work(model, observations, layers, report)
    held_out_bytes = sum(work.counts[2:]) * len(layers) * model.n_embd * 4
    return work.in_one_walk() if held_out_bytes <= KEPT_BYTES else work.in_two_walks()


@dataclass
class _Work:
    model: Model
    observations: Observations
    layers: Sequence[int]
    report: ReportProgress
    counts: list[int] = field(init=False)
    """Observations in each set."""

    def __post_init__(self) -> None:
        self.counts = list(self.observations.counts.values())

    def in_one_walk(self) -> Findings:
        """Sum up the training observations and keep the held-out ones."""
        first, n_held_out = sum(self.counts[:2]), sum(self.counts[2:])
        states = np.empty((n_held_out, len(self.layers), self.model.n_embd), dtype=np.float32)

        def keep(numbers: NDArray[np.int64], rows: NDArray[np.float32]) -> None:
            states[numbers - first] = rows

        total = first + n_held_out
        measured = evenly_spread(total)
        seen = observe(
            self.model,
            self.observations.sequences,
            self.layers,
            Wanted(
                stored=np.arange(total) >= first,
                sums=self._sides(),
                n_sums=2,
                lengths=_places(measured, total),
                n_lengths=len(measured),
            ),
            pool=self.observations.pooled,
            on_states=keep,
            progress=reporting(self.report, len(self.observations.sequences)),
        )
        means = self._means(seen.sums)
        directions = mean_directions(means[1], means[0])
        n_positive = self.counts[2]
        judged = None
        if min(self.counts[2:]):
            judged = separation(directions, states[:n_positive], states[n_positive:])
        return Findings(directions, judged, _median(seen.lengths), means)

    def in_two_walks(self) -> Findings:
        """Sum up the training observations, then see where the held-out ones lie along the directions."""
        first, n_held_out = sum(self.counts[:2]), sum(self.counts[2:])
        measured = evenly_spread(first + n_held_out)
        end = sum(list(self.observations.n_sequences.values())[:2])
        sequences, total = self.observations.sequences, len(self.observations.sequences)
        inside, outside = measured[measured < first], measured[measured >= first] - first
        seen = observe(
            self.model,
            sequences.part(0, end),
            self.layers,
            Wanted(sums=self._sides()[:first], n_sums=2, lengths=_places(inside, first), n_lengths=len(inside)),
            pool=self.observations.pooled,
            progress=reporting(self.report, total),
        )
        means = self._means(seen.sums)
        directions = mean_directions(means[1], means[0])
        scored = observe(
            self.model,
            sequences.part(end, total),
            self.layers,
            Wanted(
                lengths=_places(outside, n_held_out),
                n_lengths=len(outside),
                scores=np.arange(n_held_out, dtype=np.int32),
                n_scores=n_held_out,
                directions=directions,
            ),
            pool=self.observations.pooled,
            progress=reporting(self.report, total, done_before=end),
        )
        judged: Separation | None = None
        if min(self.counts[2:]):
            n_positive = self.counts[2]
            judged = separation_of_scores(scored.scores[:n_positive], scored.scores[n_positive:])
        return Findings(directions, judged, _median(np.concatenate([seen.lengths, scored.lengths])), means)

    def _sides(self) -> Places:
        """Give for each observation the sum that it belongs to; held-out ones belong to none."""
        return np.repeat(np.array([0, 1, -1, -1], dtype=np.int32), self.counts)

    def _means(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """Mean state of the negative and of the positive side. # (2, layers, n_embd)"""
        return np.stack([sums[1] / self.counts[1], sums[0] / self.counts[0]])


def _places(chosen: NDArray[np.int64], total: int) -> Places:
    """Number the chosen ones of all observations from 0; -1 for the others. # (total,)"""
    places = np.full(total, -1, dtype=np.int32)
    places[chosen] = np.arange(len(chosen), dtype=np.int32)
    return places


def _median(lengths: NDArray[np.float64]) -> NDArray[np.float32]:
    return np.median(lengths, axis=0).astype(np.float32)
