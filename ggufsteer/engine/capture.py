"""Hidden states of many token sequences, at the wanted layers and tokens only.

The state at layer N is the output of block N, counted from 0 (llama.cpp's ``l_out-N``), steering included if there is
any. What sequences share is evaluated once, batches are filled, each graph ends after the deepest wanted layer, and
what is not wanted of a state is never held.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, overload

import numpy as np
from numpy.typing import NDArray

from ggufsteer.engine import backend
from ggufsteer.engine.context import Context
from ggufsteer.engine.evaluation import LEAST_TOKENS, Evaluation, StatesCallback
from ggufsteer.engine.library import ReaderName
from ggufsteer.engine.model import Model
from ggufsteer.engine.plan import Limits, Plan
from ggufsteer.engine.prefix_tree import PrefixTree
from ggufsteer.engine.progress import Progress, ProgressCallback
from ggufsteer.engine.reading import Targets
from ggufsteer.engine.reading_steps import StepMaker, Wanted
from ggufsteer.engine.sequences import TokenSequence, TokenSequences
from ggufsteer.errors import SteerError

__all__ = [
    "Progress",
    "ProgressCallback",
    "TokenSequence",
    "Wanted",
    "capture",
    "check_memory",
    "observe",
    "plan_capture",
]

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

_LARGEST_LOGITS = 256 << 20
"""Bytes. llama.cpp reserves a row of logits for each output, and the last layer is only computed for outputs."""
_MANY_ROWS = 0.25
"""From this share of wanted rows on, a batch is taken to want all of its rows."""
_PLAIN_ATTENTION_TOKENS = 256
"""The most tokens in a batch on a CPU without flash attention: every token is multiplied with every cell of the memory,
other sequences' too, and llama.cpp looks at the memory in steps of 256 cells. Batches of 512 are a tenth slower."""
_MOST_LANES = 126
"""llama.cpp reserves a row of logits for each sequence that a context may hold."""
_EXTRA_LANES = 2
"""Besides a plan's own: one holds on to the path, one takes what fills up a short batch (see `Evaluation`)."""


@overload
def capture(
    model: Model,
    sequences: Sequence[TokenSequence],
    layers: Sequence[int],
    *,
    pool: Literal[True] = True,
    progress: ProgressCallback | None = None,
    callback: ReaderName = "auto",
) -> Float32: ...


@overload
def capture(
    model: Model,
    sequences: Sequence[TokenSequence],
    layers: Sequence[int],
    *,
    pool: Literal[False],
    progress: ProgressCallback | None = None,
    callback: ReaderName = "auto",
) -> list[Float32]: ...


def capture(
    model: Model,
    sequences: Sequence[TokenSequence],
    layers: Sequence[int],
    *,
    pool: bool = True,
    progress: ProgressCallback | None = None,
    callback: ReaderName = "auto",
) -> Float32 | list[Float32]:
    """Read hidden states into memory.

    Args:
        model: An open model; what steers it at the moment takes part.
        sequences: Tokens, and the rows wanted of each.
        layers: 0-based layer numbers, each once; the result keeps their order.
        pool: Whether the rows of a sequence are averaged (in double precision).
        progress: Called after each decode.
        callback: "native" or "python" to insist on one implementation; they give the same bits.

    Returns:
        Pooled: float32 (sequences, layers, embd). Otherwise one float32 (rows, layers, embd) a sequence.

    Raises:
        SteerError: A sequence is longer than the context, a token is not in the vocabulary, or there is no such layer.
        EngineError: llama.cpp failed, or the model's graph does not hold the layer's output.
    """
    order = _checked_layers(layers, model.n_layer)
    packed = TokenSequences.pack(sequences)
    n_observations = len(packed) if pool else len(packed.rows)
    check_memory((n_observations, len(layers), model.n_embd))
    result = np.empty((n_observations, len(layers), model.n_embd), dtype=np.float32)

    ascending = order == sorted(order)

    def on_states(observations: Int64, states: Float32) -> None:
        result[observations] = states if ascending else states[:, order]

    observe(
        model,
        packed,
        sorted(layers),
        Wanted(stored=True),
        pool=pool,
        on_states=on_states,
        progress=progress,
        callback=callback,
    )
    return result if pool else np.split(result, packed.row_bounds[1:-1])


