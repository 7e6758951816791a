"""What the service promises: each token under the settings of its moment, memory used again only where it is right."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ggufsteer.engine.capture import TokenSequence, capture
from ggufsteer.engine.generate import generate
from ggufsteer.engine.interventions import Intervention
from ggufsteer.engine.messages import (
    AddVector,
    Band,
    ChangeSettings,
    Generate,
    Load,
    Measure,
    Measured,
    RemoveVector,
    SamplingSettings,
    Settings,
    Statistics,
    StatisticsRead,
    Stop,
    Tokenize,
    Tokenized,
    Turn,
    VectorAdded,
    Wrote,
)
from ggufsteer.engine.model import LoadOptions, Model
from ggufsteer.engine.serving import Service
from ggufsteer.engine.steer import steered
from ggufsteer.files.control_vector import ControlVector
from tests.engine.served import GREEDY, Served, answer_of, question, random_vector, written

RED: Settings = (Band(vector="red", strength=1.0),)
BLUE: Settings = (Band(vector="blue", strength=-0.7, layers=(2, 3)),)
CUT: Settings = (Band(vector="blue", operation="ablate"), Band(vector="red", strength=0.5))


@pytest.fixture(scope="module")
def vectors(tiny_paths: dict[str, Path]) -> dict[str, ControlVector]:
    """Two vectors for the tiny model, about half as long as its states."""
    with Model.open(tiny_paths["F32"], LoadOptions(n_threads=1)) as model:
        return {
            name: random_vector(seed, model.identity, lambda layer: 40.0, [1, 2, 3])
            for seed, name in enumerate(("red", "blue"))
        }


@pytest.fixture(scope="module")
def files(vectors: dict[str, ControlVector], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The two vectors as files."""
    folder = tmp_path_factory.mktemp("vectors")
    return {name: written(folder / f"{name}.gguf", vector) for name, vector in vectors.items()}


@pytest.fixture(scope="module")
def shared(tiny_paths: dict[str, Path], files: dict[str, Path]) -> Iterator[Served]:
    """A service with the tiny model and both vectors."""
    served = Served(tiny_paths["F32"])
    for name, path in files.items():
        served.add(name, path)
    yield served
    served.close()


def fresh(tiny_paths: dict[str, Path], files: dict[str, Path]) -> Served:
    """Another service of the same kind, with nothing in memory."""
    served = Served(tiny_paths["F32"])
    for name, path in files.items():
        served.add(name, path)
    return served


@pytest.mark.parametrize(
    ("settings", "interventions"),
    [
        ((), []),
        (RED, [("red", 1.0, "add", None)]),
        ((*RED, *BLUE), [("red", 1.0, "add", None), ("blue", -0.7, "add", (2, 3))]),
        (CUT, [("blue", 1.0, "ablate", None), ("red", 0.5, "add", None)]),
        ((Band(vector="red", strength=0.8, operation="clamp"),), [("red", 0.8, "clamp", None)]),
    ],
)
def test_answers_are_those_of_the_engine(
    exact: Model, vectors: dict[str, ControlVector], shared: Served, settings: Settings, interventions: list
) -> None:
    """A service writes, token for token, what the model writes in one go under the same steering."""
    prompt = exact.encode_chat([{"role": "user", "content": "What is tea?"}])
    acting = [Intervention(vectors[name], *more[:2], layers=more[2]) for name, *more in interventions]
    with steered(exact, acting):
        (expected,) = generate(exact, [prompt], max_tokens=8)
    answer, _ = shared.ask([question("What is tea?", settings)], settings)
    assert answer.tokens == expected.tokens
    assert answer.content == expected.text


def test_memory_is_used_again_where_tokens_and_settings_are_equal(shared: Served) -> None:
    """A second question costs its own tokens only."""
    turns = [question("What is tea?", RED)]
    answer, first = shared.ask(turns, RED)
    turns += [answer, question("And coffee?", BLUE)]
    _, second = shared.ask(turns, BLUE)
    assert second.n_reused == first.n_context
    _, again = shared.ask(turns, BLUE)
    assert again.n_reused == again.n_prompt


