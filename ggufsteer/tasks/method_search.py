"""Successive halving: all candidates are judged cheaply, the better half with more, the last ones on everything.

It knows names and judgements; what a candidate adds to the model, and how it is judged, is decided elsewhere. Every
judgement is kept in a ledger at once, so that an interrupted search goes on where it was, and ends as if it had not
been interrupted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from ggufsteer.files.search_ledger import Judged, SearchLedger
from ggufsteer.tasks.progress import Progress, ReportProgress, ignore

FINALISTS = 8
"""So many candidates, at most, are judged on everything: few enough to let each of them speak, and enough to see what
is to be had for what."""

Judge = Callable[[str, "Round", float], Judged]
"""Judges a candidate; gets the strength to begin with, by the judgements before, 0 where there is none."""


@dataclass(frozen=True)
class Round:
    """One round of a search."""

    number: int
    """Counted from 1."""
    total: int
    n_candidates: int

    @property
    def is_last(self) -> bool:
        """Whether the candidates are judged on everything, and heard."""
        return self.number == self.total

    @property
    def share(self) -> float:
        """The part of everything that candidates are judged on; each round costs about the same."""
        return float(0.5 ** (self.total - self.number))


def rounds_of(n_candidates: int) -> list[Round]:
    """Give the rounds of a search, with the number of candidates in each.

    >>> [each.n_candidates for each in rounds_of(30)]
    [30, 15, 8]
    """
    sizes = [n_candidates]
    while sizes[-1] > FINALISTS:
        sizes.append((sizes[-1] + 1) // 2)
    return [Round(number, len(sizes), size) for number, size in enumerate(sizes, start=1)]


class Judgements:
    """What was judged in this run and the ones before, each thing once."""

    def __init__(self, judge: Judge, ledger: SearchLedger | None, report: ReportProgress = ignore) -> None:
        """Begin, or go on.

        Args:
            judge: Judges what has not been judged yet.
            ledger: Where judgements are kept; None keeps none.
            report: Told how far each round is.

        Raises:
            SteerError: The ledger belongs to another search.
        """
        self._judge = judge
        self._ledger = ledger
        self._report = report
        self._known = {(entry.round, entry.candidate): entry for entry in (ledger.read() if ledger else ())}
        self._best: Judged | None = None

    def of_round(self, each: Round, names: Sequence[str]) -> list[Judged]:
        """Judge candidates, in the order given.

        A round of its own is judged by other texts, so only what is of one round can be compared.
        """
        judged = []
        self._best = None
        self._tell(each, 0, len(names))
        for done, name in enumerate(names, start=1):
            judged.append(self._of_one(each, name))
            self._best = max((self._best, judged[-1]), key=_score) if self._best else judged[-1]
            self._tell(each, done, len(names))
        return judged

    def _of_one(self, each: Round, name: str) -> Judged:
        if (each.number, name) not in self._known:
            before = self._known.get((each.number - 1, name))
            self._known[each.number, name] = self._judge(name, each, before.strength if before else 0.0)
            if self._ledger:
                self._ledger.write(list(self._known.values()))
        return self._known[each.number, name]

    def _tell(self, each: Round, done: int, total: int) -> None:
        best = f", best so far: {self._best.candidate} ({self._best.score:.2f})" if self._best else ""
        self._report(Progress(f"searching, round {each.number} of {each.total}", done, total, f"candidates{best}"))


@dataclass(frozen=True)
class Outcome:
    """What a search has come to."""

    winner: Judged
    finalists: tuple[Judged, ...]
    """All that were judged on everything, the winner included, best first."""
    n_candidates: int
    """How many were judged at all."""


def halve(names: Sequence[str], judgements: Judgements, late: Callable[[Sequence[str]], Sequence[str]]) -> Outcome:
    """Find the best candidate.

    Args:
        names: The candidates, in the order in which they are judged; of two that are equally good the first wins.
        judgements: Judges them.
        late: Gives the candidates that only take part in the last round, whatever was seen before; it is told which
            ones are left, the best first.
    """
    rounds = rounds_of(len(names))
    left, best_first = list(names), list(names)
    for each, following in pairwise(rounds):
        ranked = sorted(judgements.of_round(each, left), key=_score, reverse=True)
        best_first = [entry.candidate for entry in ranked[: following.n_candidates]]
        left = [name for name in left if name in best_first]
    added = late(best_first)
    ranked = sorted(judgements.of_round(rounds[-1], [*added, *left]), key=_score, reverse=True)
    return Outcome(ranked[0], tuple(ranked), len(names) + len(added))


def front(judged: Sequence[Judged]) -> list[Judged]:
    """Give the candidates that no other beats: none does more and changes less besides.

    All of them reach the budget with the most changed tokens; the mean says what they do to all the others, and that
    trades off against the effect, which counts as far as answers are fluent.
    """
    return [one for one in judged if not any(_is_better(other, one) for other in judged)]


def _is_better(one: Judged, other: Judged) -> bool:
    ours, theirs = ((each.score, -each.mean_damage) for each in (one, other))
    return ours != theirs and ours[0] >= theirs[0] and ours[1] >= theirs[1]


def _score(entry: Judged) -> float:
    return entry.score
