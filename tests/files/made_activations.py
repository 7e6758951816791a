"""Small files of activations whose every value is another one."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ggufsteer.files.activations import ActivationsWriter, Layout

SMALL = Layout({"positive": 5, "negative": 0, "neutral": 4}, (1, 3), 3, {"recipe": "[contrast]\n", "model": "abc"})


def states_of(layout: Layout) -> NDArray[np.float32]:
    """States of all observations, each value another one. # (observations, layers, n_embd)"""
    shape = (layout.observations, len(layout.layers), layout.n_embd)
    return np.arange(1, np.prod(shape) + 1, dtype=np.float32).reshape(shape)


def write_all(path: Path, layout: Layout) -> None:
    """Write a whole file in one go."""
    with ActivationsWriter.open(path, layout) as writer:
        writer.write(np.arange(layout.observations), states_of(layout))
        writer.finish()


def partial_of(path: Path) -> Path:
    """The part file that belongs to a file."""
    return path.with_name(f"{path.name}.partial")


def sets_of(layout: Layout) -> dict[str, NDArray[np.float32]]:
    """What each set of `states_of` should read as."""
    bounds = np.cumsum([0, *layout.counts.values()])
    states = states_of(layout)
    return {name: states[first:last] for name, first, last in zip(layout.counts, bounds, bounds[1:], strict=False)}


def names_in(folder: Path) -> list[str]:
    """What lies in a folder."""
    return sorted(found.name for found in folder.iterdir())