def test_from_here_on_leaves_the_past_as_it_was(shared: Served, tiny_paths: dict, files: dict) -> None:
    """Whether the history is in memory or read again, each part counts as read under the settings of its time."""
    turns = [question("What is tea?", RED)]
    answer, _ = shared.ask(turns, RED, meanwhile=[(3, ChangeSettings(settings=BLUE))])
    assert [segment.settings for segment in answer.segments] == [RED, BLUE]
    turns += [answer, question("And coffee?", CUT)]
    shared.ask(turns, CUT)
    other = fresh(tiny_paths, files)
    other.ask(turns, CUT)
    assert_alike(shared.logits, other.logits)
    other.close()


def test_as_if_always_is_a_model_that_never_was_otherwise(shared: Served, exact: Model, vectors: dict) -> None:
    """After a change in the middle of an answer everything before it counts as read under the new settings."""
    answer, finished = shared.ask(
        [question("What is tea?", RED)],
        RED,
        policy="as if always",
        meanwhile=[(3, ChangeSettings(settings=BLUE))],
    )
    assert finished.n_answer == len(answer.tokens)
    tokens = [*exact.encode_chat([{"role": "user", "content": "What is tea?"}]), *answer.tokens]
    with steered(exact, [Intervention(vectors["blue"], -0.7, layers=(2, 3))]):
        assert_alike(shared.logits, whole_logits(exact, tokens))


def whole_logits(model: Model, tokens: list[int]) -> np.ndarray:
    """The logits behind tokens that are computed in one batch, with an empty memory before and after."""
    context = model.context
    context.clear()
    outputs = [False] * (len(tokens) - 1) + [True]
    context.decode(tokens, range(len(tokens)), [0] * len(tokens), outputs)
    logits = context.logits(len(tokens) - 1)
    context.clear()
    return logits


def assert_alike(seen: np.ndarray, expected: np.ndarray) -> None:
    """Logits may differ by rounding only."""
    assert np.abs(seen - expected).max() <= 1e-3 * np.abs(expected).max()


def test_of_several_changes_the_last_one_holds(shared: Served) -> None:
    """What lies between two tokens is never steered by a setting that was gone before it could act."""
    answer, _ = shared.ask(
        [question("What is tea?")],
        meanwhile=[(2, ChangeSettings(settings=settings)) for settings in (RED, CUT, BLUE)],
    )
    assert [segment.settings for segment in answer.segments] == [(), BLUE]


def test_a_stop_ends_the_answer_after_the_present_token(shared: Served) -> None:
    """What was written stays, and the next answer is not hurt."""
    answer, finished = shared.ask([question("What is tea?")], meanwhile=[(3, Stop())])
    assert finished.reason == "stopped"
    assert len(answer.tokens) == 3
    whole, finished = shared.ask([question("What is tea?")])
    assert finished.reason == "length"
    assert whole.tokens[:3] == answer.tokens
    rest, _ = shared.ask(
        [question("What is tea?"), answer], continues=True, sampling=GREEDY.model_copy(update={"max_tokens": 5})
    )
    assert answer.tokens + rest.tokens == whole.tokens


def test_the_text_is_whole_characters(shared: Served) -> None:
    """The tokens of this model are single bytes: characters come when they are complete, and nothing is lost."""
    first = len(shared.events)
    sampling = SamplingSettings(temperature=3.0, top_p=1.0, seed=5, max_tokens=64)
    answer, _ = shared.ask([question("What is tea?")], sampling=sampling)
    pieces = [event for event in shared.events[first:] if isinstance(event, Wrote)]
    assert answer_of(pieces).content == answer.content
    assert shared.service._open is not None
    vocabulary = shared.service._open.model.vocabulary
    assert answer.content == vocabulary.continuation(answer.tokens)


