"""The chat: what is asked of the model's process in each state, and that its death costs nothing that was written."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ggufsteer.engine.messages import ChangeSettings, Failed, Generate, Load, Loaded, RemoveVector, Stop
from ggufsteer.tasks import chat_file
from ggufsteer.tasks.chat import (
    AnswerEnded,
    AnswerGrew,
    Chat,
    ChatOptions,
    Draft,
    EqualiserChanged,
    Notice,
    Progress,
    Said,
    State,
)
from tests.tasks.fake_worker import MODEL, FakeWorker

VECTORS = (("happy.gguf", None), ("sad.gguf", 0.0))


class Stage:
    """A chat on a fake process, with everything that it told."""

    def __init__(self, worker: FakeWorker | None = None, *, vectors: tuple = VECTORS) -> None:
        self.worker = worker or FakeWorker()
        self.notices: list[Notice] = []
        self.chat = Chat(self.worker, ChatOptions(Load(model="fake.gguf"), vectors, "Be kind."), self.notices.append)

    def pump(self) -> None:
        """Let everything happen that was asked for."""
        self.worker.pump(self.chat.handle)

    def ask(self, text: str = "Hello?") -> bool:
        """Ask, and let everything happen."""
        taken = self.chat.send(text)
        self.pump()
        return taken

    def said(self, level: str = "") -> list[str]:
        """Give what was told to the person."""
        return [one.text for one in self.notices if isinstance(one, Said) and level in ("", one.level)]

    def texts(self) -> list[str]:
        """Give what is said on the present way."""
        return [message.text for message in self.chat.conversation.path()]


@pytest.fixture
def stage() -> Stage:
    """A chat that is ready."""
    made = Stage()
    made.chat.start()
    made.pump()
    assert made.chat.state is State.READY
    made.notices.clear()
    return made


@pytest.fixture
def held() -> Stage:
    """A chat whose answers wait for the test."""
    made = Stage(FakeWorker(hold=True))
    made.chat.start()
    made.pump()
    made.notices.clear()
    return made


def test_a_question_sent_while_the_model_loads_waits() -> None:
    """It is asked once model and vectors are there, under their settings; a second one is refused."""
    stage = Stage()
    stage.chat.start()
    assert stage.chat.send("Hello?")
    assert not stage.chat.send("And?")
    assert stage.worker.generates == []
    stage.pump()
    assert stage.texts() == ["Hello?", "All! is! well.!"]
    assert [band.vector for band in stage.worker.generates[0].settings] == ["happy"]


def test_stop_takes_back_a_question_that_waits() -> None:
    """Its text is given back, and not asked."""
    stage = Stage()
    stage.chat.start()
    stage.chat.send("Hello?")
    stage.chat.stop()
    stage.pump()
    assert Draft("Hello?") in stage.notices
    assert (stage.worker.generates, stage.chat.state) == ([], State.READY)


def test_an_answer_comes_in_pieces_and_is_kept(stage: Stage) -> None:
    """Pieces, end, state: in this order, and the turn holds tokens and segments."""
    assert stage.ask()
    grown = [one.text for one in stage.notices if isinstance(one, AnswerGrew)]
    assert grown == ["All!", " is!", " well.!"]
    assert Progress(4, 4) in stage.notices
    answer = stage.chat.conversation.last_answer
    assert answer is not None
    assert (answer.reason, answer.tokens, len(answer.segments)) == ("end", [1, 2, 3], 1)
    stage.ask("And?")
    system, *turns = stage.worker.generates[-1].turns
    assert (system.content, [turn.content for turn in turns]) == ("Be kind.", ["Hello?", "All! is! well.!", "And?"])
    assert turns[1].tokens == (1, 2, 3)


@pytest.mark.parametrize("text", ["", " \n\t"])
def test_nothing_is_no_question(stage: Stage, text: str) -> None:
    """Nothing is asked."""
    assert not stage.chat.send(text)
    assert stage.worker.generates == []


REFUSED_MEANWHILE: dict[str, Callable[[Chat], object]] = {
    "send": lambda chat: chat.send("More?"),
    "regenerate": lambda chat: chat.regenerate(),
    "continue": lambda chat: chat.continue_answer(),
    "undo": lambda chat: chat.undo(),
    "redo": lambda chat: chat.redo(),
    "edit": lambda chat: chat.edit_last(),
    "rewrite": lambda chat: chat.rewrite_answer("x"),
    "branch": lambda chat: chat.switch_branch(1),
    "new": lambda chat: chat.new(),
    "load": lambda chat: chat.load("talk.json"),
}


@pytest.mark.parametrize("what", REFUSED_MEANWHILE)
@pytest.mark.parametrize("stopping", [False, True])
def test_while_an_answer_is_written_the_conversation_holds_still(held: Stage, what: str, stopping: bool) -> None:
    """What would change it is refused aloud, and sends nothing."""
    held.ask()
    held.worker.write("A")
    held.pump()
    if stopping:
        held.chat.stop()
    before = len(held.worker.sent), held.texts()
    assert not REFUSED_MEANWHILE[what](held.chat)
    assert held.said("error") == ["an answer is being written"]
    assert (len(held.worker.sent), held.texts()) == before


def test_a_stopped_answer_is_kept(held: Stage) -> None:
    """Its reason says so; the next stop is only answered with what else there is."""
    held.ask()
    held.worker.write("All")
    held.pump()
    held.chat.stop()
    assert held.chat.state is State.STOPPING
    held.chat.stop()
    assert sum(isinstance(request, Stop) for request in held.worker.sent) == 1
    held.pump()
    answer = held.chat.conversation.last_answer
    assert answer is not None
    assert (answer.text, answer.reason, held.chat.state) == ("All", "stopped", State.READY)


def test_settings_may_change_while_an_answer_is_written(held: Stage) -> None:
    """The process is told, and the answer has a segment for each."""
    held.ask()
    held.worker.write("A")
    held.pump()
    held.chat.equaliser.set_strength("sad", -1)
    held.chat.settings_changed()
    held.worker.write("B")
    held.worker.finish()
    held.pump()
    assert isinstance(held.worker.sent[-1], ChangeSettings)
    answer = held.chat.conversation.last_answer
    assert answer is not None
    assert [(one.text, len(one.settings)) for one in answer.segments] == [("A", 1), ("B", 2)]


def test_sliders_moved_between_answers_send_nothing(stage: Stage) -> None:
    """The next request says what holds then; the front end is told."""
    n_sent = len(stage.worker.sent)
    stage.chat.equaliser.set_strength("happy", 0.5)
    stage.chat.settings_changed()
    assert len(stage.worker.sent) == n_sent
    assert stage.notices == [EqualiserChanged()]


def test_regenerated_answers_differ_by_seed_and_are_repeatable(stage: Stage) -> None:
    """Another attempt is another draw; the same attempts again are the same draws."""
    stage.ask()
    stage.chat.regenerate()
    stage.pump()
    assert [one.sampling.seed for one in stage.worker.generates] == [0, 1]
    assert stage.worker.generates[1].turns[-1].role == "user"


def test_continuing_sends_the_beginning_of_the_answer(stage: Stage) -> None:
    """The process goes on where it was cut, and the pieces go to the same message."""
    stage.ask()
    stage.chat.continue_answer()
    stage.pump()
    request = stage.worker.generates[-1]
    assert (request.continues, request.turns[-1].role) == (True, "assistant")
    assert stage.texts() == ["Hello?", "All! is! well.!All! is! well.!"]


@pytest.mark.parametrize("act", ["regenerate", "continue_answer", "undo", "redo", "edit_last", "switch_branch"])
def test_what_an_empty_conversation_cannot_do_is_said(stage: Stage, act: str) -> None:
    """Nothing is sent, nothing breaks."""
    n_sent = len(stage.worker.sent)
    assert not getattr(stage.chat, act)(*([1] if act == "switch_branch" else []))
    assert len(stage.said("error")) == 1
    assert len(stage.worker.sent) == n_sent


def test_an_edited_question_makes_a_branch(stage: Stage) -> None:
    """Its text comes back, what is sent then stands beside it, and the way back is a switch."""
    stage.ask("One?")
    assert stage.chat.edit_last() == "One?"
    stage.ask("Two?")
    assert stage.texts()[0] == "Two?"
    assert stage.chat.switch_branch(1)
    assert stage.texts()[0] == "One?"


def test_redo_brings_back_the_conversation_before_new(stage: Stage) -> None:
    """Until something is said in the new one."""
    stage.ask("One?")
    stage.chat.new()
    assert stage.texts() == []
    assert stage.chat.conversation.system == "Be kind."
    stage.chat.redo()
    assert stage.texts()[0] == "One?"
    stage.chat.new()
    stage.ask("Two?")
    assert not stage.chat.redo()


def test_dropped_turns_are_said_when_they_grow(stage: Stage) -> None:
    """Once for each number, not once for each answer."""
    for n_dropped in (0, 2, 2, 4):
        stage.worker.n_turns_dropped = n_dropped
        stage.ask()
    assert [text.split(":")[1] for text in stage.said("warning")] == [
        " the oldest 2 messages are left out",
        " the oldest 4 messages are left out",
    ]


# -- comparing ---------------------------------------------------------------------------------------------------------


def test_a_comparison_answers_without_and_then_with_steering(stage: Stage) -> None:
    """The same question, seed and history; the steered answer is the turn, the other one stands beside it."""
    stage.chat.compare = stage.chat.meter = True
    stage.ask()
    baseline, steered = stage.worker.generates
    assert (baseline.settings, baseline.turns[-1].settings) == ((), ())
    assert [band.vector for band in steered.settings] == ["happy"]
    assert (baseline.sampling, baseline.turns[-1].content) == (steered.sampling, steered.turns[-1].content)
    answer = stage.chat.conversation.last_answer
    assert answer is not None
    assert (answer.baseline, answer.text) == ("All is well.", "All! is! well.!")
    assert [piece[1] for piece in answer.expressions] == [{"happy": 0.5}] * 3
    ended = [one.column for one in stage.notices if isinstance(one, AnswerEnded)]
    assert ended == ["baseline", "steered"]
    assert len(stage.worker.generates) == 2


def test_with_nothing_that_steers_there_is_nothing_to_compare(stage: Stage) -> None:
    """One answer is enough."""
    stage.chat.compare = True
    stage.chat.equaliser.reset_all()
    stage.ask()
    assert len(stage.worker.generates) == 1


def test_stopping_a_comparison_stops_all_of_it(held: Stage) -> None:
    """No steered answer begins after the person has stopped the other one."""
    held.chat.compare = True
    held.ask()
    held.worker.write("A")
    held.pump()
    held.chat.stop()
    held.pump()
    assert (len(held.worker.generates), held.chat.state) == (1, State.READY)
    assert held.texts() == ["Hello?", ""]


def test_sliders_do_not_touch_the_baseline(held: Stage) -> None:
    """A slider moved meanwhile counts for the steered answer only."""
    held.chat.compare = True
    held.ask()
    held.chat.equaliser.set_strength("happy", 0.25)
    held.chat.settings_changed()
    assert not any(isinstance(request, ChangeSettings) for request in held.worker.sent)
    held.worker.finish()
    held.pump()
    assert held.worker.generates[-1].settings[0].strength == 0.25


# -- death -------------------------------------------------------------------------------------------------------------


def die(stage: Stage) -> None:
    """End the process unasked."""
    stage.worker.die()
    stage.pump()


def test_death_while_loading_gives_the_waiting_question_back() -> None:
    """The chat is broken, the reason is said, the text is not lost."""
    stage = Stage()
    stage.chat.start()
    stage.chat.send("Hello?")
    stage.worker.events.clear()
    die(stage)
    assert stage.chat.state is State.BROKEN
    assert stage.said("error") == ["signal 6 (aborted): GGML_ASSERT failed"]
    assert stage.notices[-1] == Draft("Hello?")
    assert stage.chat.exit_code == 1


@pytest.mark.parametrize("written", ["", "All"])
@pytest.mark.parametrize("stopping", [False, True])
def test_death_while_answering_keeps_what_was_written(held: Stage, written: str, stopping: bool) -> None:
    """An answer without a word is no turn; the question stays in any case."""
    held.ask()
    if written:
        held.worker.write(written)
    held.pump()
    if stopping:
        held.chat.stop()
        held.worker.events.clear()
    die(held)
    assert held.chat.state is State.BROKEN
    assert held.texts() == ["Hello?", *([written] if written else [])]
    assert [one.reason for one in held.notices if isinstance(one, AnswerEnded)] == ["died"]


@pytest.mark.parametrize("finished", [False, True])
def test_death_before_the_steered_answer_keeps_the_baseline(held: Stage, tmp_path: Path, finished: bool) -> None:
    """What was read stays beside the question, in a saved file too; it is no turn, and can be asked for again."""
    held.chat.compare = True
    held.ask()
    held.worker.write("A")
    if finished:
        held.worker.finish()
        held.pump()
    die(held)
    answer = held.chat.conversation.last_answer
    assert answer is not None
    assert (answer.baseline, answer.text, answer.reason) == ("A", "", "died")
    assert held.texts() == ["Hello?", ""]
    held.chat.save(str(tmp_path / "talk.json"))
    _, again = chat_file.read(tmp_path / "talk.json")
    assert again.last_answer == answer
    held.worker.hold = False
    held.chat.compare = False
    held.ask("And?")
    assert [turn.content for turn in held.worker.generates[-1].turns] == ["Be kind.", "And?"]
    held.chat.switch_branch(1)
    assert held.chat.conversation.last_answer == answer
    held.chat.regenerate()
    held.pump()
    assert held.texts() == ["Hello?", "All! is! well.!"]


def test_death_before_a_word_of_the_baseline_leaves_the_question(held: Stage) -> None:
    """Nothing was read, so nothing is kept."""
    held.chat.compare = True
    held.ask()
    die(held)
    assert (held.texts(), held.chat.state) == (["Hello?"], State.BROKEN)


@pytest.mark.parametrize("act", ["send", "regenerate", "restart"])
def test_after_a_death_the_next_request_starts_anew(stage: Stage, act: str) -> None:
    """Model, vectors and strengths are as before, then the question is asked."""
    stage.ask("One?")
    stage.chat.equaliser.set_strength("sad", -0.7)
    before = stage.chat.equaliser.to_json()
    die(stage)
    n_sent = len(stage.worker.sent)
    assert getattr(stage.chat, act)(*(["Two?"] if act == "send" else [])) is not False
    stage.pump()
    assert [request.do for request in stage.worker.sent[n_sent:]] == [
        "load",
        "add vector",
        "add vector",
        *([] if act == "restart" else ["generate"]),
    ]
    assert (stage.chat.state, stage.chat.equaliser.to_json()) == (State.READY, before)
    assert (stage.worker.n_starts, stage.chat.exit_code) == (2, 0)


def test_a_model_that_cannot_be_loaded_leaves_a_usable_chat() -> None:
    """The reason is said once, not again for each vector; another try loads everything."""
    stage = Stage()
    stage.worker.fail_next = Failed(request="load", message="fake.gguf: no such file", hint="check", exit_code=1)
    stage.chat.start()
    stage.worker.events.extend([Failed(request="add vector", subject="happy", message="no model is loaded")])
    stage.pump()
    assert (stage.chat.state, stage.said("error")) == (State.BROKEN, ["fake.gguf: no such file"])
    stage.ask()
    assert stage.chat.state is State.READY
    assert [slider.name for slider in stage.chat.equaliser.sliders] == ["happy", "sad"]


def test_a_vector_that_does_not_fit_has_no_slider_and_holds_nothing_up() -> None:
    """The others come, and the chat is ready."""
    stage = Stage(vectors=(("missing.gguf", None), ("happy.gguf", 1.0)))
    stage.chat.start()
    stage.pump()
    assert stage.chat.state is State.READY
    assert [slider.name for slider in stage.chat.equaliser.sliders] == ["happy"]
    assert [refusal.subject for refusal in stage.chat.refusals] == ["missing"]


def test_a_refused_answer_ends(stage: Stage) -> None:
    """The question stays, the reason is said, the chat is ready."""
    stage.worker.fail_next = Failed(request="generate", message="the message is too long")
    stage.ask()
    assert (stage.texts(), stage.chat.state) == (["Hello?"], State.READY)
    assert stage.said("error") == ["the message is too long"]


def test_late_words_of_a_dead_process_are_ignored(held: Stage) -> None:
    """Nothing is written into a message that is over."""
    held.ask()
    held.worker.write("A")
    die(held)
    held.worker.write("B")
    held.worker.finish()
    held.pump()
    assert (held.texts(), held.chat.state) == (["Hello?", "A"], State.BROKEN)


def test_a_silent_process_is_said_once(stage: Stage) -> None:
    """And again only after it has spoken."""
    for silent in (1.0, 11.0, 12.0, 0.5, 13.0):
        stage.worker.silent_seconds = silent
        stage.chat.tick()
    assert len(stage.said("warning")) == 2


def test_nothing_is_told_after_the_end(stage: Stage) -> None:
    """A screen that is gone cannot be drawn on."""
    stage.chat.close()
    stage.worker.die()
    stage.pump()
    assert stage.notices == []


def test_text_from_outside_is_cleaned_before_it_is_told() -> None:
    """Model names, notes, errors: no escape sequence comes through."""
    stage = Stage(FakeWorker(model=MODEL.model_copy(update={"name": "\x1b[2JEvil", "notes": ("\x1b]0;x\x07note",)})))
    stage.chat.start()
    stage.pump()
    stage.worker.fail_next = Failed(request="generate", message="\x1b[31mred", hint="\x9b2J")
    stage.ask()
    model = stage.chat.model
    assert isinstance(model, Loaded)
    assert (model.name, stage.chat.reader_notes) == ("Evil", ("note",))
    assert not any(ord(letter) < 32 or 127 <= ord(letter) < 160 for letter in repr(stage.notices))
    assert "\\x1b" not in repr(stage.notices)


# -- vectors and files -------------------------------------------------------------------------------------------------


def test_a_vector_that_messages_were_written_under_stays_in_the_process(stage: Stage) -> None:
    """The history can still be read as it was; one that was never used goes."""
    stage.ask()
    stage.chat.remove_vector("happy")
    stage.chat.remove_vector("sad")
    assert [request.vector for request in stage.worker.sent if isinstance(request, RemoveVector)] == ["sad"]
    stage.ask("And?")
    request = stage.worker.generates[-1]
    assert (request.settings, request.turns[1].settings[0].vector) == ((), "happy")
    stage.chat.add_vector("happy.gguf")
    stage.pump()
    assert [slider.name for slider in stage.chat.equaliser.sliders] == ["happy"]


def test_a_vector_without_a_slider_survives_death_and_saving(stage: Stage, tmp_path: Path) -> None:
    """The history is read as it was, and no slider comes back by itself."""
    stage.ask()
    stage.chat.remove_vector("happy")
    stage.chat.save(str(tmp_path / "talk.json"))
    die(stage)
    stage.ask("And?")
    other = Stage()
    other.chat.start()
    other.pump()
    other.chat.load(str(tmp_path / "talk.json"))
    other.pump()
    other.ask("And?")
    for one in (stage, other):
        assert [slider.name for slider in one.chat.equaliser.sliders] == ["sad"]
        assert one.worker.generates[-1].turns[1].settings[0].vector == "happy"
        assert one.chat.state is State.READY


def test_at_temperature_0_the_same_again_is_said(stage: Stage) -> None:
    """Nobody should wonder why regenerating changes nothing; with a slider moved it does."""
    stage.chat.sampling = stage.chat.sampling.model_copy(update={"temperature": 0.0})
    stage.ask()
    stage.chat.regenerate()
    stage.pump()
    assert len(stage.said("info")) == 1
    stage.chat.equaliser.set_strength("happy", 0.5)
    stage.chat.regenerate()
    assert len(stage.said("info")) == 1


def test_a_removed_vector_stops_steering_at_once(held: Stage) -> None:
    """A running answer is told before the vector is gone."""
    held.ask()
    held.chat.remove_vector("happy")
    assert isinstance(held.worker.sent[-1], ChangeSettings)
    assert held.worker.sent[-1].settings == ()


def test_equal_names_are_told_apart(stage: Stage) -> None:
    """Files of the same name in two folders are two sliders."""
    stage.chat.add_vector("other/happy.gguf", 0.3)
    stage.pump()
    assert [slider.name for slider in stage.chat.equaliser.sliders] == ["happy", "sad", "happy-2"]


def test_a_loaded_conversation_goes_on_as_it_was(stage: Stage, tmp_path: Path) -> None:
    """Messages, sliders, policy and sampling, in another chat with other vectors."""
    stage.ask()
    stage.chat.equaliser.set_strength("sad", -0.25)
    stage.chat.policy = "as if always"
    stage.chat.sampling = stage.chat.sampling.model_copy(update={"seed": 9})
    assert stage.chat.save(str(tmp_path / "talk.json"))
    other = Stage(vectors=(("brief.gguf", 1.0),))
    other.chat.start()
    other.pump()
    assert other.chat.load(str(tmp_path / "talk.json"))
    other.pump()
    assert other.chat.state is State.READY
    assert other.texts() == stage.texts()
    assert other.chat.equaliser.to_json() == stage.chat.equaliser.to_json()
    assert (other.chat.policy, other.chat.sampling.seed) == ("as if always", 9)
    assert other.said("warning") == []
    other.ask("And?")
    stage.ask("And?")
    assert other.worker.generates[-1] == stage.worker.generates[-1]


def test_a_conversation_loaded_without_a_process_keeps_its_sliders(stage: Stage, tmp_path: Path) -> None:
    """Written again before the vectors are back, the file holds what it held."""
    stage.ask()
    stage.chat.equaliser.set_strength("sad", -0.25)
    stage.chat.save(str(tmp_path / "talk.json"))
    other = Stage(vectors=())
    other.chat.start()
    other.pump()
    die(other)
    other.chat.load(str(tmp_path / "talk.json"))
    other.chat.save(str(tmp_path / "again.json"))
    kept, again = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("talk", "again"))
    assert again["equaliser"] == kept["equaliser"] != []


def test_another_model_or_vector_is_a_warning(stage: Stage, tmp_path: Path) -> None:
    """The words are still worth reading; a missing vector's settings are left out of what is sent."""
    vector = tmp_path / "happy.gguf"
    vector.write_bytes(b"1")
    stage.chat.add_vector(str(vector), 1.0)
    stage.chat.add_vector(str(tmp_path / "gone.gguf"), 1.0)
    stage.pump()
    stage.ask()
    path = tmp_path / "talk.json"
    stage.chat.save(str(path))
    vector.write_bytes(b"2")
    path.write_text(path.read_text().replace(str(tmp_path / "gone.gguf"), str(tmp_path / "missing.gguf")))
    other = Stage(FakeWorker(model=MODEL.model_copy(update={"content_hash": "ffff"})))
    other.chat.start()
    other.pump()
    other.chat.load(str(path))
    other.pump()
    assert len(other.said("warning")) == 2
    assert other.texts() == stage.texts()
    assert other.ask("And?")
    assert isinstance(other.worker.sent[-1], Generate)
    assert other.chat.state is State.READY
    assert "gone" not in {band.vector for turn in other.worker.generates[-1].turns for band in turn.settings}


