"""A conversation: nothing that was written gets lost, and what goes to the model is what was said."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggufsteer.engine.messages import Band, SamplingSettings, Segment
from ggufsteer.errors import FileFormatError, SteerError
from ggufsteer.tasks import chat_file
from ggufsteer.tasks.converse import Conversation, Message
from ggufsteer.tasks.equaliser import Equaliser
from ggufsteer.text import clean
from tests.tasks.fake_worker import MODEL

HAPPY = (Band(vector="happy"),)
SAD = (Band(vector="sad", strength=-0.5, operation="gate", condition="happy", layers=(2, 3)),)


def answered(conversation: Conversation, question: str, answer: str, settings: tuple[Band, ...] = ()) -> Message:
    """Ask and answer in one piece."""
    conversation.add_question(question, settings)
    message = conversation.begin_answer(settings)
    conversation.grow_answer(message, answer, (1, 2), settings)
    conversation.end_answer(message, "end")
    return message


def texts(conversation: Conversation) -> list[str]:
    """Give what is said on the present way."""
    return [message.text for message in conversation.path()]


@pytest.fixture
def talk() -> Conversation:
    """Two questions with their answers."""
    conversation = Conversation("Be kind.")
    answered(conversation, "One?", "1", HAPPY)
    answered(conversation, "Two?", "2")
    return conversation


def test_redo_takes_undo_back(talk: Conversation) -> None:
    """Any number of undos and as many redos change nothing, and undo stops at the beginning."""
    before = texts(talk)
    assert talk.undo()
    assert texts(talk) == ["One?", "1"]
    assert talk.undo()
    assert not talk.undo()
    assert texts(talk) == []
    assert talk.redo()
    assert talk.redo()
    assert not talk.redo()
    assert texts(talk) == before


def test_an_undone_branch_stays(talk: Conversation) -> None:
    """A question asked after an undo is a sibling of the one that was taken back; no redo leads away from it."""
    talk.undo()
    answered(talk, "Another?", "3")
    assert not talk.redo()
    assert texts(talk)[2:] == ["Another?", "3"]
    assert talk.switch(1)
    assert texts(talk)[2:] == ["Two?", "2"]
    assert talk.switch(-1)
    assert texts(talk)[2:] == ["Another?", "3"]


def test_regenerating_adds_a_sibling_answer(talk: Conversation) -> None:
    """Both answers stay, to the same question."""
    second = talk.begin_answer()
    talk.grow_answer(second, "zwei")
    talk.end_answer(second, "end")
    assert [message.text for message in talk.siblings(second)] == ["2", "zwei"]
    assert texts(talk) == ["One?", "1", "Two?", "zwei"]


def test_editing_gives_the_text_and_makes_a_branch(talk: Conversation) -> None:
    """The changed question stands beside the old one."""
    assert talk.edit() == "Two?"
    talk.add_question("Three?")
    head = talk.head
    assert head is not None
    assert [message.text for message in talk.siblings(head)] == ["Two?", "Three?"]


def test_a_first_question_can_be_edited() -> None:
    """Roots have siblings too."""
    talk = Conversation()
    answered(talk, "A?", "a")
    talk.edit()
    answered(talk, "B?", "b")
    assert talk.switch(1)
    assert texts(talk) == ["A?", "a"]


def test_a_rewritten_answer_has_no_tokens_and_one_segment(talk: Conversation) -> None:
    """Tokens of another text would be wrong; how it was steered is kept."""
    before = talk.last_answer
    assert before is not None
    written = talk.rewrite_answer("deux")
    assert (written.tokens, written.segments) == ([], [Segment(text="deux", settings=before.settings)])
    assert texts(talk)[-1] == "deux"
    talk.grow_answer(written, " trois", (7,), HAPPY)
    assert written.tokens == []
    assert [segment.text for segment in written.segments] == ["deux", " trois"]


def test_an_answer_remembers_each_change_of_the_settings() -> None:
    """A segment for each stretch; the same settings again go on in the same one."""
    talk = Conversation()
    talk.add_question("?")
    answer = talk.begin_answer(HAPPY)
    talk.grow_answer(answer, "a", (1,), HAPPY)
    talk.grow_answer(answer, "b", (2, 3))
    talk.grow_answer(answer, "c", (4,), SAD)
    talk.grow_answer(answer, "d", (5,), SAD)
    assert answer.segments == [
        Segment(text="ab", settings=HAPPY, n_tokens=3),
        Segment(text="cd", settings=SAD, n_tokens=2),
    ]
    assert answer.tokens == [1, 2, 3, 4, 5]


def test_pieces_of_the_meter_add_up_to_the_text() -> None:
    """Measured pieces stay apart, others are kept together."""
    talk = Conversation()
    talk.add_question("?")
    answer = talk.begin_answer()
    for text, expressions in (("a", {}), ("b", {}), ("c", {"happy": 1.0}), ("d", {"happy": 0.5})):
        talk.grow_answer(answer, text, expressions=expressions)
    assert answer.expressions == [("ab", {}), ("c", {"happy": 1.0}), ("d", {"happy": 0.5})]


def test_an_answer_without_a_word_is_no_turn() -> None:
    """The question stays, and the next attempt is its only answer; a model may still answer with nothing."""
    talk = Conversation()
    talk.add_question("?")
    assert not talk.end_answer(talk.begin_answer(), "died")
    assert texts(talk) == ["?"]
    assert talk.end_answer(talk.begin_answer(), "end")
    assert texts(talk) == ["?", ""]


def test_a_failed_attempt_leads_back_to_the_former_answer(talk: Conversation) -> None:
    """Regenerating in vain leaves the conversation as it was."""
    before = texts(talk)
    talk.end_answer(talk.begin_answer(), "died")
    assert texts(talk) == before


def test_an_unanswered_question_gets_a_sibling() -> None:
    """Two questions never follow on each other: templates refuse that."""
    talk = Conversation()
    talk.add_question("first")
    talk.add_question("second")
    assert texts(talk) == ["second"]
    assert [turn.role for turn in talk.turns()] == ["user"]


def test_continuing_an_answer_that_others_follow_on_copies_it(talk: Conversation) -> None:
    """What was said after it was said after the shorter one."""
    talk.undo()
    resumed = talk.resume_answer()
    talk.grow_answer(resumed, "+")
    assert [message.text for message in talk.siblings(resumed)] == ["1", "1+"]


def test_a_question_counts_as_read_under_what_its_answer_began_with() -> None:
    """Another answer to it, begun under another steering, reads the question so; the system prompt goes with it."""
    talk = Conversation("Be kind.")
    answered(talk, "?", "old", HAPPY)
    talk.begin_answer(SAD)
    system, question = talk.turns()
    assert (system.role, system.settings, question.role, question.settings) == ("system", SAD, "user", SAD)
    talk.switch(-1)
    assert [turn.settings for turn in talk.turns()] == [HAPPY, HAPPY, HAPPY]


@given(st.lists(st.text(max_size=8), max_size=6))
def test_shown_text_is_clean_and_the_models_is_kept(pieces: list[str]) -> None:
    """Whatever a model writes, in whatever pieces: the shown text is the cleaned whole, the turn's is what it wrote."""
    talk = Conversation()
    talk.add_question("?")
    answer = talk.begin_answer()
    shown = "".join(talk.grow_answer(answer, piece, (1,)) for piece in pieces)
    shown_baseline = "".join(talk.grow_baseline(answer, piece) for piece in pieces)
    assert shown == answer.text == clean("".join(pieces)) == shown_baseline == answer.baseline
    assert answer.raw == "".join(pieces) == "".join(segment.text for segment in answer.segments)
    assert "".join(text for text, _ in answer.expressions) == answer.text


