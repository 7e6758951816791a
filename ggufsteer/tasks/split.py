"""Which pairs are held out: chosen by prompt, so that a vector is judged on prompts that it was not made from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

FEWEST_PROMPTS = 4
"""With fewer prompts none is held out: the vector needs them more than a figure from one prompt would be worth."""


def held_out(keys: Sequence[Iterable[str]], share: float, seed: int) -> tuple[bool, ...]:
    """Say for each pair whether it is held out.

    Pairs that share a key (their prompt, or one of their texts) stay together, directly or through other pairs. Which
    groups are held out depends on the seed and the words of the keys alone, not on their order.

    Args:
        keys: For each pair the texts that tie it to others.
        share: The part of the groups to hold out, 0 to 1.
        seed: Another seed, another choice.

    Returns:
        One flag a pair. All False where `share` is 0 or there are fewer than `FEWEST_PROMPTS` groups.
    """
    groups = _groups(keys)
    names = sorted(set(groups), key=lambda name: hashlib.sha256(f"{seed}\0{name}".encode()).digest())
    if share <= 0 or len(names) < FEWEST_PROMPTS:
        return (False,) * len(groups)
    count = min(max(round(share * len(names)), 1), len(names) - 1)
    chosen = set(names[:count])
    return tuple(name in chosen for name in groups)


def _groups(keys: Sequence[Iterable[str]]) -> list[str]:
    """Return a name for each pair that is equal for pairs tied together: the smallest key of its group."""
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        while parent.setdefault(key, key) != key:
            parent[key] = key = parent[parent[key]]
        return key

    tied = [tuple(own) for own in keys]
    for own in tied:
        smallest, *others = sorted({root(key) for key in own})
        for other in others:
            parent[other] = smallest
    return [root(own[0]) for own in tied]
