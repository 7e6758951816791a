"""What steering does to a model, in numbers: how likely it finds given texts, and how far its distributions move.

The texts are planned once and measured again under each steering; the unsteered model is measured once and kept, for
parts of the texts too. It knows nothing of concepts: which texts show one is decided above.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ggufsteer.engine.interventions import NOTHING, Steering
from ggufsteer.engine.logits import LogitReading, log_normalisers
from ggufsteer.engine.model import Model
from ggufsteer.engine.progress import ProgressCallback
from ggufsteer.engine.sequences import TokenSequence, TokenSequences
from ggufsteer.errors import SteerError

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

_KEPT_BYTES = 512 << 20
"""The most memory for the distributions of the unsteered model: 900 tokens of a vocabulary of 150,000."""


@dataclass(frozen=True)
class ScoredText:
    """A text, and from where on its tokens are scored."""

    tokens: tuple[int, ...]
    start: int
    """The first token that is scored, from 1 on: the first one has nothing before it."""

    def __post_init__(self) -> None:
        """Refuse a text of which nothing can be scored.

        Raises:
            SteerError: There is no token to score.
        """
        if not 1 <= self.start < len(self.tokens):
            raise SteerError(
                f"a text of {len(self.tokens)} tokens is to be scored from token {self.start}",
                "give at least two tokens, and a start after the first",
            )

    def __len__(self) -> int:
        """Tell how many tokens are scored."""
        return len(self.tokens) - self.start

    @property
    def sequence(self) -> TokenSequence:
        """What is evaluated, and the rows that tell of the scored tokens; the last token is only looked up."""
        return TokenSequence(self.tokens[:-1], tuple(range(self.start - 1, len(self.tokens) - 1)))


@dataclass(frozen=True, eq=False)
class Measured:
    """All texts under one steering."""

    log_probabilities: tuple[Float64, ...]
    """Of each text's scored tokens, natural logarithm. # (tokens,) each"""
    divergences: tuple[Float64, ...]
    """KL(unsteered ‖ steered) in nats, of the distribution that each scored token was drawn from, over the whole
    vocabulary; for the followed texts only, in their order. # (tokens,) each"""