# -- files -------------------------------------------------------------------------------------------------------------

ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["ask", "again", "undo", "redo", "edit", "rewrite", "switch", "continue"]),
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6),
        st.sampled_from([(), HAPPY, SAD]),
    ),
    max_size=12,
)


def played(actions: list[tuple[str, str, tuple[Band, ...]]]) -> Conversation:
    """Carry out actions; those that are refused change nothing."""
    talk = Conversation("System.")
    for action, text, settings in actions:
        try:
            if action == "ask":
                answered(talk, text, text, settings)
            elif action == "again":
                message = talk.begin_answer(settings)
                talk.grow_baseline(message, text, {"sad": 0.25})
                talk.grow_answer(message, text, (3,), settings, {"happy": 0.5})
                talk.end_answer(message, "length")
            elif action == "continue":
                message = talk.resume_answer()
                talk.grow_answer(message, text, (4,), settings)
                talk.end_answer(message, "stopped")
            elif action == "rewrite":
                talk.rewrite_answer(text)
            else:
                {"undo": talk.undo, "redo": talk.redo, "edit": talk.edit, "switch": lambda: talk.switch(1)}[action]()
        except SteerError:
            continue
    return talk


def stand_in(talk: Conversation) -> SimpleNamespace:
    """Give what saving looks at of a chat."""
    return SimpleNamespace(
        model=MODEL,
        conversation=talk,
        slider_records=Equaliser().records(),
        policy="as if always",
        sampling=SamplingSettings(seed=3),
        hidden_vectors={"gone": "/gone.gguf"},
    )


