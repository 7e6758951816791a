"""The choice of layers on a made-up model, of which it is known what carries the concept and what only breaks it."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest

from ggufsteer.tasks.components import (
    DIRECTION,
    N_LAYERS,
    OTHER_METHOD,
    SPREAD,
    Component,
    components_of_vector,
)
from ggufsteer.tasks.layer_search import (
    BEST,
    MIXES,
    SMALL_DOSE,
    Candidate,
    Found,
    Judges,
    Moves,
    Rows,
    candidates_of_directions,
    candidates_of_vector,
    search_layers,
)

WIDTH = 16
DEEPEST = 90
BUDGET = 2.0
NORMS = dict.fromkeys(range(1, DEEPEST), 10.0)
MIXED = {mix.name for mix in MIXES}
CLOSE = 0.15


def axis(layer: int, size: float = 1.0, place: int | None = None) -> np.ndarray:
    """A direction of its own for each layer, of sixteen. # (WIDTH,)"""
    row = np.zeros(WIDTH, dtype=np.float32)
    row[layer % WIDTH if place is None else place] = size
    return row


def flat(rows: Rows) -> np.ndarray:
    """All that is added, layer after layer. # (DEEPEST * WIDTH,)"""
    every = np.zeros((DEEPEST, WIDTH))
    for layer, row in rows.items():
        every[layer] = row
    return every.ravel()


class MadeUp:
    """Effect is linear in what is added, and damage a quadratic form, at any strength: the law of small doses."""

    def __init__(self, use: Mapping[int, float], overlaps: Mapping[tuple[int, int], float] | None = None) -> None:
        """Make one.

        Args:
            use: Effect of each layer's own axis.
            overlaps: Cosine of the damage that two layers' own axes do; all others break different things.
        """
        self.gain = sum((use[layer] * flat({layer: axis(layer)}) for layer in use), np.zeros(DEEPEST * WIDTH))
        self.root = np.eye(DEEPEST * WIDTH)
        for (one, other), cosine in (overlaps or {}).items():
            first, second = (flat({layer: axis(layer)}).argmax() for layer in (one, other))
            self.root[second, second] = math.sqrt(1 - cosine**2)
            self.root[first, second] = cosine
        self.root /= 5
        self.told: list[tuple[int, int]] = []
        self.calls = {"effect": 0, "damage": 0, "fluent": 0, "moves": 0}
        self.measured: list[Rows] = []
        self.share: Callable[[Rows], float] = lambda _: 1.0
        self.believed: Callable[[Rows], float] = self.half_effect

    def half_effect(self, rows: Rows) -> float:
        """What + does, without what - does."""
        return float(self.gain @ flat(rows))

    def effect(self, rows: Rows) -> float:
        """Of + less that of -."""
        self.calls["effect"] += 1
        return 2 * self.half_effect(rows)

    def damage(self, rows: Rows) -> float:
        """Half the quadratic form."""
        self.calls["damage"] += 1
        return float((self.root @ flat(rows)) @ (self.root @ flat(rows))) / 2

    def fluent(self, rows: Rows) -> float:
        """Whatever the test says."""
        self.calls["fluent"] += 1
        return self.share(rows)

    def moves(self, rows: Rows) -> Moves:
        """The shifts of sure tokens (log p = 0), the squares of which add up to the quadratic form."""
        self.calls["moves"] += 1
        self.measured.append(rows)
        return Moves(self.believed(rows), (self.root @ flat(rows)).astype(np.float32)[np.newaxis])

    def search(self, candidates: Sequence[Candidate], components: Sequence[Component] = ()) -> Found:
        """Choose with this model."""
        likely = np.zeros((1, DEEPEST * WIDTH), dtype=np.float32)
        judges = Judges(self.effect, self.damage, self.fluent, self.moves, likely)
        return search_layers(candidates, components, NORMS, BUDGET, judges, lambda *done: self.told.append(done))

    def best_effect(self, components: Sequence[Component]) -> float:
        """The most that any mixture of these has at the budget, by the definition."""
        parts = np.stack([flat(part.rows) for part in components])
        gains, moved = parts @ self.gain, parts @ self.root.T
        return 2 * math.sqrt(2 * BUDGET * float(gains @ np.linalg.solve(moved @ moved.T, gains)))


def singles(layers: Sequence[int], sizes: Callable[[int], float] = lambda _: 1.0) -> list[Candidate]:
    """Each layer by itself."""
    return [("layer", {layer: axis(layer, sizes(layer))}) for layer in layers]


def parts(layers: Sequence[int], kind: str = DIRECTION, size: float = 1.0) -> list[Component]:
    """Each layer's axis, as something that can be mixed."""
    return [Component(kind, {layer: axis(layer, size)}) for layer in layers]