def observe(
    model: Model,
    sequences: TokenSequences,
    layers: Sequence[int],
    wanted: Wanted,
    *,
    pool: bool,
    on_states: StatesCallback | None = None,
    on_round: Callable[[int], None] | None = None,
    rounds_done: int = 0,
    progress: ProgressCallback | None = None,
    callback: ReaderName = "auto",
) -> Targets:
    """Read hidden states and make of each observation what is wanted, while the model runs.

    An observation is the mean over the rows of a sequence, numbered as the sequences are (`pool`), or each row by
    itself, numbered as `sequences.rows` is. They come in the order of the plan, which depends on nothing but the
    arguments, the model's options and its architecture.

    Args:
        model: An open model; what steers it at the moment takes part.
        sequences: Tokens, and the rows wanted of each.
        layers: Ascending 0-based layer numbers.
        wanted: What is made of each observation.
        pool: What an observation is.
        on_states: Takes the states that are to be stored, after each decode.
        on_round: Called with the number of finished rounds after each: here work can be resumed later.
        rounds_done: Rounds to leave out, since an earlier run has done them.
        progress: Called after each decode.
        callback: "native" or "python" to insist on one implementation; they give the same bits.

    Returns:
        The sums (sums, layers, embd), lengths (lengths, layers) and scores (scores, layers) that were wanted.

    Raises:
        SteerError: A sequence is longer than the context, a token is not in the vocabulary, or there is no such layer.
        EngineError: llama.cpp failed, or the model's graph does not hold the layer's output.
    """
    _checked_layers(layers, model.n_layer)
    model.vocabulary.check(sequences.tokens)
    plan = plan_capture(model, sequences, layers, pool=pool)
    steps = StepMaker(plan.tree, wanted, pool=pool)
    targets = Targets.make(
        len(layers),
        model.n_embd,
        accumulators=steps.n_accumulators(),
        sums=wanted.n_sums,
        lengths=wanted.n_lengths,
        scores=wanted.n_scores,
        directions=wanted.directions,
    )
    if len(sequences) == 0:
        return targets
    with _context(model, plan, callback) as context:
        numbers = np.array(layers, dtype=np.int32)
        flash = _flash_attention(model, int(plan.tree.lengths.max())) != "off"
        least_tokens = min(LEAST_TOKENS, _batch_tokens(model)) if flash else 0
        evaluation = Evaluation(model, context, plan, steps, numbers, targets, least_tokens)
        evaluation.run(on_states or _ignore, on_round or _ignore, rounds_done, progress)
    return targets


def plan_capture(model: Model, sequences: TokenSequences, layers: Sequence[int], *, pool: bool) -> Plan:
    """Plan what `observe` does; the model's weights need not be loaded.

    Raises:
        SteerError: A sequence is longer than the context.
    """
    several_rows = bool((sequences.row_counts > 1).any())
    # Cutting back takes a second sequence (see `Evaluation`).
    cuts_back = model.cuts_back and model.most_sequences > 1
    tree = PrefixTree.grow(sequences, splits_by_rows=pool and several_rows, cuts_back=cuts_back)
    longest = int(tree.lengths.max(initial=0))
    if longest > model.n_ctx:
        raise SteerError(
            f"text {int(tree.order[tree.lengths.argmax()]) + 1} has {longest} tokens, "
            f"and the context holds {model.n_ctx}",
            "shorten it, or give a larger context with -c",
        )
    batch_tokens = _batch_tokens(model)
    if _flash_attention(model, longest) == "off" and not backend.can_offload():
        batch_tokens = min(batch_tokens, _PLAIN_ATTENTION_TOKENS)
    if model.n_layer - 1 in layers and len(sequences.rows) > _MANY_ROWS * len(sequences.tokens):
        batch_tokens = min(batch_tokens, max(1, _LARGEST_LOGITS // (4 * model.n_vocab)))
    limits = Limits(
        batch_tokens=batch_tokens,
        memory_tokens=min(model.context_size, model.rounded_context(longest + batch_tokens)),
        lanes=max(1, min(_MOST_LANES, model.most_sequences - _EXTRA_LANES)),
    )
    return Plan(tree, limits)


def _flash_attention(model: Model, longest: int) -> str:
    """Say whether sequences of at most `longest` tokens are read with flash attention.

    It is exact where no batch is short (see `LEAST_TOKENS`), and faster. Where short batches cannot be filled up,
    because the memory has no room or takes one sequence only, or micro-batches are that short, plain attention is.
    """
    wanted = model.options.flash_attention
    fills_up = (
        model.most_sequences > _EXTRA_LANES
        and _batch_tokens(model) >= LEAST_TOKENS
        and model.context_size >= longest + LEAST_TOKENS
    )
    return "off" if wanted == "auto" and not fills_up else wanted


def _batch_tokens(model: Model) -> int:
    return min(model.options.n_ubatch, model.options.n_batch)


def _ignore(*_: object) -> None:
    pass


def _checked_layers(layers: Sequence[int], n_layer: int) -> list[int]:
    """Give, for each layer as asked for, its place among the layers in ascending order."""
    if not layers or len(set(layers)) != len(layers):
        raise SteerError(f"layers {list(layers)}: each must be given once, and at least one", "name the layers to read")
    for layer in layers:
        if not 0 <= layer < n_layer:
            raise SteerError(f"layer {layer} is not in the model", f"its layers are 0 to {n_layer - 1}")
    ascending = sorted(layers)
    return [ascending.index(layer) for layer in layers]


def check_memory(shape: tuple[int, int, int]) -> None:
    """Refuse states (observations, layers, embd) that could never be held, before the system has to stop the program.

    Raises:
        SteerError: They take more than the machine's whole memory.
    """
    n_bytes, memory = 4 * math.prod(shape), backend.physical_memory()
    if memory and n_bytes > memory:
        raise SteerError(
            f"{shape[0]} states of {shape[1]} layers take {n_bytes >> 30} GiB, and this machine has {memory >> 30}",
            "read fewer layers or texts, or the mean over each text's tokens instead of every token",
        )


@contextmanager
def _context(model: Model, plan: Plan, callback: ReaderName) -> Iterator[Context]:
    """Give a context that is as small as the plan allows, steered as the model is."""
    backend.return_memory()
    context = model.new_context(
        model.options.reader if callback == "auto" else callback,
        n_ctx=plan.limits.memory_tokens,
        n_sequences=plan.totals.n_lanes + _EXTRA_LANES,
        flash_attention=_flash_attention(model, int(plan.tree.lengths.max(initial=0))),
    )
    try:
        if model.has_context:
            context.set_steering(model.context.steering)
        yield context
    finally:
        context.close()
        backend.return_memory()