class Measurement:
    """Texts to measure a model on, under one steering after the other."""

    def __init__(self, model: Model, texts: Sequence[ScoredText], followed: Sequence[ScoredText] = ()) -> None:
        """Plan it.

        Args:
            model: An open model.
            texts: Texts whose tokens are scored.
            followed: Texts whose tokens are scored, and whose distributions are compared with the unsteered model's.

        Raises:
            SteerError: A text is longer than the context, or the distributions of so many tokens cannot be kept.
        """
        self._model = model
        self._every = every = [*texts, *followed]
        sequences = TokenSequences.pack(text.sequence for text in every)
        self._bounds = np.cumsum([0, *map(len, every)])
        self._n_texts = len(texts)
        self._first_followed = int(self._bounds[len(texts)])
        n_followed = int(self._bounds[-1]) - self._first_followed
        if n_followed > most_followed(model):
            raise SteerError(
                f"the distributions of {n_followed} tokens would take more memory than is reserved for them",
                f"follow at most {most_followed(model)} tokens of this model",
            )
        self._targets = np.array([token for text in every for token in text.tokens[text.start :]], dtype=np.int64)
        self._reading = LogitReading(model, sequences)
        self._unsteered_logs: Float32 | None = None
        self._logs_at: Int64 = np.arange(n_followed)
        self._unsteered: Measured | None = None
        self.n_computed = 0
        """Tokens that the model has computed so far."""

    @property
    def n_distinct(self) -> int:
        """Tokens that the model computes for one steering: what texts begin with alike counts once."""
        return self._reading.totals.n_distinct

    def unsteered(self, *, progress: ProgressCallback | None = None) -> Measured:
        """Measure the model as it is; the first call does, later ones return the same."""
        if self._unsteered is None:
            n_followed = len(self._targets) - self._first_followed
            self._unsteered_logs = np.empty((n_followed, self._model.n_vocab), dtype=np.float32)
            self._unsteered = self._measured(NOTHING, self._unsteered_logs, None, progress)
        return self._unsteered

    def under(self, steering: Steering | Float32, *, progress: ProgressCallback | None = None) -> Measured:
        """Measure the model under a steering, or with rows added; afterwards it is steered as before.

        Args:
            steering: What steers; or only what is added to the outputs of layers 1 to n_layer - 1, (n_layer - 1, embd).
            progress: Called after each decode.

        Raises:
            EngineError: llama.cpp failed, or gave output that is not a number.
        """
        self.unsteered(progress=progress)
        wanted = steering if isinstance(steering, Steering) else Steering.of(steering)
        return self._measured(wanted, None, self._unsteered_logs, progress)

    def part(self, texts: Sequence[int], followed: Sequence[int]) -> Measurement:
        """Give some of the texts to be measured by themselves; what is known of the unsteered model is taken over.

        Args:
            texts: Numbers of the texts that are scored.
            followed: Numbers of the texts that are followed, counted from the first of these.
        """
        plain, behind = self.unsteered(), [self._n_texts + number for number in followed]
        chosen = Measurement(
            self._model, [self._every[number] for number in texts], [self._every[number] for number in behind]
        )
        chosen._unsteered = Measured(
            tuple(plain.log_probabilities[number] for number in (*texts, *behind)),
            tuple(plain.divergences[number] for number in followed),
        )
        chosen._unsteered_logs = self._unsteered_logs
        bounds = self._bounds - self._first_followed
        places = [self._logs_at[bounds[number] : bounds[number + 1]] for number in behind]
        chosen._logs_at = np.concatenate([np.zeros(0, dtype=np.int64), *places])
        return chosen

    def reworded(
        self,
        followed: Sequence[ScoredText],
        texts: Sequence[ScoredText] = (),
        *,
        progress: ProgressCallback | None = None,
    ) -> Measured:
        """Measure the unsteered model on the followed texts after other beginnings, such as a system prompt.

        Args:
            followed: As many texts as are followed, in their order, each with the same scored tokens.
            texts: Texts that are scored at the same time; any.
            progress: Called after each decode.

        Raises:
            SteerError: The scored tokens are not the same.
        """
        self.unsteered()
        other = Measurement(self._model, texts, followed)
        if not np.array_equal(other._targets[other._first_followed :], self._targets[self._first_followed :]):
            raise SteerError("the texts that are to be compared do not score the same tokens")
        other._logs_at = self._logs_at
        try:
            return other._measured(NOTHING, None, self._unsteered_logs, progress)
        finally:
            self.n_computed += other.n_computed

    def _measured(
        self, steering: Steering, keep: Float32 | None, compare: Float32 | None, progress: ProgressCallback | None
    ) -> Measured:
        scores = np.zeros(len(self._targets))
        divergences = np.zeros(len(self._targets) - self._first_followed)

        def take(observations: Int64, logits: Float32) -> None:
            normalisers = log_normalisers(logits)
            scores[observations] = logits[np.arange(len(logits)), self._targets[observations]] - normalisers
            followed = observations >= self._first_followed
            if not followed.any():
                return
            numbers = observations[followed] - self._first_followed
            chosen, shift = logits[followed], normalisers[followed]
            if keep is not None:
                keep[numbers] = chosen - shift[:, np.newaxis].astype(np.float32)
            if compare is not None:
                divergences[numbers] = divergence(compare[self._logs_at[numbers]], chosen, shift)

        with self._model.context.steered_by(steering):
            self._reading.run(take, progress=progress)
            self.n_computed += self.n_distinct
        cuts = self._bounds[1:-1]
        texts = np.split(scores, cuts) if len(self._bounds) > 1 else []
        parts = np.split(divergences, self._bounds[self._n_texts + 1 : -1] - self._first_followed)
        return Measured(tuple(texts), tuple(parts) if len(self._bounds) - 1 > self._n_texts else ())


def divergence(unsteered_logs: Float32, logits: Float32, normalisers: Float64) -> Float64:
    """Give KL(p ‖ q) = Σ p (log p - log q) of each row, in nats, never below 0. # (rows,)

    Products are of single precision and summed in double, which leaves about 1e-6.

    Args:
        unsteered_logs: log p. # (rows, n_vocab)
        logits: Of q. # (rows, n_vocab)
        normalisers: Of q; see `log_normalisers`. # (rows,)
    """
    # log q is rounded as log p was, so that of equal logits nothing is left.
    logs = logits - normalisers[:, np.newaxis].astype(np.float32)
    products = np.exp(unsteered_logs) * (unsteered_logs - logs)
    total: Float64 = np.maximum(products.sum(axis=1, dtype=np.float64), 0.0)
    return total


def most_followed(model: Model) -> int:
    """Give how many tokens' distributions are kept at most."""
    return max(1, _KEPT_BYTES // (4 * model.n_vocab))
