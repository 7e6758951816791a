"""Reads the hidden states of a contrast: one row an observation, in the order of the pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ggufsteer.tasks.contrast import Contrast, Side
from ggufsteer.tasks.progress import Progress, ReportProgress, ignore

if TYPE_CHECKING:
    from ggufsteer.engine.model import Model

STAGE = "reading states"

Rows = NDArray[np.float32]
Flags = NDArray[np.bool_]


def read_states(
    model: Model, contrast: Contrast, layers: Sequence[int], *, report: ReportProgress = ignore
) -> tuple[Rows, Rows, tuple[Flags, Flags]]:
    """Return the observations of both sides, each (observations, layers, n_embd), and which of them are held out.

    A pooled contrast has one observation a pair; otherwise every row that is read is one.
    """
    blocks = capture_sides(
        model,
        (*contrast.positive, *contrast.negative),
        layers,
        pooled=contrast.pooled,
        n_pairs=contrast.n_pairs,
        report=report,
    )
    positive, negative = blocks[: contrast.n_pairs], blocks[contrast.n_pairs :]
    flags = [np.repeat(np.array(contrast.held_out), [len(rows) for rows in side]) for side in (positive, negative)]
    return np.concatenate(positive), np.concatenate(negative), (flags[0], flags[1])


def capture_sides(
    model: Model,
    sides: Sequence[Side],
    layers: Sequence[int],
    *,
    pooled: bool,
    n_pairs: int = 0,
    report: ReportProgress = ignore,
) -> list[Rows]:
    """Return for each side its observations, (1, layers, n_embd) where pooled, else (rows, layers, n_embd).

    Args:
        model: The model.
        sides: What to run, and which rows to read.
        layers: Ascending layer numbers.
        pooled: Whether to average the rows of a side.
        n_pairs: What the progress counts; 0 counts texts.
        report: Told after every batch.
    """
    from ggufsteer.engine.capture import Progress as Decoded
    from ggufsteer.engine.capture import TokenSequence, capture

    total, unit = (n_pairs, "pairs") if n_pairs else (len(sides), "texts")

    def on_decode(decoded: Decoded) -> None:
        done = decoded.sequences_done * total // max(decoded.sequences_total, 1)
        report(Progress(STAGE, done, total, unit, decoded.tokens_done))

    report(Progress(STAGE, 0, total, unit))
    sequences = [TokenSequence(tokens=side.tokens, rows=side.rows) for side in sides]
    if pooled:
        return list(capture(model, sequences, layers, progress=on_decode)[:, None])
    return capture(model, sequences, layers, pool=False, progress=on_decode)