def test_a_file_that_cannot_be_read_changes_nothing(stage: Stage, tmp_path: Path) -> None:
    """It is said, with the file."""
    stage.ask()
    before = stage.texts(), len(stage.worker.sent)
    assert not stage.chat.load(str(tmp_path / "none.json"))
    assert "none.json" in stage.said("error")[0]
    assert (stage.texts(), len(stage.worker.sent)) == before


@pytest.mark.parametrize(("gate", "condition"), [("happy", "sad"), ("sad", "happy")])
@pytest.mark.parametrize("dies", [False, True])
def test_a_loaded_gate_has_its_condition(stage: Stage, tmp_path: Path, gate: str, condition: str, dies: bool) -> None:
    """Whichever of the two comes first, and though the process dies between them."""
    stage.chat.equaliser.set_strength("sad", 0.5)
    stage.chat.equaliser.set_gate(gate, condition=condition)
    stage.chat.equaliser.set_operation(gate, "gate")
    stage.chat.save(str(tmp_path / "talk.json"))
    other = Stage(vectors=())
    other.chat.start()
    other.pump()
    other.chat.load(str(tmp_path / "talk.json"))
    if dies:
        other.worker.events.pop()
        die(other)
        assert len(other.chat.equaliser.sliders) == 1
        other.chat.restart()
    other.pump()
    assert other.chat.equaliser.settings() == stage.chat.equaliser.settings()
    assert other.said("warning") == []


