"""The side of a chat that faces the model's process: requests go out, events come in, and the state follows.

It decides what a dead, silent or refusing process means for the conversation: nothing that was written is lost. What a
person can ask for is the other side's business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from ggufsteer.engine.messages import (
    AddVector,
    Alive,
    Died,
    Event,
    Failed,
    Finished,
    Loaded,
    Policy,
    Request,
    SamplingSettings,
    Started,
    StatisticsRead,
    VectorAdded,
    Wrote,
)
from ggufsteer.errors import ExitCode, SteerError
from ggufsteer.tasks.answering import Answering
from ggufsteer.tasks.chat_options import ChatOptions, WorkerLike
from ggufsteer.tasks.chat_vectors import VectorShelf, Wanted
from ggufsteer.tasks.converse import Conversation, EndReason
from ggufsteer.tasks.equaliser import Equaliser, Slider, SliderRecord
from ggufsteer.tasks.notices import (
    ConversationChanged,
    Draft,
    EqualiserChanged,
    Level,
    Notice,
    Progress,
    Said,
    State,
    StateChanged,
)
from ggufsteer.text import clean

SILENCE_SECONDS = 10.0
"""The process sends a sign of life every second; after this long something is wrong with it."""


class ChatProcess:
    """A conversation, sliders, and a process that does not always live."""

    def __init__(self, worker: WorkerLike, options: ChatOptions, listener: Callable[[Notice], None]) -> None:
        self.options = options
        self.state = State.STARTING
        self.model: Loaded | None = None
        self.reader_notes: tuple[str, ...] = ()
        self.conversation = Conversation(options.system)
        self.equaliser = Equaliser()
        self.sampling: SamplingSettings = options.sampling
        self.policy: Policy = options.policy
        self.meter = False
        self.compare = False
        self.last_finished: Finished | None = None
        self.n_context = 0
        self.told_when_it_counts = False
        """Whether the person knows from when on a moved slider counts."""
        self.exit_code: int = ExitCode.OK
        """What to leave with if the chat is left in its present state."""
        self.refusals: list[Failed] = []
        """Vectors that the process did not take."""
        self._worker = worker
        self._listener = listener
        self._shelf = VectorShelf()
        self._running: Answering | None = None
        self._waiting: tuple[Callable[[], None], str] | None = None
        self._before_new: Conversation | None = None
        self._n_dropped = 0
        self._doing = ""
        self._silence_told = False
        self._awaits_statistics = False
        self._closed = False

    # -- the process -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the process, and have it load the model and the vectors."""
        for path, strength in self.options.vectors:
            self._shelf.put(Wanted(path, strength))
        self._begin_process(self._worker.start)

    def restart(self) -> None:
        """Start a new process; the conversation and the sliders stay."""
        self._end_running("died")
        self._begin_process(self._worker.restart)

    def close(self) -> None:
        """End the process; nothing is said any more."""
        self._closed = True
        self._worker.close()

    def tick(self) -> None:
        """Look, about once a second, whether the process still gives signs of life."""
        silent = self._worker.silent_seconds
        if silent < SILENCE_SECONDS or self.state is State.BROKEN:
            self._silence_told = False
        elif not self._silence_told:
            self._silence_told = True
            doing = f" (it was {self._doing})" if self._doing else ""
            self.say("warning", f"the model's process has said nothing for {silent:.0f} seconds{doing}", "/restart")

    @property
    def busy(self) -> bool:
        """Whether the process still has something to do that was asked of it."""
        idle = self.state in (State.READY, State.BROKEN)
        return not idle or (self.state is State.READY and (bool(self._shelf.pending) or self._awaits_statistics))

    @property
    def hidden_vectors(self) -> Mapping[str, str]:
        """Names and files of the vectors that have no slider, but under which messages were written."""
        return self._shelf.hidden

    @property
    def slider_records(self) -> list[SliderRecord]:
        """How all sliders stand; those of a loaded conversation too whose vectors the process has not confirmed yet."""
        there = self.equaliser.records()
        names = {record.vector for record in there}
        kept = [wanted.record for name, wanted in self._shelf.wanted.items() if wanted.shown and name not in names]
        return there + [record for record in kept if record is not None]

    def handle(self, event: Event) -> None:
        """Take an event of the process, on the thread that all calls come from."""
        if self._closed:
            return
        for kind, take in self._HANDLERS.items():
            if isinstance(event, kind):
                take(self, event)

    def draft(self, text: str) -> None:
        """Give the person a text to be changed and sent."""
        self._tell(Draft(clean(text)))

    def say(self, level: Level, text: str, hint: str = "") -> None:
        """Tell the person something; what came from outside is cleaned here."""
        self._tell(Said(level, clean(text), clean(hint)))

    # -- requests ----------------------------------------------------------------------------------------------------

    def _when_ready(self, action: Callable[[], None], text: str = "") -> None:
        """Do something now, or once there is a model; `text` is given back if it never comes to that."""
        self._need_idle(starting=True)
        if self.state is State.READY:
            action()
            return
        if self._waiting is not None:
            raise SteerError("a question waits for the model already", "stop takes it back")
        self._waiting = (action, text)
        if self.state is State.BROKEN:
            self.restart()
        else:
            self.say("info", "the question waits until the model is loaded")

    def _need_idle(self, *, starting: bool = False) -> None:
        if self.state in (State.ANSWERING, State.STOPPING):
            raise SteerError("an answer is being written", "stop it first, or wait for its end")
        if self.state is State.STARTING and not starting:
            raise SteerError("the model is being loaded", "wait for it")

    def _begin(self, running: Answering) -> None:
        self._running = running
        self._tell(ConversationChanged())
        self._generate(running)

    def _generate(self, running: Answering) -> None:
        self._become(State.ANSWERING)
        settings = self.equaliser.settings()
        available = self._shelf.available
        self._send(running.request(settings, self.policy, self.sampling, available, meter=self.meter))

    def _begin_process(self, begin: Callable[[], None]) -> None:
        try:
            begin()
        except SteerError as problem:
            self.exit_code = problem.exit_code
            self.say("error", problem.message, problem.hint)
            self._break()
        else:
            self._load_all()

    def _load_all(self) -> None:
        self.model = None
        self.n_context = 0
        self._shelf.lose_all()
        self._awaits_statistics = False
        self._become(State.STARTING)
        self._send(self.options.load)
        for name in self._shelf.wanted:
            self._send_vector(name)

    def _send_vector(self, name: str) -> None:
        path = self._shelf.wanted[name].path
        self._send(AddVector(vector=name, path=path, producer=self.options.producer, force=self.options.force))

    # -- events ------------------------------------------------------------------------------------------------------

    def _on_alive(self, event: Alive) -> None:
        self._doing = clean(event.doing)

    def _on_loaded(self, event: Loaded) -> None:
        notes = tuple(map(clean, event.notes))
        cleaned = {"name": clean(event.name), "architecture": clean(event.architecture), "notes": notes}
        self.model = event.model_copy(update=cleaned)
        self.reader_notes = notes
        self.exit_code = ExitCode.OK
        for note in notes:
            self.say("info", note)
        if not event.has_chat_template:
            self.say("warning", "the model has no chat template: it goes on with the texts as they are")
        self._settle()

    def _on_vector_added(self, event: VectorAdded) -> None:
        wanted = self._shelf.confirm(event.vector)
        if wanted is None:
            return
        for warning in event.warnings:
            self.say("warning", f"{event.vector}: {warning}")
        record = wanted.record
        if wanted.shown and not any(slider.name == event.vector for slider in self.equaliser.sliders):
            self.equaliser.add(Slider.of(event, wanted.strength))
            if record is not None:
                self._restore_slider(event, record)
        self._tell(EqualiserChanged())
        self._settle()

    def _restore_slider(self, event: VectorAdded, record: SliderRecord) -> None:
        if record.file_hash != event.file_hash:
            self.say("warning", f"{event.path}: is another file than when the conversation was saved")
        try:
            self.equaliser.restore(record)
        except SteerError as problem:
            self.say("warning", problem.message, problem.hint)

    def _on_started(self, event: Started) -> None:
        if event.n_turns_dropped > self._n_dropped:
            n_dropped = event.n_turns_dropped
            self.say("warning", f"the context is full: the oldest {n_dropped} messages are left out", "/new, or -c N")
        self._n_dropped = event.n_turns_dropped
        self._tell(Progress(event.n_done, event.n_prompt))

    def _on_wrote(self, event: Wrote) -> None:
        if self._running is not None:
            self.n_context = event.n_context or self.n_context
            self._running.wrote(event)

    def _on_finished(self, event: Finished) -> None:
        running = self._running
        if running is None:
            return
        self.last_finished, self.n_context = event, event.n_context
        if running.finished(event, stopping=self.state is State.STOPPING):
            self._generate(running)
            return
        self._running = None
        self._become(State.READY)
        if event.reason == "context":
            self.say("warning", "the context is full", "/continue leaves the oldest messages out; -c N makes it larger")
        elif event.reason == "length":
            self.say("info", f"the answer ends at {event.n_answer} tokens, the most that was allowed", "/continue")

    def _on_statistics(self, event: StatisticsRead) -> None:
        self._awaits_statistics = False
        memory, seconds = event.resident_bytes / 2**20, event.seconds_up
        tokens = f"{event.n_context:,} of {event.context_size:,} tokens in memory"
        up = f"{seconds:.0f} seconds" if seconds < 120 else f"{seconds / 60:.0f} minutes"
        self.say("info", f"{tokens}; the process has {memory:,.0f} MiB and runs for {up}")

    def _on_failed(self, event: Failed) -> None:
        if self.state is State.BROKEN:
            return  # without a model every request fails; the reason was said
        self.say("error", event.message, event.hint)
        self._awaits_statistics = self._awaits_statistics and event.request != "statistics"
        if event.request == "load":
            self.exit_code = event.exit_code
            self._break()
        elif event.request == "add vector":
            self.refusals.append(event)
            self._shelf.drop(event.subject)
            if any(slider.name == event.subject for slider in self.equaliser.sliders):
                self._tell_lost_conditions(dict.fromkeys(self.equaliser.remove(event.subject), event.subject))
            self._tell(EqualiserChanged())
            self._settle()
        elif event.request == "generate" and self._running is not None:
            self._end_running("failed")
            self._become(State.READY)

    def _on_died(self, event: Died) -> None:
        self._end_running("died")
        self.exit_code = ExitCode.FAILED
        self.say("error", event.reason, "nothing is lost: ask again, or /restart, and the model is loaded anew")
        self._break()

    _HANDLERS: ClassVar[Mapping[type, Callable[[ChatProcess, Any], None]]] = {
        Alive: _on_alive,
        Loaded: _on_loaded,
        VectorAdded: _on_vector_added,
        Started: _on_started,
        Wrote: _on_wrote,
        Finished: _on_finished,
        StatisticsRead: _on_statistics,
        Failed: _on_failed,
        Died: _on_died,
    }

    def _settle(self) -> None:
        """Be ready once the model and all vectors are there, and do what waited for that."""
        if self.model is None or self._shelf.pending:
            return
        self._tell_lost_conditions(self.equaliser.drop_lost_conditions())
        if self.state is not State.STARTING:
            return
        self._become(State.READY)
        self._do_what_waits()

    def _tell_lost_conditions(self, lost: Mapping[str, str]) -> None:
        for gate, condition in lost.items():
            self.say("warning", f"{gate}: its condition {condition} is not there; it decides by itself", "/gate")

    def _do_what_waits(self) -> None:
        if self._waiting is not None and self.state is State.READY:  # a listener may have asked for something
            (action, _), self._waiting = self._waiting, None
            action()

    def _break(self) -> None:
        self.model = None
        self._become(State.BROKEN)
        self._give_back()

    def _give_back(self) -> None:
        """Give the person the question that waited."""
        if self._waiting is not None:
            (_, text), self._waiting = self._waiting, None
            if text:
                self.draft(text)

    def _end_running(self, reason: EndReason) -> None:
        if self._running is not None:
            running, self._running = self._running, None
            running.end(reason)

    def _become(self, state: State) -> None:
        if state is not self.state:
            self.state = state
            self._tell(StateChanged(state))

    def _send(self, request: Request) -> None:
        self._worker.send(request)

    def _tell(self, notice: Notice) -> None:
        self._listener(notice)
