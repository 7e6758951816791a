"""What can be done to rows of hidden states along a direction: the definitions that every implementation is tested on.

A row h is a state as a layer gives it, d a direction of unit length, and p = h·d the projection of the row, in the
units of the state. Products are summed up in double precision from the first element to the last, so that another
implementation can give the same bits; results are rounded to single precision once.

It knows neither layers nor vectors nor when something is done.
"""

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


def project(states: Float32, direction: Float32) -> Float64:
    """Give the length of each row's shadow on a direction, with its sign.

    Args:
        states: (rows, embd)
        direction: (embd,), of unit length.

    Returns:
        h·d in the units of the states, (rows,).

    >>> project(np.array([[3, 4], [0, 5]], dtype=np.float32), np.array([1, 0], dtype=np.float32)).tolist()
    [3.0, 0.0]
    """
    products = states.astype(np.float64) * direction
    # `@` and `sum` add in an order of their own, which depends on the machine.
    sums: Float64 = np.add.accumulate(products, axis=1)[:, -1]
    return sums


def add(states: Float32, direction: Float32, strength: float) -> Float32:
    """Move each row by the same amount: h + strength · d.

    Args:
        states: (rows, embd)
        direction: (embd,), of any length.
        strength: How many times the direction is added.

    Returns:
        New rows, (rows, embd).

    >>> add(np.array([[3, 4]], dtype=np.float32), np.array([2, 0], dtype=np.float32), 1.5).tolist()
    [[6.0, 4.0]]
    """
    return _moved(states, direction, np.full(len(states), strength))


def ablate(states: Float32, direction: Float32, strength: float) -> Float32:
    """Take a direction out of each row: h - strength · (h·d) d.

    At strength 1 nothing is left of it (Arditi and others, "Refusal in language models is mediated by a single
    direction", arXiv:2406.11717); 0 changes nothing, 2 mirrors the row, and below 0 the projection grows.

    Args:
        states: (rows, embd)
        direction: (embd,), of unit length.
        strength: The share of the projection that is taken away.

    Returns:
        New rows, (rows, embd).

    >>> ablate(np.array([[3, 4]], dtype=np.float32), np.array([1, 0], dtype=np.float32), 1.0).tolist()
    [[0.0, 4.0]]
    """
    return _moved(states, direction, -(strength * project(states, direction)))


def clamp(states: Float32, direction: Float32, value: float) -> Float32:
    """Set the projection of each row to a value: h + (value - h·d) d.

    With the mean projection of a reference, plus a multiple of the direction's own length, as the value this is affine
    concept editing (Marshall and others, "Refusal in LLMs is an affine function", arXiv:2411.09003).

    Args:
        states: (rows, embd)
        direction: (embd,), of unit length.
        value: The projection afterwards, in the units of the states.

    Returns:
        New rows, (rows, embd).

    >>> clamp(np.array([[3, 4], [0, 5]], dtype=np.float32), np.array([1, 0], dtype=np.float32), 2.0).tolist()
    [[2.0, 4.0], [2.0, 5.0]]
    """
    return _moved(states, direction, value - project(states, direction))


def gate(states: Float32, condition: Float32, threshold: float) -> NDArray[np.bool_]:
    """Tell for each row whether its projection on a condition's direction is above a threshold.

    Steering only where this holds is conditional activation steering (Lee and others, "Programming refusal with
    conditional activation steering", arXiv:2409.05907), which compares a similarity; here it is the projection itself.

    Args:
        states: (rows, embd)
        condition: (embd,), of unit length.
        threshold: In the units of the states; a projection that equals it does not open the gate.

    Returns:
        True where h·d > threshold, (rows,).

    >>> gate(np.array([[3, 4], [0, 5]], dtype=np.float32), np.array([1, 0], dtype=np.float32), 2.0).tolist()
    [True, False]
    """
    opened: NDArray[np.bool_] = project(states, condition) > threshold
    return opened


def _moved(states: Float32, direction: Float32, amounts: Float64) -> Float32:
    """Move each row by its own amount along a direction."""
    moved: Float32 = (states + amounts[:, None] * direction).astype(np.float32)
    return moved
