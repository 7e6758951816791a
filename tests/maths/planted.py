"""States in which the true direction is known, because it was put there."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Planted:
    """Two sides, neutral states, and the unit direction that separates the sides.

    Rows are (observations, layers, embd).
    """

    positive: NDArray[np.float32]
    negative: NDArray[np.float32]
    neutral: NDArray[np.float32]
    truth: NDArray[np.float64]  # (layers, embd)


def plant(
    *,
    seed: int,
    pairs: int = 256,
    layers: int = 2,
    width: int = 64,
    gap: float = 2.0,
    gap_spread: float = 0.1,
    content: float = 1.0,
    noise: float = 0.1,
    loud: int = 0,
    paired: bool = True,
) -> Planted:
    """Make states that are content plus or minus half a gap along a random direction, plus noise.

    `content` is the size of what an observation says besides, shared by the two halves of a pair unless `paired` is
    off; `gap_spread` is how much the gap varies between observations, as a share of it; the first `loud` dimensions
    carry thirty times as much content as the others, and nothing of the direction.
    """
    generator = np.random.default_rng(seed)
    truth = generator.standard_normal((layers, width))
    truth[:, :loud] = 0.0
    truth /= np.linalg.norm(truth, axis=1, keepdims=True)
    scale = np.full(width, content)
    scale[:loud] *= 30.0

    def some_content() -> NDArray[np.float64]:
        return generator.standard_normal((pairs, layers, width)) * scale

    def some_noise() -> NDArray[np.float64]:
        return generator.standard_normal((pairs, layers, width)) * noise

    ours = some_content()
    theirs = ours if paired else some_content()
    amplitude = gap * (1 + gap_spread * generator.standard_normal((pairs, 1, 1))) / 2
    return Planted(
        positive=(ours + amplitude * truth + some_noise()).astype(np.float32),
        negative=(theirs - amplitude * truth + some_noise()).astype(np.float32),
        neutral=(some_content() + some_noise()).astype(np.float32),
        truth=truth,
    )


def cosines(directions: NDArray[np.float32], truth: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give the cosine between direction and truth in every layer."""
    lengths = np.linalg.norm(directions, axis=1) * np.linalg.norm(truth, axis=1)
    return np.asarray((directions * truth).sum(axis=1) / lengths)
