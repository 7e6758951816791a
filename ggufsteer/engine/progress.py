"""How far a long piece of work in the engine has come: the one event, and the type of the callback that takes it."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """How far a long piece of work has come."""

    sequences_done: int
    sequences_total: int
    tokens_done: int
    tokens_total: int
    """0 where nobody can know it beforehand."""


ProgressCallback = Callable[[Progress], None]
"""Called after each decode; what it raises (such as KeyboardInterrupt) ends the work cleanly."""
