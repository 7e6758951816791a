"""Writing token after token in several ways at once, each in a context of its own, so that they can be compared.

Between two tokens of one way there is one of every other, at the same place in the text: whatever slows the machine
down for a while slows all of them down alike. It knows how to time a token, and not what the ways are for.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median, quantiles
from time import perf_counter

import llama_cpp
import numpy as np

from ggufsteer.engine.context import Context, ContextShape
from ggufsteer.engine.interventions import NOTHING, Steering
from ggufsteer.engine.library import ReaderName
from ggufsteer.engine.model import Model
from ggufsteer.engine.reading import Reader
from ggufsteer.engine.twin import PythonReader

CONTEXT = 512
PREFIX = 64
"""Tokens that are in the memory before the first one is timed."""
Decode = Callable[[int, int], None]
"""Evaluates a token at a position."""
Seconds = dict[str, list[list[float]]]
"""For each way, for each round, what each token took."""


@dataclass(frozen=True)
class Way:
    """One way to decode."""

    name: str
    steering: Steering = NOTHING
    reader: ReaderName | None = "native"
    """None: llama.cpp has no callback at all."""
    watch: Callable[[Context, Decode], Decode] | None = None
    """Makes of a decode one that also looks at states."""


class _Silent(PythonReader):
    """A reader without a callback: llama.cpp runs as it does for everybody else."""

    def __init__(self) -> None:
        super().__init__()
        self.callback = llama_cpp.ggml_backend_sched_eval_callback()


@contextmanager
def _open_context(model: Model, way: Way, n_threads: int) -> Iterator[Context]:
    if way.reader is not None:
        context = model.new_context(way.reader, n_ctx=CONTEXT, n_sequences=1)
    else:
        reader: Reader = _Silent()
        shape = ContextShape(CONTEXT, CONTEXT, CONTEXT, 1, n_threads, model.options.flash_attention)
        # The engine gives every context a callback; this is the one place that wants to know what that costs.
        context = Context(model._pointer, shape, reader, model.n_vocab, (model.n_layer - 1, model.n_embd))
    try:
        context.set_steering(way.steering)
        yield context
    finally:
        context.close()


class Race:
    """All ways on one model, at the same token."""

    def __init__(self, model: Model, contexts: Mapping[str, tuple[Context, Decode]]) -> None:
        """Take over contexts that are open; `open_race` makes them."""
        self._contexts = contexts
        self._random = random.Random(0)
        self._n_vocab = model.n_vocab

    def run(self, rounds: int, tokens_per_round: int) -> Seconds:
        """Time rounds of some tokens each; each begins behind a new prefix."""
        timed = [self._round(tokens_per_round) for _ in range(rounds)]
        return {name: [each[name] for each in timed] for name in self._contexts}

    def _round(self, n_tokens: int) -> dict[str, list[float]]:
        tokens = self._random.choices(range(self._n_vocab), k=PREFIX + n_tokens)
        for context, _ in self._contexts.values():
            context.clear(with_data=False)
            context.decode(tokens[:PREFIX], range(PREFIX), [0] * PREFIX, [False] * PREFIX)
        seconds: dict[str, list[float]] = {name: [] for name in self._contexts}
        order = list(self._contexts)
        for position in range(PREFIX, len(tokens)):
            # Whoever comes after another finds what that one has left in the processor's memory.
            self._random.shuffle(order)
            for name in order:
                begin = perf_counter()
                self._contexts[name][1](tokens[position], position)
                seconds[name].append(perf_counter() - begin)
        return seconds


@contextmanager
def open_race(model: Model, ways: Sequence[Way], n_threads: int) -> Iterator[Race]:
    """Open a context for each way, and decode a little to warm up."""
    with _all_open(model, list(ways), n_threads) as contexts:
        race = Race(model, contexts)
        race.run(1, 4)
        yield race


@contextmanager
def _all_open(model: Model, ways: list[Way], n_threads: int) -> Iterator[dict[str, tuple[Context, Decode]]]:
    if not ways:
        yield {}
        return
    way, *others = ways
    with _open_context(model, way, n_threads) as context, _all_open(model, others, n_threads) as rest:
        yield {way.name: (context, _decode(way, context)), **rest}


def _decode(way: Way, context: Context) -> Decode:
    def decode(token: int, position: int) -> None:
        context.decode([token], [position], [0], [True])
        context.logits(0)

    return decode if way.watch is None else way.watch(context, decode)


def ratios(seconds: Seconds, reference: str) -> dict[str, tuple[float, float, float]]:
    """Give each way's speed as a share of the reference's: lower quartile, median and upper quartile of the rounds.

    The share of a round is the median over its tokens, each compared with the reference's token at the same place.
    """
    result = {}
    for name, rounds in seconds.items():
        shares = [
            median(theirs / ours for theirs, ours in zip(*each, strict=True))
            for each in zip(seconds[reference], rounds, strict=True)
        ]
        low, middle, high = quantiles(shares, n=4, method="inclusive") if len(shares) > 1 else shares * 3
        result[name] = (low, middle, high)
    return result


def rate(rounds: Sequence[Sequence[float]]) -> float:
    """Give tokens per second, of the median token."""
    return 1 / median(token for each in rounds for token in each)


def unit(n_embd: int, seed: int) -> np.ndarray:
    """Draw a direction of unit length."""
    direction = np.random.default_rng(seed).standard_normal(n_embd)
    return (direction / np.linalg.norm(direction)).astype(np.float32)
