"""Whatever a person does in whatever order, the memory holds what a fresh one would hold."""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from ggufsteer.engine.messages import Band, ChangeSettings, Policy, Request, SamplingSettings, Settings, Stop, Turn
from ggufsteer.engine.model import LoadOptions, Model
from tests.engine.served import Served, question, random_vector, written

N_MOVES = 500
N_RUNS = 3
CLOSE = 1e-3
"""Of the largest logit: single tokens and whole prompts are summed in another order."""

_BANDS = st.builds(
    Band,
    vector=st.sampled_from(["red", "blue"]),
    strength=st.sampled_from([-1.0, -0.3, 0.25, 0.5, 1.0]),
    operation=st.sampled_from(["add", "add", "add", "ablate", "clamp", "gate"]),
    layers=st.sampled_from([None, None, (1, 2), (3, 3)]),
    scope=st.sampled_from(["all", "all", "prompt", "answer"]),
    threshold=st.sampled_from([-0.5, 0.0, 0.5]),
    decided=st.sampled_from(["prompt", "token"]),
)
_SETTINGS = st.lists(_BANDS, max_size=2, unique_by=lambda band: band.vector).map(tuple)
_QUESTIONS = st.sampled_from(["What is tea?", "And coffee?", "x", "Tell me about the sea and the hills."])


@pytest.fixture(scope="module")
def served_twice(
    tiny_paths: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Served, Served]]:
    """Two services of one kind: one lives through it all, the other begins anew each time."""
    folder = tmp_path_factory.mktemp("vectors")
    pair = (Served(tiny_paths["F32"]), Served(tiny_paths["F32"]))
    with Model.open(tiny_paths["F32"], LoadOptions(n_threads=1)) as model:
        for seed, name in enumerate(("red", "blue")):
            path = written(folder / f"{name}.gguf", random_vector(seed, model.identity, lambda layer: 30.0, [1, 2, 3]))
            for served in pair:
                served.add(name, path)
    yield pair
    for served in pair:
        served.close()


class Person(RuleBasedStateMachine):
    """Somebody who moves sliders, asks, stops, regenerates, takes back and edits."""

    lived: ClassVar[Served]
    fresh: ClassVar[Served]
    n_moves: ClassVar[int]

    def __init__(self) -> None:
        super().__init__()
        self.turns: list[Turn] = []
        self.present: Settings = ()
        self.policy: Policy = "from here on"
        self.changed = False

    @initialize(present=_SETTINGS)
    def begin(self, present: Settings) -> None:
        """Start with some sliders up."""
        self.present = present

    @rule(present=_SETTINGS)
    def move(self, present: Settings) -> None:
        """Move sliders between answers."""
        self.present = present
        type(self).n_moves += 1

    @rule(policy=st.sampled_from(["from here on", "as if always"]))
    def decide(self, policy: Policy) -> None:
        """Choose what a change means for the past."""
        self.policy = policy

    @rule(
        text=_QUESTIONS, seed=st.integers(0, 3), meanwhile=st.lists(st.tuples(st.integers(0, 6), _SETTINGS), max_size=4)
    )
    def ask(self, text: str, seed: int, meanwhile: list[tuple[int, Settings]]) -> None:
        """Ask, and move sliders while the answer comes."""
        self.turns.append(question(text, self.present))
        self._answer(seed, [(when, ChangeSettings(settings=present)) for when, present in sorted(meanwhile, key=_when)])
        self.present = ([self.present] + [present for when, present in sorted(meanwhile, key=_when)])[-1]
        type(self).n_moves += 1 + len(meanwhile)

    @rule(text=_QUESTIONS, when=st.integers(0, 5))
    def ask_and_stop(self, text: str, when: int) -> None:
        """Ask, and stop the answer in the middle."""
        self.turns.append(question(text, self.present))
        self._answer(0, [(when, Stop())])
        type(self).n_moves += 2

    @rule(seed=st.integers(0, 3))
    def regenerate(self, seed: int) -> None:
        """Have the last answer written again, under the sliders of now."""
        if self.turns and self.turns[-1].role == "assistant":
            self.turns.pop()
            self._answer(seed, [])
        type(self).n_moves += 1

    @rule()
    def go_on(self) -> None:
        """Let the last answer go on, unless it was cut inside of a character, which nobody can write down."""
        if (
            self.turns
            and self.turns[-1].role == "assistant"
            and self.turns[-1].content.rstrip("\ufffd") == self.turns[-1].content != ""
        ):
            more, _ = self.lived.ask(
                self.turns, self.present, policy=self.policy, continues=True, sampling=_sampling(0, 3)
            )
            last = self.turns.pop()
            self.turns.append(
                last.model_copy(
                    update={
                        "content": last.content + more.content,
                        "tokens": last.tokens + more.tokens,
                        "segments": last.segments + more.segments,
                    }
                )
            )
            self.changed = True
        type(self).n_moves += 1

    @rule()
    def take_back(self) -> None:
        """Undo the last question."""
        self.turns = self.turns[:-2]
        type(self).n_moves += 1

    @rule(text=_QUESTIONS)
    def edit(self, text: str) -> None:
        """Ask the last question otherwise."""
        if len(self.turns) >= 2:
            self.turns = [*self.turns[:-2], question(text, self.present)]
            self._answer(1, [])
        type(self).n_moves += 1

    def _answer(self, seed: int, meanwhile: list[tuple[int, Request]]) -> None:
        if len(self.turns) > 12:
            self.turns = self.turns[-1:]
        answer, _ = self.lived.ask(
            self.turns, self.present, policy=self.policy, sampling=_sampling(seed, 7), meanwhile=meanwhile
        )
        self.turns.append(answer)
        self.changed = True

    @invariant()
    def the_memory_is_that_of_a_fresh_one(self) -> None:
        """The next token's logits are what they are for somebody who has just been told it all."""
        changed, self.changed = self.changed, False
        if not changed or not self.turns[-1].tokens:
            return
        expected = self.fresh.read(self.turns, self.lived.present, self.policy, forget=True)
        for seen in (self.lived.logits, self.lived.read(self.turns, self.lived.present, self.policy, forget=False)):
            assert np.abs(seen - expected).max() <= CLOSE * np.abs(expected).max()


def _when(pair: tuple[int, Settings]) -> int:
    return pair[0]


def _sampling(seed: int, max_tokens: int) -> SamplingSettings:
    return SamplingSettings(temperature=1.0, top_p=1.0, seed=seed, max_tokens=max_tokens)


def test_any_order_of_moves_ends_where_a_fresh_start_would(served_twice: tuple[Served, Served]) -> None:
    """At least 500 slider moves, stops, regenerations, undos and edits."""
    Person.lived, Person.fresh = served_twice
    Person.n_moves = 0
    run_state_machine_as_test(
        Person,
        settings=settings(
            max_examples=N_RUNS,
            stateful_step_count=N_MOVES,
            deadline=None,
            derandomize=True,
            # Making a failure smaller takes longer than all the rest.
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert Person.n_moves >= N_MOVES
