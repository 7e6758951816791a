"""Successive halving, judged by a made-up judge of which it is known who is best."""

import random
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from ggufsteer.errors import SteerError
from ggufsteer.files.search_ledger import Judged, SearchLedger
from ggufsteer.tasks.method_search import FINALISTS, Judgements, Outcome, Round, front, halve, rounds_of
from ggufsteer.tasks.progress import Progress

LATE = ("usual", "mixture")


class MadeUp:
    """Judges by a known worth, with an error that is the smaller the more it judges by."""

    def __init__(self, worth: dict[str, float], error: float = 0.0, stops_after: int = 10**9) -> None:
        self.worth = worth
        self.error = error
        self.stops_after = stops_after
        self.calls: list[tuple[int, str, float]] = []

    def __call__(self, name: str, each: Round, before: float) -> Judged:
        """Judge; a person presses Ctrl-C in the middle of it at some time."""
        if len(self.calls) == self.stops_after:
            raise KeyboardInterrupt
        self.calls.append((each.number, name, before))
        error = random.Random(f"{name} {each.number}").uniform(-1, 1) * self.error * (1 - each.share)
        strength = 1.0 + each.number / 10
        return Judged(each.number, name, strength, self.worth[name] + error, 0.5, 0.1, 1.0 if each.is_last else None)


def found(judge: MadeUp, names: Sequence[str], ledger: SearchLedger | None = None) -> Outcome:
    """Search with candidates of the last round that are made of others."""
    return halve(names, Judgements(judge, ledger), lambda left: [name for name in LATE if name in judge.worth])


def names_of(count: int) -> list[str]:
    """Some candidates."""
    return [f"candidate {number}" for number in range(count)]


@pytest.mark.parametrize("count", [1, 2, 4, 8, 9, 17, 32, 64, 257])
def test_the_rounds_halve_and_cost_alike(count: int) -> None:
    """Down to the finalists, who are judged on everything; a search of few candidates is one round of all of them."""
    rounds = rounds_of(count)
    assert rounds[0].n_candidates == count
    assert 1 <= rounds[-1].n_candidates <= FINALISTS
    assert (rounds[-1].share, rounds[-1].is_last) == (1.0, True)
    for one, two in pairwise(rounds):
        assert two.n_candidates == (one.n_candidates + 1) // 2
        assert two.share == 2 * one.share
        assert not one.is_last


@pytest.mark.parametrize("count", [2, 4, 32, 65])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_best_is_found_though_early_judgements_are_rough(count: int, seed: int) -> None:
    """It is better than the others by more than twice the error at the least."""
    names = names_of(count)
    best = random.Random(seed).choice(names)
    judge = MadeUp({name: 2.0 if name == best else 1.0 for name in names}, error=0.45)
    assert found(judge, names).winner.candidate == best


@pytest.mark.parametrize("worth", [0.5, 3.0])
def test_the_winner_is_never_worse_than_what_takes_part_at_last(worth: float) -> None:
    """Whatever the early rounds said, the usual calibration's result is judged with all that the winner is."""
    names = names_of(20)
    judge = MadeUp({**dict.fromkeys(names, 1.0), "usual": worth, "mixture": 0.1}, error=10.0)
    outcome = found(judge, names)
    usual = next(entry for entry in outcome.finalists if entry.candidate == "usual")
    assert outcome.winner.score >= usual.score
    assert outcome.winner.score == max(entry.score for entry in outcome.finalists)
    assert {entry.round for entry in outcome.finalists} == {rounds_of(20)[-1].number}
    assert outcome.n_candidates == 22


def test_what_is_made_of_others_is_told_the_best_ones_first() -> None:
    """In the order of the round before the last."""
    names = names_of(20)
    judge = MadeUp({name: float(number) for number, name in enumerate(names)})
    told: list[Sequence[str]] = []
    halve(names, Judgements(judge, None), lambda left: told.append(left) or [])  # type: ignore[func-returns-value]
    assert told == [names[::-1][:5]]


def test_of_two_that_are_equally_good_the_first_wins() -> None:
    """So that chance has no part in it."""
    names = names_of(30)
    assert found(MadeUp(dict.fromkeys(names, 1.0)), names).winner.candidate == names[0]


def test_a_round_begins_with_the_strength_of_the_one_before() -> None:
    """Which saves trials."""
    judge = MadeUp({name: float(number) for number, name in enumerate(names_of(17))})
    found(judge, names_of(17))
    assert {before for number, _, before in judge.calls if number == 1} == {0.0}
    assert {before for number, _, before in judge.calls if number == 3} == {1.2}


@pytest.mark.parametrize("count", [3, 20])
def test_interrupted_again_and_again_it_ends_as_if_it_had_not_been(tmp_path: Path, count: int) -> None:
    """And judges nothing twice."""
    names = names_of(count)
    worth = {name: random.Random(name).random() for name in (*names, *LATE)}
    whole = MadeUp(worth, error=0.5)
    expected = found(whole, names)
    calls = []
    for _ in range(1000):
        judge = MadeUp(worth, error=0.5, stops_after=3)
        ledger = SearchLedger.beside(tmp_path / "v.gguf", {"search": count})
        try:
            outcome = found(judge, names, ledger)
        except KeyboardInterrupt:
            continue
        else:
            break
        finally:
            calls += judge.calls
    assert outcome == expected
    assert calls == whole.calls


def test_a_ledger_of_another_search_stops_it_before_anything_is_judged(tmp_path: Path) -> None:
    """Two searches into one file would spoil each other."""
    names = names_of(3)
    judge = MadeUp(dict.fromkeys(names, 1.0))
    found(judge, names, SearchLedger.beside(tmp_path / "v.gguf", {"search": 1}))
    other = MadeUp(dict.fromkeys(names, 1.0))
    with pytest.raises(SteerError, match="its search was 1, and is now 2"):
        found(other, names, SearchLedger.beside(tmp_path / "v.gguf", {"search": 2}))
    assert other.calls == []


def test_progress_tells_the_round_and_the_best_so_far() -> None:
    """Candidate i of N, from none to all in each round."""
    names = names_of(10)
    events: list[Progress] = []
    judge = MadeUp({name: float(number) for number, name in enumerate(names)})
    halve(names, Judgements(judge, None, events.append), lambda _: [])
    assert [(event.done, event.total) for event in events] == [
        *((done, 10) for done in range(11)),
        *((done, 5) for done in range(6)),
    ]
    assert events[0].stage == "searching, round 1 of 2"
    assert events[-1].stage == "searching, round 2 of 2"
    assert events[-1].unit == "candidates, best so far: candidate 9 (9.00)"


def _one(name: str, effect: float, mean_damage: float, fluent: float = 1.0) -> Judged:
    return Judged(1, name, 1.0, effect, 0.5, mean_damage, fluent)


def test_the_front_holds_what_nothing_beats() -> None:
    """More effect or less change; an effect that broken answers go with counts for less."""
    judged = [_one("most", 3, 0.3), _one("less", 2, 0.2), _one("broken", 2.5, 0.25, 0.5), _one("beaten", 1.9, 0.2)]
    assert [entry.candidate for entry in front(judged)] == ["most", "less"]


def test_the_winner_is_on_the_front_and_equals_do_not_beat_each_other() -> None:
    """Of a set of equals all are there."""
    judged = [_one("a", 1, 0.1), _one("b", 1, 0.1)]
    assert front(judged) == judged
    draw = random.Random(0)
    many = [_one(str(number), draw.random(), draw.random()) for number in range(50)]
    assert max(many, key=lambda entry: (entry.score, -entry.mean_damage)) in front(many)
