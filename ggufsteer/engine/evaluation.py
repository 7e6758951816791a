"""The walk over a plan on a running model: batch after batch decoded, read, and cleared away.

It knows llama.cpp's memory (which sequence ids hold what) and nothing of what the states are for.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ggufsteer.engine.context import Context
from ggufsteer.engine.model import Model
from ggufsteer.engine.plan import Batch, Plan
from ggufsteer.engine.progress import Progress, ProgressCallback
from ggufsteer.engine.reading import Reading, Targets
from ggufsteer.engine.reading_steps import StepMaker

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]
StatesCallback = Callable[[Int64, Float32], None]
"""Takes observation numbers (states,) and their states (states, layers, embd), which it must not keep."""

LEAST_TOKENS = 64
"""A shorter batch is filled up with tokens that nobody reads. On a CPU, flash attention sums up batches of fewer tokens
in half precision, so that a state would depend on the company that it is computed in (0.5 % on a quantised model)."""


@dataclass
class Evaluation:
    """One walk over a plan."""

    model: Model
    context: Context
    plan: Plan
    steps: StepMaker
    layers: NDArray[np.int32]
    targets: Targets
    least_tokens: int
    """The fewest tokens in a batch."""

    def run(
        self,
        on_states: StatesCallback,
        on_round: Callable[[int], None],
        rounds_done: int,
        progress: ProgressCallback | None,
    ) -> None:
        """Evaluate all batches of the rounds that are not done yet; see `ggufsteer.engine.capture.observe`."""
        tree = self.plan.tree
        tokens_done, n_tokens = 0, tree.n_distinct
        round_ = rounds_done
        for batch in self.plan.batches():
            tokens_done += sum(max(0, piece.stop - max(piece.start, piece.known)) for piece in batch.pieces)
            if batch.round < rounds_done:
                continue
            if batch.round > round_:
                round_ = batch.round
                on_round(round_)
            self._evaluate(batch, on_states)
            if progress is not None:
                progress(Progress(self._places_done(batch), len(tree), tokens_done, n_tokens))
        on_round(round_ + 1)

    def _places_done(self, batch: Batch) -> int:
        tree, last = self.plan.tree, batch.pieces[-1]
        if last.stop < tree.lengths[last.place]:
            return last.place
        done = last.place + 1
        while done < len(tree) and tree.shared[done] == tree.lengths[done]:
            done += 1
        return done

    def _evaluate(self, batch: Batch, on_states: StatesCallback) -> None:
        """Decode a batch, read it, hand its states out, and leave in memory what the next one builds on."""
        wanted = self.steps.read(batch)
        states = np.empty((wanted.n_states, *self.targets.states.shape[1:]), dtype=np.float32)
        tokens, positions, lanes, n_lanes = self._tokens(batch)
        outputs = np.zeros(len(tokens), dtype=bool)
        needs_outputs = int(self.layers[-1]) == self.model.n_layer - 1
        if needs_outputs:
            outputs[wanted.rows] = True
        reading = Reading(
            layers=self.layers,
            rows=wanted.rows,
            steps=wanted.steps,
            targets=replace(self.targets, states=states),
            n_tokens=len(tokens),
            rows_are_outputs=needs_outputs,
            stop_early=self.model.may_stop_early,
        )
        self._before(batch)
        self.context.read(reading, lambda: self.context.decode(tokens, positions, lanes, outputs, n_lanes))
        if len(tokens) > batch.n_tokens:
            self.context.remove(batch.n_lanes)
        self._after(batch)
        if len(wanted.states):
            each_once = len(wanted.states) == len(states)
            on_states(wanted.observations, states if each_once else states[wanted.states])

    def _tokens(self, batch: Batch) -> tuple[NDArray[np.int32], ...]:
        """Give tokens, positions, first lanes and numbers of lanes of a batch, filled up to `least_tokens`."""
        tree = self.plan.tree
        tokens, positions, lanes, n_lanes = [], [], [], []
        for index, piece in enumerate(batch.pieces):
            counts = np.ones(piece.stop - piece.start, dtype=np.int32)
            shared = piece.stop
            for later in batch.pieces[index + 1 :]:
                shared = min(shared, later.start)
                if shared <= piece.start:
                    break
                counts[: shared - piece.start] = later.lane - piece.lane + 1
            tokens.append(tree.tokens_at(piece.place)[piece.start : piece.stop])
            positions.append(np.arange(piece.start, piece.stop, dtype=np.int32))
            lanes.append(np.full(len(counts), piece.lane, dtype=np.int32))
            n_lanes.append(counts)
        filler = self.least_tokens - batch.n_tokens
        if 0 < filler <= self.context.n_ctx - batch.n_cells and batch.n_lanes < self.context.n_seq_max - 1:
            tokens.append(np.repeat(tokens[0][:1], filler))
            positions.append(np.arange(filler, dtype=np.int32))
            lanes.append(np.full(filler, batch.n_lanes, dtype=np.int32))
            n_lanes.append(np.ones(filler, dtype=np.int32))
        return tuple(np.concatenate(parts) for parts in (tokens, positions, lanes, n_lanes))

    def _before(self, batch: Batch) -> None:
        """Let each lane begin with what it shares with the path in memory."""
        lane = 0
        for piece in batch.pieces:
            if piece.lane > lane and piece.cached:
                self.context.share(0, piece.lane, piece.cached)
            lane = piece.lane

    def _after(self, batch: Batch) -> None:
        """Leave the path to the next batch in memory, on lane 0, and nothing else."""
        context, last = self.context, batch.pieces[-1]
        if batch.keep == 0:
            context.clear(with_data=False)
            return
        if last.lane > 0:
            for lane in range(last.lane):
                context.remove(lane)
            context.share(last.lane, 0, batch.keep)
            context.remove(last.lane)
        elif batch.keep < last.stop:
            context.remove(0, batch.keep)
        guard = context.n_seq_max - 1
        if guard > 0:
            # llama.cpp overwrites cells outside of a sliding window, but only those of one sequence. A second one on
            # the whole path keeps its beginning, which is inside the window again once the path is cut back.
            context.remove(guard)
            context.share(0, guard, batch.keep)