def test_a_loaded_gate_whose_condition_stays_away_says_so(stage: Stage, tmp_path: Path) -> None:
    """It decides by itself then, and the answer comes."""
    stage.chat.equaliser.set_gate("happy", condition="sad")
    stage.chat.equaliser.set_operation("happy", "gate")
    path = tmp_path / "talk.json"
    stage.chat.save(str(path))
    path.write_text(path.read_text().replace("sad.gguf", "missing.gguf"))
    other = Stage(vectors=())
    other.chat.start()
    other.pump()
    other.chat.load(str(path))
    other.pump()
    assert other.said("warning") == ["happy: its condition sad is not there; it decides by itself"]
    assert other.chat.equaliser.slider("happy").condition is None
    other.ask()
    assert other.texts()[-1] == "All! is! well.!"


def test_a_condition_that_is_removed_or_refused_after_a_death_is_missed_aloud(stage: Stage) -> None:
    """No gate changes what it looks at unsaid."""
    for act in ("remove", "refuse"):
        stage.chat.equaliser.set_gate("happy", condition="sad")
        stage.chat.equaliser.set_operation("happy", "gate")
        if act == "remove":
            stage.chat.remove_vector("sad")
        else:
            die(stage)
            stage.chat.restart()
            stage.worker.events[-1] = Failed(request="add vector", subject="sad", message="sad.gguf: no such file")
        stage.pump()
        assert stage.said("warning") == ["happy: its condition sad is not there; it decides by itself"]
        stage.notices.clear()
        stage.chat.add_vector("sad.gguf", 0.0)
        stage.pump()
