"""Which token comes next: greedy, or drawn at a temperature from the likeliest. Numbers only."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ggufsteer.errors import EngineError, SteerError

Float32 = NDArray[np.float32]
Sampler = Callable[[Float32], int]

_CANDIDATES = (1 << 10, 1 << 14)
"""How many of the likeliest tokens are sorted first, and then, before all of them are."""


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen."""

    temperature: float = 0.0
    """0 takes the likeliest token each time."""
    top_p: float = 1.0
    """Draw only from the likeliest tokens that together have this probability."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be meant.

        Raises:
            SteerError: Naming the value.
        """
        if not 0.0 <= self.temperature <= 100.0:
            raise SteerError(
                f"temperature = {self.temperature} is not between 0 and 100", "0 means greedy, 1 the model's own"
            )
        if not 0.0 < self.top_p <= 1.0:
            raise SteerError(f"top-p = {self.top_p} is not between 0 and 1", "1 draws from all tokens")
        if self.seed < 0:
            raise SteerError(f"seed = {self.seed} is negative", "give 0 or more")

    def sampler(self, number: int) -> Sampler:
        """Make the sampler of one prompt; its draws depend on the seed and the prompt's number, not on batching."""
        if self.temperature == 0.0:
            return greedy
        generator = np.random.default_rng([self.seed, number])
        return lambda logits: draw(logits, self.temperature, self.top_p, generator)


def greedy(logits: Float32) -> int:
    """Give the likeliest token; of equal ones, that with the lowest number, as llama.cpp does.

    Args:
        logits: # (n_vocab,)

    Raises:
        EngineError: The logits are not finite.
    """
    token = int(logits.argmax())
    if not np.isfinite(logits[token]):
        raise EngineError("the model's output is not a number", "if it is steered, give smaller strengths")
    return token


def draw(logits: Float32, temperature: float, top_p: float, generator: np.random.Generator) -> int:
    """Draw a token.

    Args:
        logits: # (n_vocab,)
        temperature: Divides the logits; more than 0.
        top_p: See `Sampling`.
        generator: Where the chance comes from.

    Raises:
        EngineError: The logits are not finite.
    """
    greedy(logits)  # for its check
    scaled = logits.astype(np.float64)
    weights = np.exp((scaled - scaled.max()) / temperature)
    if top_p == 1.0:
        cumulative = np.cumsum(weights)
        return _place(cumulative, generator.random())
    order = _likeliest(weights, top_p * weights.sum())
    cumulative = np.cumsum(weights[order])
    kept = int(np.searchsorted(cumulative, top_p * weights.sum())) + 1
    return int(order[_place(cumulative[:kept], generator.random())])


def _place(cumulative: NDArray[np.float64], chance: float) -> int:
    """Find where a share of the whole is reached."""
    place = int(np.searchsorted(cumulative, chance * cumulative[-1], side="right"))
    return min(place, len(cumulative) - 1)


def _likeliest(weights: NDArray[np.float64], enough: float) -> NDArray[np.intp]:
    """Order tokens by falling weight, of equal ones the lower number first; at least so many that they make up enough.

    Sorting a vocabulary of 150,000 takes longer than a small model's token, and a few hundred nearly always suffice.
    """
    for count in _CANDIDATES:
        if len(weights) <= 2 * count:
            break
        least = np.partition(weights, -count)[-count]
        candidates = np.flatnonzero(weights >= least)
        if weights[candidates].sum() >= enough:
            return candidates[np.argsort(-weights[candidates], kind="stable")]
    return np.argsort(-weights, kind="stable")


def log_softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Turn logits into log-probabilities, along the last axis, in double precision."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))