def length(rows: Rows) -> float:
    """Of all that is added."""
    return float(np.linalg.norm(flat(rows)))


@pytest.mark.parametrize("best", [1, 3, 6])
def test_the_one_layer_that_carries_the_concept_is_found(best: int) -> None:
    """Among others that only do damage, and at the strength of the budget."""
    model = MadeUp({best: 0.2})
    found = model.search(singles(range(1, 7)))
    assert set(found.rows) == {best}
    assert model.damage(found.rows) == pytest.approx(BUDGET, rel=CLOSE)


def test_the_sizes_that_candidates_come_in_do_not_matter() -> None:
    """They are brought to equal damage before they are compared."""
    found = MadeUp({2: 0.2, 5: 0.1}).search(singles(range(1, 7), lambda layer: 100.0 ** (layer - 4)))
    assert set(found.rows) == {2}


def test_parts_that_break_different_things_are_mixed_by_their_effect() -> None:
    """Then there is nothing to play off: each gets as much weight as it has effect."""
    model = MadeUp({2: 0.2, 5: 0.15})
    found = model.search(singles([2, 5]), parts([2, 5]))
    sizes = {layer: float(np.linalg.norm(row)) for layer, row in found.rows.items()}
    assert sizes[5] / sizes[2] == pytest.approx(0.75, rel=0.01)
    assert found.steps[0].effect == pytest.approx(model.best_effect(parts([2, 5])), rel=0.01)


@pytest.mark.parametrize("cosine", [0.8, 0.95])
def test_a_part_takes_back_the_damage_of_another(cosine: float) -> None:
    """Only a mixture with a part below zero is best, and the best that there is is nearly reached."""
    model = MadeUp({2: 0.2, 5: 0.01}, {(2, 5): cosine})
    found = model.search(singles([2, 5]), parts([2, 5]))
    assert found.rows[2][2] > 0 > found.rows[5][5]
    assert model.damage(found.rows) == pytest.approx(BUDGET, rel=CLOSE)
    best = model.best_effect(parts([2, 5]))
    assert 0.97 * best < found.steps[0].effect < 1.001 * best
    steps = {step.what: step.effect for step in found.steps}
    assert steps["layer"] < 0.7 * best
    assert steps["sum of methods"] < 0.7 * best


def test_a_best_mixture_of_many_parts_is_nearly_reached() -> None:
    """Of every kind, coupled at random, in layers that are shared; none of the parts is as good by itself."""
    generator = np.random.default_rng(0)
    model = MadeUp({})
    model.gain = generator.standard_normal(len(model.gain))
    kinds = [DIRECTION] * 4 + [OTHER_METHOD] * 4 + [SPREAD] * 4
    components = [
        Component(kind, {1 + number % 3: generator.standard_normal(WIDTH).astype(np.float32)})
        for number, kind in enumerate(kinds)
    ]
    few = flat({layer: np.ones(WIDTH, dtype=np.float32) for layer in (1, 2, 3)}) > 0
    model.root[np.ix_(few, few)] = generator.standard_normal((few.sum(), few.sum()))
    found = model.search([("part", part.rows) for part in components], components)
    steps = {step.what: step.effect for step in found.steps}
    assert found.steps[0].what == "mixture of all"
    assert steps["mixture of all"] > 0.95 * model.best_effect(components)
    assert steps["mixture of methods"] > 0.95 * model.best_effect(components[:8])
    assert steps["mixture of directions"] > 0.95 * model.best_effect(components[:4])
    assert steps["part"] < 0.6 * steps["mixture of all"]


def test_the_sizes_that_components_come_in_do_not_matter() -> None:
    """All of them are measured at the same small dose; what comes out is the same."""
    small, large = (
        MadeUp({2: 0.2, 5: 0.1}, {(2, 5): 0.3}).search(
            singles([2, 5]), parts([2], size=size) + parts([5], size=1.0 / size)
        )
        for size in (1e-3, 1e3)
    )
    for layer in (2, 5):
        assert large.rows[layer] == pytest.approx(small.rows[layer], rel=1e-4)


def test_components_are_measured_at_a_small_dose() -> None:
    """A part of the states' length; each once."""
    model = MadeUp({2: 0.2, 5: 0.1})
    model.search(singles([2]), parts([2, 5], size=7.0))
    assert [length(rows) for rows in model.measured[:2]] == pytest.approx([SMALL_DOSE * 10.0] * 2, rel=1e-5)


