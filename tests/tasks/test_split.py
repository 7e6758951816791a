"""The hold-out: by prompt, seeded, and blind to order."""

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from ggufsteer.tasks.split import FEWEST_PROMPTS, held_out

texts = st.text("abcdefgh", min_size=1, max_size=2)
all_keys = st.lists(st.lists(texts, min_size=1, max_size=2).map(tuple), min_size=1, max_size=30)


@given(all_keys, st.floats(0, 0.9), st.integers(0, 5))
def test_a_held_out_prompt_never_occurs_in_training(keys: list[tuple[str, ...]], share: float, seed: int) -> None:
    """No key stands on both sides of the split, however pairs are tied together."""
    flags = held_out(keys, share, seed)
    held = {key for own, flag in zip(keys, flags, strict=True) if flag for key in own}
    trained = {key for own, flag in zip(keys, flags, strict=True) if not flag for key in own}
    assert not held & trained


@given(all_keys, st.floats(0, 0.9), st.integers(0, 5))
def test_something_is_always_left_to_train_on(keys: list[tuple[str, ...]], share: float, seed: int) -> None:
    """The hold-out never takes everything."""
    assert not all(held_out(keys, share, seed))


@given(st.lists(texts, min_size=FEWEST_PROMPTS, max_size=12, unique=True), st.integers(0, 5), st.randoms())
def test_the_order_of_prompts_does_not_change_who_is_held_out(prompts: list[str], seed: int, random: object) -> None:
    """The choice belongs to the prompt, not to its place in the list."""
    shuffled = prompts.copy()
    random.shuffle(shuffled)  # type: ignore[attr-defined]

    def chosen(order: list[str]) -> set[str]:
        flags = held_out([(prompt,) for prompt in order], 0.3, seed)
        return {prompt for prompt, flag in zip(order, flags, strict=True) if flag}

    assert chosen(prompts) == chosen(shuffled)


def test_the_share_is_met() -> None:
    """A quarter of 100 prompts is 25."""
    assert sum(held_out([(str(number),) for number in range(100)], 0.25, 0)) == 25


def test_another_seed_is_another_choice() -> None:
    """Seeds differ in whom they hold out."""
    keys = [(str(number),) for number in range(100)]
    assert held_out(keys, 0.25, 0) != held_out(keys, 0.25, 1)


def test_few_prompts_are_all_used_for_training() -> None:
    """With three prompts nobody is held out."""
    assert held_out([("a",), ("b",), ("c",)], 0.5, 0) == (False, False, False)


def test_a_share_of_zero_holds_nobody_out() -> None:
    """Zero means zero, not at least one."""
    assert not any(held_out([(str(number),) for number in range(50)], 0.0, 0))


def names_by_hand(keys: list[tuple[str, ...]]) -> list[str]:
    """Name each pair's group by the smallest key, the slow and obvious way: spread names until nothing changes."""
    names = [min(own) for own in keys]
    while True:
        spread = [min(name for name, other in zip(names, keys, strict=True) if set(own) & set(other)) for own in keys]
        if spread == names:
            return names
        names = spread


@given(all_keys, st.floats(0, 0.9), st.integers(0, 5))
def test_the_choice_is_by_the_hash_of_the_seed_and_the_groups_smallest_key(
    keys: list[tuple[str, ...]], share: float, seed: int
) -> None:
    """A recipe holds out the same prompts in every version: groups in the order of their hashes, the first ones."""
    names = names_by_hand(keys)
    order = sorted(set(names), key=lambda name: hashlib.sha256(f"{seed}\0{name}".encode()).digest())
    few = share == 0 or len(order) < FEWEST_PROMPTS
    count = 0 if few else min(max(round(share * len(order)), 1), len(order) - 1)
    assert held_out(keys, share, seed) == tuple(name in order[:count] for name in names)