def test_the_meter_says_what_the_states_say(shared: Served, exact: Model, vectors: dict) -> None:
    """Each token's number is its state's place between the vector's two sides, as an independent capture has it."""
    first = len(shared.events)
    answer, finished = shared.ask([question("What is tea?", RED)], RED, meter=True)
    pieces = [event for event in shared.events[first:] if isinstance(event, Wrote)]
    prompt = exact.encode_chat([{"role": "user", "content": "What is tea?"}])
    rows = tuple(range(len(prompt), len(prompt) + len(answer.tokens)))
    for name, vector in vectors.items():
        layer = vector.best_layer
        with steered(exact, [Intervention(vectors["red"], 1.0)]):
            (states,) = capture(exact, [TokenSequence((*prompt, *answer.tokens), rows)], [layer], pool=False)
        zero, one = vector.scale(layer)
        expected = (states[:, 0] @ vector.unit(layer) - zero) / (one - zero)
        weights = np.array([len(piece.tokens) for piece in pieces])
        means = np.add.reduceat(expected, np.cumsum(weights) - weights) / weights
        np.testing.assert_allclose([piece.expressions[name] for piece in pieces], means, rtol=1e-4, atol=1e-4)
    assert finished.meter_cost is None or finished.meter_cost < 1


def gate(threshold: float, decided: str) -> Settings:
    """Blue is added where red is expressed."""
    return (Band(vector="blue", operation="gate", condition="red", threshold=threshold, decided=decided),)


@pytest.mark.parametrize("decided", ["prompt", "token"])
def test_a_gate_that_does_not_open_changes_nothing(shared: Served, decided: str) -> None:
    """Below its threshold not one bit of the logits is touched."""
    turns = [question("What is tea?")]
    shared.ask(turns)
    plain = shared.logits
    closed = gate(1e6, decided)
    _, finished = shared.ask([question("What is tea?", closed)], closed)
    assert np.array_equal(shared.logits, plain)
    assert not any(finished.gates.values())
    opened = gate(-1e6, decided)
    _, finished = shared.ask([question("What is tea?", opened)], opened)
    assert not np.array_equal(shared.logits, plain)
    assert finished.gates == ({"blue": True} if decided == "prompt" else {})


def test_a_gate_on_the_prompt_is_decided_once_and_remembered(shared: Served, tiny_paths: dict, files: dict) -> None:
    """In a longer conversation each answer keeps the decision of its own question, in memory or read again."""
    opened = gate(-1e6, "prompt")
    turns = [question("What is tea?", opened)]
    answer, _ = shared.ask(turns, opened)
    turns += [answer, question("And coffee?", opened)]
    _, finished = shared.ask(turns, opened)
    assert finished.n_reused > len(answer.tokens)
    other = fresh(tiny_paths, files)
    other.ask(turns, opened)
    assert_alike(shared.logits, other.logits)
    other.close()


@pytest.mark.parametrize("scope", ["prompt", "answer"])
def test_a_scope_steers_its_part_alone(shared: Served, tiny_paths: dict, files: dict, scope: str) -> None:
    """Prompt and answer under different settings are what a scope stands for."""
    band = RED[0].model_copy(update={"scope": scope})
    answer, _ = shared.ask([question("What is tea?", (band,))], (band,))
    other = fresh(tiny_paths, files)
    asked, written_under = (RED, ()) if scope == "prompt" else ((), RED)
    expected, _ = other.ask([question("What is tea?", asked)], written_under)
    assert answer.tokens == expected.tokens
    assert_alike(shared.logits, other.logits)
    other.close()