def test_where_small_doses_lie_a_band_wins() -> None:
    """At a small dose the last layer seems to do it, and the first ones to do the opposite."""
    directions = {layer: axis(layer) for layer in range(1, 7)}
    model = MadeUp({1: 0.2, 2: 0.2, 3: 0.2})
    model.believed = lambda rows: float(flat(rows) @ flat({6: axis(6, 9.0), 1: axis(1, -1.0), 2: axis(2, -1.0)}))
    found = model.search(candidates_of_vector(directions), components_of_vector(directions))
    steps = {step.what: step.effect for step in found.steps}
    assert set(found.rows) == {1, 2, 3}
    assert next(step.what for step in found.steps if step.chosen) == "band"
    assert steps["mixture of directions"] < 0
    assert model.half_effect(found.rows) == pytest.approx(0.2 * math.sqrt(3) * length(found.rows), rel=1e-3)


def test_where_small_doses_lie_what_is_seen_at_the_budget_is_mixed() -> None:
    """Two layers of which small doses say the opposite: by what each does at the budget, both together are best."""
    model = MadeUp({2: 0.2, 5: 0.15, 7: -0.1})
    model.believed = lambda rows: model.half_effect(rows) * (1 if length(rows) > 5 else -1)
    found = model.search(singles([2, 5, 7]), parts([2, 5]))
    [chosen] = [step for step in found.steps if step.chosen]
    assert chosen.what == BEST
    assert chosen.effect == pytest.approx(model.best_effect(parts([2, 5])), rel=0.01)
    assert found.rows[5][5] / found.rows[2][2] == pytest.approx(0.75, rel=0.01)


def test_what_came_out_best_is_not_turned_round() -> None:
    """Although with minus the second, which breaks the same, there would be more effect."""
    model = MadeUp({2: 0.2, 5: 0.01}, {(2, 5): 0.9})
    model.believed = lambda rows: model.half_effect(rows) if length(rows) > 5 else -1.0
    found = model.search(singles([2, 5]), parts([2, 5]))
    steps = {step.what: step.effect for step in found.steps}
    assert steps[BEST] < 0.6 * model.best_effect(parts([2, 5]))
    assert all((row >= 0).all() for row in found.rows.values())


def test_a_layer_that_turns_the_effect_round_is_turned_round() -> None:
    """Where parts may be below zero; in the sum that allows none below zero it is left out."""
    model = MadeUp({2: 0.2, 3: -0.2})
    tried: dict[int, Rows] = {}
    model.share = lambda rows: float(tried.setdefault(len(tried), rows) is None)
    found = model.search(singles([2]), parts([2, 3]))
    assert found.rows[2][2] == pytest.approx(-found.rows[3][3], rel=1e-3)
    sums = next(rows for rows in tried.values() if 3 in rows and not rows[3].any())
    assert sums[2][2] > 0


def test_no_mixture_is_tried_twice() -> None:
    """A finished vector has no other methods, so that two of the ways to mix are left, and what came out best."""
    steps = MadeUp({2: 0.2, 5: 0.1}).search(singles([2]), parts([2, 5])).steps
    assert sorted(step.what for step in steps) == ["layer", "mixture of directions", BEST, "sum of methods"]
    some = [*parts([2]), *parts([3], OTHER_METHOD), *parts([4], SPREAD)]
    every = MadeUp({2: 0.2, 3: 0.1, 4: 0.05}).search(singles([2]), some).steps
    assert sorted(step.what for step in every) == sorted(["layer", BEST, *MIXED])


def test_where_parts_do_nothing_nothing_is_mixed() -> None:
    """Nor where there are none."""
    assert [step.what for step in MadeUp({2: 0.2}).search(singles([2]), parts([5, 6])).steps] == ["layer"]
    assert [step.what for step in MadeUp({2: 0.2}).search(singles([2])).steps] == ["layer"]


@pytest.mark.parametrize(("share", "winner"), [(0.45, 5), (0.55, 2)])
def test_the_share_of_fluent_answers_counts(share: float, winner: int) -> None:
    """Twice the effect is worth it where more than half of the answers stay fluent."""
    model = MadeUp({2: 0.2, 5: 0.1})
    model.share = lambda rows: share if 2 in rows else 1.0
    found = model.search(singles(range(1, 7)))
    assert set(found.rows) == {winner}
    [chosen] = [step for step in found.steps if step.chosen]
    assert chosen.layers == (winner,)


def test_answers_are_only_heard_as_long_as_they_can_decide() -> None:
    """The best is wholly fluent here, so that none of the others has to speak."""
    model = MadeUp({2: 0.2, 5: 0.19})
    model.search(singles(range(1, 7)))
    assert model.calls["fluent"] == 1


def test_where_all_answers_break_the_largest_effect_is_taken() -> None:
    """At the budget; what is wrong with it is told by the calibration."""
    model = MadeUp({3: 0.2, 4: 0.1})
    model.share = lambda _: 0.0
    found = model.search(singles(range(1, 7)))
    assert set(found.rows) == {3}
    assert model.damage(found.rows) == pytest.approx(BUDGET, rel=CLOSE)


