"""How steering moves the probabilities of likely tokens: what is kept of a vocabulary that is too large to keep whole.

The tokens are those that the unsteered model finds likeliest after each token of some texts. It compares nothing: what
the numbers mean is decided above.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ggufsteer.engine.interventions import NOTHING, Steering
from ggufsteer.engine.logits import LogitReading, log_normalisers
from ggufsteer.engine.measurement import ScoredText
from ggufsteer.engine.model import Model
from ggufsteer.engine.sequences import TokenSequences

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

N_LIKELIEST = 200
"""They hold nearly all of the probability: on the models that were tried 99 % or more."""


class LikeliestTokens:
    """Texts to be read under one steering after the other."""

    def __init__(self, model: Model, texts: Sequence[ScoredText], n_likeliest: int = N_LIKELIEST) -> None:
        """Find the likeliest tokens; the model is evaluated once.

        Args:
            model: An open model.
            texts: At least one; every scored token of theirs counts.
            n_likeliest: How many tokens of the vocabulary are kept after each.

        Raises:
            SteerError: A text is longer than the context.
        """
        self._model = model
        self._reading = LogitReading(model, TokenSequences.pack(text.sequence for text in texts))
        n_rows, kept = sum(map(len, texts)), min(n_likeliest, model.n_vocab)
        self._tokens = np.empty((n_rows, kept), dtype=np.int64)
        self.unsteered: Float32 = np.empty((n_rows, kept), dtype=np.float32)
        """Logarithms of their probabilities. # (tokens, n_likeliest)"""

        def find(observations: Int64, logits: Float32) -> None:
            self._tokens[observations] = np.argpartition(-logits, kept - 1, axis=1)[:, :kept]
            self.unsteered[observations] = self._logs(observations, logits)

        with model.context.steered_by(NOTHING):
            self._reading.run(find)

    @property
    def n_distinct(self) -> int:
        """Tokens that the model computes for one steering."""
        return self._reading.totals.n_distinct

    def under(self, steering: Steering | Float32) -> Float32:
        """Give the log-probabilities of the same tokens under a steering, or with rows added. # (tokens, n_likeliest)

        Raises:
            EngineError: llama.cpp failed, or gave output that is not a number.
        """
        logs = np.empty(self._tokens.shape, dtype=np.float32)

        def take(observations: Int64, logits: Float32) -> None:
            logs[observations] = self._logs(observations, logits)

        with self._model.context.steered_by(steering):
            self._reading.run(take)
        return logs

    def _logs(self, observations: Int64, logits: Float32) -> Float32:
        likely = np.take_along_axis(logits, self._tokens[observations], axis=1)
        return likely - log_normalisers(logits)[:, np.newaxis].astype(np.float32)