@given(ACTIONS)
def test_saving_and_reading_changes_nothing(tmp_path_factory: pytest.TempPathFactory, actions: list) -> None:
    """Whatever was done: every message of every branch, with its settings, and the head come back."""
    talk = played(actions)
    path = tmp_path_factory.mktemp("talk") / "talk.json"
    chat_file.save(stand_in(talk), path)
    saved, again = chat_file.read(path)
    assert again.messages == talk.messages
    assert (again.head, again.system, again.turns()) == (talk.head, talk.system, talk.turns())
    assert (saved.policy, saved.sampling.seed, saved.model.content_hash) == ("as if always", 3, MODEL.content_hash)
    second = path.with_name("again.json")
    chat_file.save(stand_in(again), second)
    assert second.read_bytes() == path.read_bytes()


@pytest.fixture
def saved(talk: Conversation, tmp_path: Path) -> Path:
    """The file of a conversation."""
    path = tmp_path / "talk.json"
    chat_file.save(stand_in(talk), path)
    return path


BROKEN = {
    "no JSON": (lambda document: None, "is no JSON"),
    "foreign": (
        lambda document: document.update(format="other"),
        "is no ggufsteer conversation: key format is 'other'",
    ),
    "no format": (lambda document: document.pop("format"), "is no ggufsteer conversation: has no format"),
    "newer": (lambda document: document.update(version=2), "key version is 2"),
    "unknown key": (lambda document: document.update(polcy="x"), "key polcy is unknown"),
    "missing key": (lambda document: document.pop("policy"), "key policy is missing"),
    "wrong kind": (lambda document: document["messages"][0].update(id="1"), "key messages.0.id is '1'"),
    "not a role": (lambda document: document["messages"][0].update(role="robot"), "key messages.0.role is 'robot'"),
    "twice": (lambda document: document["messages"][1].update(id=1), "message 1: ids do not ascend"),
    "cycle": (lambda document: document["messages"][0].update(parent=2), "message 1: parent 2 is no message before"),
    "itself": (lambda document: document["messages"][1].update(parent=2), "message 2: parent 2 is no message before"),
    "roles": (lambda document: document["messages"][1].update(parent=None), "message 2: follows on"),
    "head": (lambda document: document.update(head=9), "head: there is no message 9"),
    "segments": (lambda document: document["messages"][1].update(text="x"), "message 2: its segments"),
    "counts": (lambda document: document["messages"][1].update(tokens=[]), "message 2: its segments have more tokens"),
    "names": (
        lambda document: document.update(other_vectors=[{"vector": "a b", "path": "x"}]),
        "vector 1 is called 'a b'",
    ),
    "not finite": (
        lambda document: document["messages"][1].update(settings=[{"vector": "a", "strength": float("nan")}]),
        "key messages.1.settings.0.strength is nan",
    ),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_damaged_file_is_refused_with_file_key_and_mend(saved: Path, broken: str) -> None:
    """Each way to be wrong is named, and nothing of the file is taken."""
    change, words = BROKEN[broken]
    document = json.loads(saved.read_text())
    change(document)
    saved.write_text("{" if broken == "no JSON" else json.dumps(document))
    with pytest.raises(FileFormatError) as caught:
        chat_file.read(saved)
    assert str(saved) in caught.value.message
    assert words in caught.value.message
    assert caught.value.hint


def test_tokens_of_another_model_are_left_out(saved: Path, talk: Conversation) -> None:
    """They belong to another vocabulary; the texts stay, and so do tokens where the model is the same or unknown."""
    before = [message.tokens for message in talk.messages]
    assert any(before)
    for model in (None, MODEL):
        _, same = chat_file.read(saved, model)
        assert [message.tokens for message in same.messages] == before
    _, other = chat_file.read(saved, MODEL.model_copy(update={"content_hash": "ffff"}))
    assert not any(message.tokens for message in other.messages)
    assert not any(segment.n_tokens for turn in other.turns() for segment in turn.segments)
    assert [turn.content for turn in other.turns()] == [turn.content for turn in talk.turns()]


def test_a_mistyped_key_gets_the_nearest_known_one(saved: Path) -> None:
    """As in recipes."""
    document = json.loads(saved.read_text())
    document["polcy"] = document["policy"]
    saved.write_text(json.dumps(document))
    with pytest.raises(FileFormatError, match="did you mean 'policy'"):
        chat_file.read(saved)


def test_saving_overwrites_conversations_only(saved: Path, talk: Conversation, tmp_path: Path) -> None:
    """A slip of the finger must not cost a model."""
    chat_file.save(stand_in(talk), saved)
    other = tmp_path / "model.gguf"
    other.write_bytes(b"GGUF")
    with pytest.raises(SteerError, match="is no conversation"):
        chat_file.save(stand_in(talk), other)
    assert other.read_bytes() == b"GGUF"