def test_where_nothing_has_an_effect_the_least_bad_is_taken() -> None:
    """Somebody has to be; the others are told too."""
    found = MadeUp({2: -0.2, 3: -0.1}).search(singles([2, 3]))
    assert set(found.rows) == {3}
    assert [step.layers for step in found.steps] == [(3,), (2,)]


def test_steps_are_told_from_the_best_on() -> None:
    """Each candidate once, at equal damage, exactly one of them chosen, which is the one whose rows come out."""
    model = MadeUp({2: 0.2, 5: 0.1}, {(2, 5): 0.3})
    model.share = lambda rows: 0.1 if len(rows) > 1 else 1.0
    found = model.search(singles(range(1, 7)), parts([2, 5]))
    effects = [step.effect for step in found.steps]
    assert effects == sorted(effects, reverse=True)
    assert sorted(step.layers for step in found.steps if step.what == "layer") == [(layer,) for layer in range(1, 7)]
    assert all(step.damage == pytest.approx(BUDGET, rel=CLOSE) for step in found.steps)
    [chosen] = [step for step in found.steps if step.chosen]
    assert chosen is not found.steps[0]
    assert chosen.layers == tuple(found.rows) == (2,)
    assert length(found.rows) == pytest.approx(chosen.strength)


@pytest.mark.parametrize("components", [[], parts([2, 5]), parts([7, 8]), [*parts([2]), *parts([3], SPREAD)]])
def test_progress_rises_to_its_end(components: list[Component]) -> None:
    """Of a total that stays the same, told after every step, also where some of the mixtures are not made."""
    model = MadeUp({2: 0.2, 5: 0.1})
    steps = model.search(singles(range(1, 7)), components).steps
    counts = [done for done, _ in model.told]
    assert len({total for _, total in model.told}) == 1
    assert counts == sorted(set(counts))
    assert len(counts) == len(components) + len(steps) + 1
    assert model.told[-1][0] == model.told[-1][1]


def work(n_layer: int) -> dict[str, int]:
    """How often the judges are asked about a model of this depth."""
    model = MadeUp(dict.fromkeys(range(1, n_layer), 0.1))
    directions = {layer: axis(layer) for layer in range(1, n_layer)}
    model.search(candidates_of_directions(directions), components_of_vector(directions))
    return model.calls


def test_the_work_does_not_grow_with_the_depth() -> None:
    """As much for eighty layers as for thirty; little more than for eight."""
    middle, deep = work(32), work(80)
    assert middle["moves"] == deep["moves"] <= N_LAYERS + 4
    assert middle["effect"] == deep["effect"] <= 11
    assert deep["damage"] <= 5 * deep["effect"]
    assert deep["effect"] <= work(9)["effect"] + 1


@pytest.mark.parametrize("n_layer", [3, 8, 32, 80])
def test_every_layer_is_in_some_candidate(n_layer: int) -> None:
    """A deep model has as many candidates as one of middle size, one of which is all layers."""
    directions = {layer: axis(layer) for layer in range(1, n_layer - 1)}
    candidates = candidates_of_directions(directions)
    assert {layer for _, rows in candidates for layer in rows} == set(directions)
    assert len(candidates) <= 8
    assert any(set(rows) == set(directions) for _, rows in candidates)


def test_candidates_of_directions_count_nothing_twice() -> None:
    """What a candidate's layers add amounts to the whole direction of its deepest one."""
    generator = np.random.default_rng(0)
    directions = {layer: generator.standard_normal(WIDTH).astype(np.float32) for layer in range(1, 7)}
    for _, rows in candidates_of_directions(directions):
        assert np.sum(list(rows.values()), axis=0) == pytest.approx(directions[max(rows)], abs=1e-5)


def test_candidates_of_a_vector_leave_each_layer_as_it_is() -> None:
    """A finished vector's layers may be block deltas already."""
    rows = {layer: axis(layer, float(layer)) for layer in range(2, 9)}
    for _, part in candidates_of_vector(rows):
        assert all(np.array_equal(part[layer], rows[layer]) for layer in part)


@pytest.mark.parametrize("left", [0.1, 0.0001])
def test_what_a_deeper_layer_takes_back_is_not_small(left: float) -> None:
    """A mixture that adds along an axis, and takes nearly all of it back later, is brought to the budget too."""
    model = MadeUp({})
    added, back = flat({2: axis(2, place=0)}), flat({5: axis(5, place=0)})
    model.gain = 0.2 * added - (0.2 - left) * back
    components = [Component(DIRECTION, {2: axis(2, place=0)}), Component(DIRECTION, {5: axis(5, place=0)})]
    found = model.search([("layer", {2: axis(2, place=0)})], components)
    assert found.steps[0].what == "mixture of directions"
    assert found.steps[0].damage == pytest.approx(BUDGET, rel=CLOSE)
