"""What is to be read during one decode, and how a reader answers: the words that the native library and its twin share.

A *reader* is the thing behind llama.cpp's evaluation callback. This module knows neither of the two readers and nothing
of llama.cpp; the interface is explained in ``native/ggufsteer.h``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ggufsteer.errors import EngineError


class Code(IntEnum):
    """What became of a reading; the numbers of ``enum ggufsteer_code``."""

    OK = 0
    BAD_ARGUMENT = 1
    OUT_OF_MEMORY = 2
    NOT_ARMED = 3
    WRONG_TYPE = 4
    WRONG_WIDTH = 5
    WRONG_ROWS = 6
    MISSING_ROWS = 7


@dataclass(frozen=True)
class Reading:
    """Which rows of which layers one decode is read for, and where they go.

    `rows` and `slots` run in parallel: the state of batch position `rows[i]` goes to `target[slots[i]]`.
    """

    layers: NDArray[np.int32]
    """0-based layer numbers, strictly ascending. # (layers,)"""
    rows: NDArray[np.int32]
    """Positions in the batch, strictly ascending. # (rows,)"""
    slots: NDArray[np.int32]
    """First index of the target for each row. # (rows,)"""
    target: NDArray[np.float32] | NDArray[np.float64]
    """(slots, layers, embd): float32 takes each row as it is, float64 gets each row added, in batch order."""
    n_tokens: int
    """Tokens in the batch."""
    n_ubatch: int
    """llama.cpp cuts the batch into pieces of this many tokens."""
    rows_are_outputs: bool
    """Logits are asked for on exactly these rows; the last layer then holds no other rows."""
    stop_early: bool
    """End the graph after the deepest layer. Only for a batch that is not cut: n_tokens <= n_ubatch."""

    def __post_init__(self) -> None:
        """Refuse what the callback could not do; these are mistakes of the engine, not of a person."""
        if self.target.dtype not in (np.float32, np.float64) or not self.target.flags.c_contiguous:
            raise ValueError("target must be a contiguous float32 or float64 array")
        if any(
            array.dtype != np.int32 or not array.flags.c_contiguous for array in (self.layers, self.rows, self.slots)
        ):
            raise ValueError("layers, rows and slots must be contiguous int32 arrays")
        if self.target.ndim != 3 or self.target.shape[1] != len(self.layers) or len(self.rows) != len(self.slots):
            raise ValueError("the shapes of target, layers, rows and slots do not go together")

    @property
    def adds(self) -> bool:
        """Whether rows are summed up instead of stored."""
        return self.target.dtype == np.float64

    @property
    def n_embd(self) -> int:
        """Width of a row."""
        return int(self.target.shape[2])

    def is_sound(self) -> bool:
        """Tell whether a reader can take it; the same test as in the native library."""
        if min(len(self.layers), len(self.rows), *self.target.shape, self.n_tokens, self.n_ubatch) < 1:
            return False
        if self.stop_early and self.n_tokens > self.n_ubatch:
            return False
        return (
            _strictly_ascending(self.layers, np.iinfo(np.int32).max)
            and _strictly_ascending(self.rows, self.n_tokens)
            and bool((self.slots >= 0).all() and (self.slots < self.target.shape[0]).all())
        )


def _strictly_ascending(values: NDArray[np.int32], end: int) -> bool:
    return bool(values[0] >= 0 and values[-1] < end and (np.diff(values) > 0).all())


@dataclass(frozen=True)
class Report:
    """How a reading ended: the fields of ``struct ggufsteer_report``."""

    code: Code
    layer: int = -1
    seen: int = 0
    expected: int = 0


class Reader(Protocol):
    """One of the two implementations behind the evaluation callback."""

    name: str
    """"native" or "python"."""
    callback: Any
    """What to put into `cb_eval` (a ctypes function pointer); the reader must live as long as the context."""
    user_data: int | None
    """What to put into `cb_eval_user_data`."""

    def arm(self, reading: Reading) -> None:
        """Set what the next decode is read for."""

    def finish(self) -> Report:
        """End the reading. Raises what was raised inside the callback, if anything."""

    def close(self) -> None:
        """Free it; the context must be gone."""


def check(report: Report, layers: Sequence[int]) -> None:
    """Raise the error that a report speaks of.

    Raises:
        EngineError: The model's graph does not look as expected, or the reader failed.
    """
    if report.code is Code.OK:
        return
    messages = {
        Code.WRONG_TYPE: f"l_out-{report.layer} holds {report.seen} bytes, not {report.expected} (not F32)",
        Code.WRONG_WIDTH: f"l_out-{report.layer} is {report.seen} wide where {report.expected} was expected",
        Code.WRONG_ROWS: f"l_out-{report.layer} has {report.seen} rows for {report.expected} tokens",
        Code.MISSING_ROWS: f"l_out-{report.layer} gave {report.seen} of {report.expected} rows",
        Code.OUT_OF_MEMORY: "there is no memory left for reading hidden states",
    }
    message = messages.get(report.code, f"the reader of hidden states failed with {report.code.name}")
    raise EngineError(
        f"reading layers {_span(layers)} failed: {message}",
        "this model's architecture may not be supported; please report it with the model's name",
    )


def _span(layers: Sequence[int]) -> str:
    return f"{layers[0]} to {layers[-1]}" if len(layers) > 1 else ", ".join(map(str, layers))
