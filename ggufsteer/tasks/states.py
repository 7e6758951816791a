"""Reads the hidden states of a contrast, and of neutral text, into whatever takes them: memory, or a file on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ggufsteer.engine.capture import ProgressCallback, Wanted, check_memory, observe, plan_capture
from ggufsteer.engine.progress import Progress as Decoded
from ggufsteer.engine.sequences import TokenSequences
from ggufsteer.tasks.observations import NEUTRAL, Observations, divided
from ggufsteer.tasks.progress import Progress, ReportProgress, ignore

if TYPE_CHECKING:
    from ggufsteer.engine.model import Model

STAGE = "reading states"

Rows = NDArray[np.float32]
TakeStates = Callable[[NDArray[np.int64], Rows], None]
"""Takes observation numbers, counted through all sets, and their states (observations, layers, n_embd)."""


@dataclass(frozen=True, eq=False)
class NeutralText:
    """Text that has nothing to do with the concept, for the methods that measure what is loud anyway."""

    sequences: TokenSequences
    pooled: bool

    @property
    def n_observations(self) -> int:
        """How many states it gives."""
        return len(self.sequences) if self.pooled else len(self.sequences.rows)


def counts_of(observations: Observations, neutral: NeutralText | None) -> dict[str, int]:
    """Give the number of observations in each set, in the order in which they are numbered."""
    return observations.counts | {NEUTRAL: neutral.n_observations if neutral else 0}


def states_in_memory(
    model: Model,
    observations: Observations,
    neutral: NeutralText | None,
    layers: Sequence[int],
    *,
    report: ReportProgress = ignore,
) -> dict[str, Rows]:
    """Read all states into memory, (observations, layers, n_embd) for each set.

    Raises:
        SteerError: This machine could never hold them.
    """
    counts = counts_of(observations, neutral)
    shape = (sum(counts.values()), len(layers), model.n_embd)
    check_memory(shape)
    states = np.empty(shape, dtype=np.float32)

    def take(numbers: NDArray[np.int64], rows: Rows) -> None:
        states[numbers] = rows

    read_states(model, observations, neutral, layers, take, report=report)
    return divided(states, counts)


def read_states(
    model: Model,
    observations: Observations,
    neutral: NeutralText | None,
    layers: Sequence[int],
    take: TakeStates,
    *,
    steps_done: int = 0,
    checkpoint: Callable[[int], None] = lambda _: None,
    report: ReportProgress = ignore,
) -> None:
    """Read the states of a contrast, then those of neutral text.

    Args:
        model: The model.
        observations: What to read of the contrast.
        neutral: What to read besides.
        layers: Ascending layer numbers.
        take: Gets the states, in the order in which they are computed.
        steps_done: Steps that an earlier run has finished; they are left out.
        checkpoint: Called with the number of finished steps after each.
        report: Told after every decode.
    """
    passes = [(observations.sequences, observations.pooled)]
    if neutral is not None:
        passes.append((neutral.sequences, neutral.pooled))
    total = sum(len(sequences) for sequences, _ in passes)
    first_number = first_step = first_sequence = 0
    for sequences, pooled in passes:
        n_steps = plan_capture(model, sequences, layers, pool=pooled).totals.n_rounds
        done = min(max(steps_done - first_step, 0), n_steps)
        if done < n_steps:
            observe(
                model,
                sequences,
                layers,
                Wanted(stored=True),
                pool=pooled,
                on_states=_shifted(take, first_number),
                on_round=_counting(checkpoint, first_step),
                rounds_done=done,
                progress=reporting(report, total, done_before=first_sequence),
            )
        first_step += n_steps
        first_number += len(sequences) if pooled else len(sequences.rows)
        first_sequence += len(sequences)


def _shifted(take: TakeStates, first: int) -> TakeStates:
    return lambda numbers, rows: take(numbers + first, rows)


def _counting(checkpoint: Callable[[int], None], first: int) -> Callable[[int], None]:
    return lambda done: checkpoint(first + done)


def reporting(report: ReportProgress, total: int, *, done_before: int = 0) -> ProgressCallback:
    """Give what tells a task's listener how far the engine is, in texts."""
    report(Progress(STAGE, done_before, total, "texts"))

    def on_decode(decoded: Decoded) -> None:
        report(Progress(STAGE, done_before + decoded.sequences_done, total, "texts", decoded.tokens_done))

    return on_decode