def test_a_full_context_ends_the_answer(tiny_paths: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The model writes until nothing more fits in; the next question drops the oldest turns, and says how many."""
    monkeypatch.setattr(Model, "ends_text", lambda model, token: False)
    served = Served(tiny_paths["F32"], n_ctx=256)
    sampling = SamplingSettings(temperature=1.0, seed=1)
    turns = [question("What is tea?")]
    answer, finished = served.ask(turns, sampling=sampling)
    assert (finished.reason, finished.n_context) == ("context", 255)
    turns += [answer.model_copy(update={"content": "x" * 200, "tokens": (), "segments": ()}), question("And coffee?")]
    first = len(served.events)
    served.ask(turns)
    assert max(event.n_turns_dropped for event in served.events[first:] if event.event == "started") == 2
    served.close()


def test_what_cannot_be_is_refused_and_the_service_goes_on(shared: Served, files: dict, tmp_path: Path) -> None:
    """Each failure names its request and says what to do."""
    assert (
        "no vector called 'green'"
        in shared.refused(Generate(turns=(question("a"),), settings=(Band(vector="green"),))).message
    )
    assert "the context holds 512" in shared.refused(Generate(turns=(question("x" * 2000),))).message
    failed = shared.refused(AddVector(vector="green", path=str(tmp_path / "none.gguf")))
    assert (failed.request, failed.subject) == ("add vector", "green")
    assert "stands for another vector" in shared.refused(AddVector(vector="red", path=str(files["blue"]))).message
    layers = (Band(vector="red", layers=(9, 12)),)
    assert "layer" in shared.refused(Generate(turns=(question("a", layers),), settings=layers)).message
    answer, _ = shared.ask([question("What is tea?")])
    assert answer.tokens


def test_other_requests_are_served_meanwhile(shared: Served, files: dict) -> None:
    """Vectors can be added while an answer is written; a second answer has to wait."""
    first = len(shared.events)
    shared.ask(
        [question("What is tea?")],
        meanwhile=[
            (1, AddVector(vector="crimson", path=str(files["red"]))),
            (2, ChangeSettings(settings=(Band(vector="crimson"),))),
            (3, Generate(turns=(question("b"),))),
            (3, Statistics()),
        ],
    )
    kinds = [event.event for event in shared.events[first:]]
    assert kinds.count("failed") == 1
    assert {"vector added", "statistics read", "finished"} <= set(kinds)
    shared.do(RemoveVector(vector="crimson"))


def test_the_history_may_speak_of_vectors_that_are_gone(shared: Served) -> None:
    """A conversation that was loaded from a file is read without them."""
    gone: Settings = (Band(vector="gone"),)
    answer, _ = shared.ask([question("What is tea?", gone)])
    plain, _ = shared.ask([question("What is tea?")])
    assert answer.tokens == plain.tokens


def test_measuring_counting_and_statistics(shared: Served) -> None:
    """A text is measured unsteered, and the conversation's answers are the same afterwards."""
    before, _ = shared.ask([question("What is tea?", RED)], RED)
    measured = shared.do(Measure(text="tea"))
    assert isinstance(measured, Measured)
    assert "".join(measured.tokens).endswith("tea")
    assert {len(values) for values in measured.expressions.values()} == {len(measured.tokens)}
    after, _ = shared.ask([question("What is tea?", RED)], RED)
    assert before.tokens == after.tokens
    counted = shared.do(Tokenize(text="tea"))
    assert isinstance(counted, Tokenized)
    assert counted.n_tokens == 3
    statistics = shared.do(Statistics())
    assert isinstance(statistics, StatisticsRead)
    assert statistics.n_context > 0


def test_a_vector_tells_what_a_slider_needs(shared: Served, files: dict) -> None:
    """Layers, the best one, and the doses that were measured."""
    added = next(event for event in shared.events if isinstance(event, VectorAdded))
    assert (added.vector, added.layers, added.recommended, added.maximum) == ("red", (1, 2, 3), 1.0, None)
    assert added.path == str(files["red"])


def test_without_a_model_everything_else_is_refused() -> None:
    """Nothing but loading one can come first."""
    events: list = []
    service = Service(lambda: None, events.append)
    for request in (Tokenize(text="a"), Generate(turns=(Turn(role="user", content="a"),)), Load(model="/none.gguf")):
        service.handle(request)
    assert [event.event for event in events] == ["failed"] * 3
