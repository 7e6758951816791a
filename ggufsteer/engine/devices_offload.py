"""`-ngl auto`: how many layers are tried on the GPU first, and what follows when its memory runs out.

It decides numbers and when to give up; how a model is loaded is handed to it.
"""

import re
from collections.abc import Callable
from typing import TypeVar

from ggufsteer.errors import EngineError, ModelError, SteerError

Loaded = TypeVar("Loaded")

_ABOUT_MEMORY = re.compile(r"alloc|memory", re.IGNORECASE)


class OutOfMemory(ModelError):
    """A model cannot be loaded because a device has no room for it."""


def is_about_memory(complaint: str) -> bool:
    """Tell whether what llama.cpp logged speaks of memory that it did not get."""
    return bool(_ABOUT_MEMORY.search(complaint))


def fewer(parts: int) -> int:
    """Give what to try after `parts` were too many: about a sixth less."""
    return parts - max(1, parts // 6)


def load_what_fits(load: Callable[[int], Loaded], first: int, total: int, say: Callable[[str], None]) -> Loaded:
    """Load with as many layers on the GPU as there is memory for.

    Args:
        load: Loads with so many layers, the output counted as one; raises `OutOfMemory`, or an `EngineError` that
            speaks of memory, when they were too many.
        first: What to try first, 0 to `total`.
        total: All layers and the output.
        say: Takes a note for people whenever not everything is on the GPU.

    Raises:
        SteerError: It fails for another reason, or with no layer on the GPU too.
    """
    parts = first
    while True:
        try:
            loaded = load(parts)
        except SteerError as error:
            if not parts or not _may_be_mended(error):
                raise
            parts = fewer(parts)
            continue
        if parts < first:
            say(
                f"{first} of {total} layers did not fit into the GPU's memory: {parts} are there, the CPU computes the "
                f"others (-ngl {parts} begins with that at once; a smaller context, -c, leaves room for more)"
            )
        elif parts < total:
            say(
                f"{parts} of {total} layers fit into the GPU's memory, the CPU computes the others "
                "(a smaller context, -c, or quantisation leaves room for more)"
            )
        return loaded


def _may_be_mended(error: SteerError) -> bool:
    return isinstance(error, OutOfMemory) or (isinstance(error, EngineError) and is_about_memory(error.message))
