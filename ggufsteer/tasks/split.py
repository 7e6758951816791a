"""Which pairs are held out: chosen by prompt, so that a vector is judged on prompts that it was not made from.

It keeps fingerprints of the texts, not the texts: pairs may be many, and are made only when they are looked at.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable
from itertools import pairwise

import numpy as np

from ggufsteer.tasks.fingerprints import fingerprint

FEWEST_PROMPTS = 4
"""With fewer prompts none is held out: the vector needs them more than a figure from one prompt would be worth."""


def held_out(keys: Iterable[Iterable[str]], share: float, seed: int) -> tuple[bool, ...]:
    """Say for each pair whether it is held out.

    Pairs that share a key (their prompt, or one of their texts) stay together, directly or through other pairs. Which
    groups are held out depends on the seed and the words of the keys alone, not on their order.

    Args:
        keys: For each pair the texts that tie it to others; gone through twice, so it must be no iterator.
        share: The part of the groups to hold out, 0 to 1.
        seed: Another seed, another choice.

    Returns:
        One flag a pair. All False where `share` is 0 or there are fewer than `FEWEST_PROMPTS` groups.
    """
    groups = _groups(keys)
    n_groups = max(groups, default=-1) + 1
    if share <= 0 or n_groups < FEWEST_PROMPTS:
        return (False,) * len(groups)
    count = min(max(round(share * n_groups), 1), n_groups - 1)
    ranks = _ranks(keys, groups, n_groups, seed)
    chosen = set(sorted(range(n_groups), key=ranks.__getitem__)[:count])
    return tuple(group in chosen for group in groups)


def _groups(keys: Iterable[Iterable[str]]) -> array[int]:
    """Return for each pair the number of its group, counted from 0 without gaps."""
    prints, ends = array("Q"), array("q", [0])
    for own in keys:
        prints.extend(fingerprint(key.encode()) for key in own)
        ends.append(len(prints))
    numbers = array("q", np.unique(prints, return_inverse=True)[1].tobytes())
    parent = array("q", range(len(numbers)))

    def root(number: int) -> int:
        while parent[number] != number:
            parent[number] = number = parent[parent[number]]
        return number

    for start, end in pairwise(ends):
        for other in numbers[start + 1 : end]:
            parent[root(other)] = root(numbers[start])
    roots = array("q", (root(numbers[start]) for start in ends[:-1]))
    return array("q", np.unique(roots, return_inverse=True)[1].tobytes())


def _ranks(keys: Iterable[Iterable[str]], groups: array[int], n_groups: int, seed: int) -> list[bytes]:
    """Return for each group what it is sorted by: a hash of the seed and the smallest of the group's keys."""
    left = array("q", np.bincount(groups).tobytes())
    # A text is kept until the last pair of its group was seen, no longer.
    smallest: dict[int, str] = {}
    ranks = [b""] * n_groups
    for group, own in zip(groups, keys, strict=True):
        name = min(own)
        smallest[group] = min(name, smallest.get(group, name))
        left[group] -= 1
        if not left[group]:
            ranks[group] = hashlib.sha256(f"{seed}\0{smallest.pop(group)}".encode()).digest()
    return ranks
