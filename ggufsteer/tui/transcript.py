"""The conversation on the screen: questions, answers, remarks; it stays at the end unless the person scrolled up.

It decides which widgets stay when the conversation changes. It reads the conversation and changes nothing in it.
"""

from __future__ import annotations

from textual.containers import VerticalScroll
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from ggufsteer.engine.messages import Band, Settings
from ggufsteer.tasks.converse import Conversation, Message
from ggufsteer.tasks.notices import Level
from ggufsteer.text import clean
from ggufsteer.tui.answer import AnswerView, MeterView
from ggufsteer.tui.terminal import ascii_only

_MOST_REMARKS = 60
_REASONS = {
    "length": "ended at the limit of tokens",
    "context": "the context is full",
    "stopped": "stopped",
    "died": "the model's process died",
    "failed": "could not be answered",
    "edited": "changed by you",
}
_SIGNS: dict[Level, tuple[str, str]] = {
    "info": ("·", "$text-muted"),
    "warning": ("!", "$text-warning"),
    "error": ("x", "bold $text-error"),
}


class QuestionView(Static):
    """What the person wrote."""

    DEFAULT_CSS = """
    QuestionView { height: auto; margin-bottom: 1; padding-left: 1; border-left: outer $primary; }
    QuestionView.-ascii { border-left: ascii $primary; }
    """

    def __init__(self, message_id: int) -> None:
        super().__init__(markup=False)
        self.message_id = message_id
        self.set_class(ascii_only(), "-ascii")

    def tell(self, about: str, text: str) -> None:
        """Show this."""
        self.update(Content.assemble(("You", "bold $text-primary"), (about, "$text-muted"), "\n", clean(text)))


class Remark(Static):
    """Something that is no part of the conversation: an error, a command's answer."""

    DEFAULT_CSS = """
    Remark { height: auto; margin-bottom: 1; }
    """

    def __init__(self, level: Level, text: str) -> None:
        sign, style = _SIGNS[level]
        lines = clean(text).split("\n")
        body = "\n".join([f"{sign} {lines[0]}", *(f"  {line}" for line in lines[1:])])
        super().__init__(Content.styled(body, style), markup=False)
        self.text = text


class Transcript(VerticalScroll, can_focus=False):
    """All of it, with the newest at the bottom."""

    DEFAULT_CSS = """
    Transcript { height: 1fr; padding: 0 1; scrollbar-size-vertical: 1; }
    """

    def __init__(self) -> None:
        super().__init__()
        self.meter = MeterView()
        self.model_name = "model"
        self.writing: int | None = None
        """The message that is being written, with its baseline; None when none is."""
        self.compare = False

    def on_mount(self) -> None:
        """Stay at the end."""
        self.anchor()

    async def show(self, conversation: Conversation) -> None:
        """Show the conversation's present way; widgets of messages that stay are kept."""
        path = conversation.path()
        wanted = {message.id for message in path}
        with self.app.batch_update():
            await self.remove_children([view for view in self._views() if view.message_id not in wanted])
            known = {view.message_id for view in self._views()}
            await self.mount_all(_view_of(message) for message in path if message.id not in known)
            views = {view.message_id: view for view in self._views()}
            for message in path:
                # While the screen is taken down, its widgets may be gone already.
                if message.id in views:
                    await self._tell(views[message.id], message, conversation)

    async def show_message(self, conversation: Conversation, message_id: int) -> None:
        """Show the present text of one message, which may have grown."""
        message = conversation.message(message_id)
        view = next((view for view in self._views() if view.message_id == message_id), None)
        if message is not None and view is not None:
            await self._tell(view, message, conversation)

    async def remark(self, level: Level, text: str) -> None:
        """Add something that is no part of the conversation."""
        remarks = list(self.query_children(Remark))
        await self.remove_children(remarks[: len(remarks) + 1 - _MOST_REMARKS])
        await self.mount(Remark(level, text))

    def to_end(self) -> None:
        """Go to the end and stay there."""
        self.anchor()
        self.scroll_end(animate=False)

    def _views(self) -> list[QuestionView | AnswerView]:
        return [child for child in self.children if isinstance(child, (QuestionView, AnswerView))]

    async def _tell(self, view: Widget, message: Message, conversation: Conversation) -> None:
        branch = _branch(conversation, message)
        if isinstance(view, QuestionView):
            view.tell(branch, message.text)
        elif isinstance(view, AnswerView):
            writing = message.id == self.writing
            about = "".join([branch, _steered_by(message.settings), _ended_by(message)])
            view.head(Content.assemble(clean(self.model_name), (about, "not bold $text-muted")))
            await view.steered.tell(message.text, message.expressions, self.meter)
            title = "baseline, same history" if _steered_before(conversation, message) else "baseline"
            baseline = await view.compare(title, wanted=bool(message.baseline) or (writing and self.compare))
            if baseline is not None:
                await baseline.tell(message.baseline, message.baseline_expressions, self.meter)


def _view_of(message: Message) -> QuestionView | AnswerView:
    return QuestionView(message.id) if message.role == "user" else AnswerView(message.id)


def _steered_before(conversation: Conversation, message: Message) -> bool:
    """Say whether an answer further up was written under steering: then a baseline goes on from steered words."""
    parent = message.parent
    while parent is not None and (before := conversation.message(parent)) is not None:
        steered = before.settings or any(segment.settings for segment in before.segments)
        if before.role == "assistant" and steered:
            return True
        parent = before.parent
    return False


def _branch(conversation: Conversation, message: Message) -> str:
    """Say which of several versions of a message this is."""
    siblings = conversation.siblings(message)
    if len(siblings) < 2:
        return ""
    place = next((place for place, sibling in enumerate(siblings, 1) if sibling.id == message.id), 0)
    return f"  {place}/{len(siblings)}"


def _ended_by(message: Message) -> str:
    reason = _REASONS.get(message.reason or "", "")
    return f"  ({reason})" if reason else ""


def _steered_by(settings: Settings) -> str:
    """Say which bands steered, in few words."""
    return "".join(f"  {_band(band)}" for band in settings)


def _band(band: Band) -> str:
    operation = "" if band.operation == "add" else f"{band.operation} "
    return f"{operation}{clean(band.vector)} {band.strength:+.2f}"
