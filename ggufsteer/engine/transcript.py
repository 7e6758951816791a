"""A conversation as tokens, by the model's template; each token with its phase and the settings that it is read under.

An answer that the model wrote keeps the very tokens that it wrote, where they spell the same text: another division
into tokens would be another conversation, and nothing of it in memory could be used again. Steering is only named here,
not computed; what does not fit into the context any more is left out by whole turns, the oldest first.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate, groupby
from operator import itemgetter

from ggufsteer.engine.interventions import Phase
from ggufsteer.engine.messages import Segment, Settings, Turn
from ggufsteer.engine.model import Model
from ggufsteer.engine.thoughts import ThoughtTracker
from ggufsteer.errors import SteerError

_LEAST_ROOM = 256
"""Tokens that are kept free for the answer before old turns are dropped; at most a quarter of the context."""


@dataclass(frozen=True)
class Span:
    """Tokens that are read one after the other, in one phase, under the same settings."""

    tokens: tuple[int, ...]
    phase: Phase
    settings: Settings
    question: tuple[int, int] = (0, 0)
    """Of a prompt: which of its tokens are the person's message, (start, stop). Gates are decided on them."""


@dataclass(frozen=True)
class Transcript:
    """A conversation as tokens."""

    spans: tuple[Span, ...]
    thoughts: ThoughtTracker
    """Where the block of thoughts stands at the end."""
    n_turns_dropped: int = 0

    @property
    def n_tokens(self) -> int:
        """Tokens of the whole conversation."""
        return sum(len(span.tokens) for span in self.spans)


@dataclass(frozen=True)
class _Stretch:
    """A part of the rendered text: what stands between two answers, or an answer."""

    text: str
    turn: Turn
    """The answer, or of what stands before one, the person's last message."""

    @property
    def is_answer(self) -> bool:
        return self.turn.role == "assistant"


class TranscriptWriter:
    """Writes the conversations of one model."""

    def __init__(self, model: Model, n_ctx: int) -> None:
        """Take the model whose template and vocabulary are used, and the tokens that its memory holds."""
        self._model = model
        self._n_ctx = n_ctx
        # The beginnings of a conversation are rendered again with each message, to find where answers stand.
        self._render = lru_cache(maxsize=512)(self._rendered)

    def write(self, turns: Sequence[Turn], *, continues: bool = False) -> Transcript:
        """Write a conversation as tokens. Without a chat template the texts are joined as they are.

        Args:
            turns: At least one; the last is the person's, or with `continues` the beginning of an answer.
            continues: Whether the answer goes on after the last turn, instead of beginning.

        Raises:
            SteerError: The order of roles makes no sense, the template refuses it, or the last message is too long.
        """
        turns = list(turns)
        if not turns or (turns[-1].role == "assistant") != continues:
            raise SteerError(
                "the conversation does not end where an answer can follow",
                "end with a message of the person, or with the beginning of an answer that is to go on",
            )
        room = min(_LEAST_ROOM, self._n_ctx // 4)
        n_dropped = 0
        while True:
            transcript = replace(self._whole(turns, continues), n_turns_dropped=n_dropped)
            if transcript.n_tokens <= self._n_ctx - room:
                return transcript
            fewer = _without_oldest(turns)
            if len(fewer) == len(turns):
                break
            n_dropped += len(turns) - len(fewer)
            turns = fewer
        if transcript.n_tokens >= self._n_ctx:
            raise SteerError(
                f"the message has {transcript.n_tokens} tokens with all that belongs to it, and the context holds "
                f"{self._n_ctx}",
                "shorten it, or give a larger context with -c",
            )
        return transcript

    def _rendered(self, messages: tuple[tuple[str, str], ...]) -> str:
        return self._model.render_chat([{"role": role, "content": content} for role, content in messages])

    def _whole(self, turns: Sequence[Turn], continues: bool) -> Transcript:
        model = self._model
        stretches = self._stretches(turns, continues) if model.has_chat_template else _plain_stretches(turns)
        tokens, stops, spelled = self._own_tokens(stretches)
        whole = model.tokenize_prompt("".join(stretch.text for stretch in stretches))
        if spelled != _spelled(model, whole, special=True):
            # Cut into stretches, this vocabulary spells the text otherwise (a space in front of each, say).
            tokens, stops = whole, self._stops_by_bytes(whole, stretches)
        spans: list[Span] = []
        start, thoughts = 0, ThoughtTracker()
        for stretch, stop in zip(stretches, stops, strict=True):
            part = tokens[start:stop]
            if stretch.is_answer:
                spans += _answer_spans(model, stretch.turn, part, thoughts)
            elif part:
                spans.append(Span(tuple(part), "prompt", stretch.turn.settings, self._question(part, stretch)))
                thoughts = ThoughtTracker(stretch.text)
            start = stop
        return Transcript(tuple(spans), thoughts)

    def _stretches(self, turns: Sequence[Turn], continues: bool) -> list[_Stretch]:
        """Cut the rendered text at the answers."""
        messages = tuple((turn.role, turn.content) for turn in turns)
        text = self._render(messages[:-1]) + turns[-1].content if continues else self._render(messages)
        stretches: list[_Stretch] = []
        place = 0
        asked = turns[0]
        for number, turn in enumerate(turns):
            if turn.role != "assistant":
                asked = turn
                continue
            before = self._render(messages[:number])
            if not text.startswith(before + turn.content) or len(before) < place:
                continue  # the template changes this answer: it is read as a part of the prompt
            stretches.append(_Stretch(text[place : len(before)], asked))
            place = len(before) + len(turn.content)
            stretches.append(_Stretch(turn.content, turn))
        if place < len(text):
            stretches.append(_Stretch(text[place:], asked))
        return stretches

    def _question(self, tokens: Sequence[int], stretch: _Stretch) -> tuple[int, int]:
        """Find the person's message among the tokens of a stretch; the whole stretch where the template changes it."""
        place = stretch.text.rfind(stretch.turn.content.strip())
        if place < 0:
            return 0, len(tokens)
        before = len(stretch.text[:place].encode())
        after = len(stretch.text[place + len(stretch.turn.content.strip()) :].encode())
        sizes = [len(piece) for piece in self._model.vocabulary.pieces(tokens, special=True)]
        ends = list(accumulate(sizes))
        # Counted from the end: a start token that the text does not hold stands in front.
        begin = ends[-1] - (len(stretch.text.encode()) - before)
        return bisect_right(ends, begin), bisect_left(ends, ends[-1] - after) + 1

    def _own_tokens(self, stretches: Sequence[_Stretch]) -> tuple[list[int], list[int], str]:
        """Turn each stretch into tokens by itself, answers into those that the model wrote.

        Returns:
            The tokens, where each stretch ends among them, and the text that they spell.
        """
        model = self._model
        tokens: list[int] = []
        stops = []
        spelled = ""
        for number, stretch in enumerate(stretches):
            written = stretch.turn.tokens if stretch.is_answer else ()
            # A conversation from a file may have been written by another model.
            is_own = bool(written) and 0 <= min(written) <= max(written) < model.n_vocab
            if is_own and (text := _spelled(model, written)) == stretch.turn.content:
                part = list(written)
            else:
                part = model.tokenize(stretch.text, add_start=False) if number else model.tokenize_prompt(stretch.text)
                text = _spelled(model, part, special=True)
            tokens += part
            spelled += text
            stops.append(len(tokens))
        return tokens, stops, spelled

    def _stops_by_bytes(self, tokens: Sequence[int], stretches: Sequence[_Stretch]) -> list[int]:
        """Find where stretches end in the tokens of the whole text; a token across a border goes before it."""
        sizes = [len(piece) for piece in self._model.vocabulary.pieces(tokens, special=True)]
        # Below 0 where there is a start token, or a space in front, that the text does not hold.
        place = sum(len(stretch.text.encode()) for stretch in stretches) - sum(sizes)
        stops, token, end = [], 0, 0
        for stretch in stretches:
            end += len(stretch.text.encode())
            while token < len(tokens) and place < end:
                place += sizes[token]
                token += 1
            stops.append(token)
        stops[-1] = len(tokens)
        return stops


def _without_oldest(turns: Sequence[Turn]) -> list[Turn]:
    """Drop the oldest question with its answer; a system prompt and the last question stay."""
    first = 1 if turns[0].role == "system" else 0
    questions = [place for place, turn in enumerate(turns) if turn.role == "user" and place > first]
    return [*turns[:first], *(turns[questions[0] :] if questions else turns[first:])]


def _plain_stretches(turns: Sequence[Turn]) -> list[_Stretch]:
    """Join the texts as they are, for a model that only continues text."""
    stretches = []
    for turn in turns:
        content = turn.content + ("\n\n" if turn.role == "system" else "")
        stretches.append(_Stretch(content, turn))
    return [stretch for stretch in stretches if stretch.text]


def _spelled(model: Model, tokens: Sequence[int], *, special: bool = False) -> str:
    return b"".join(model.vocabulary.pieces(tokens, special=special)).decode("utf-8", errors="replace")


def _answer_spans(model: Model, turn: Turn, tokens: Sequence[int], thoughts: ThoughtTracker) -> list[Span]:
    """Divide an answer's tokens by phase and by the settings that they were written under."""
    segments = turn.segments or (Segment(text=turn.content, settings=turn.settings),)
    pieces = model.vocabulary.pieces(tokens)
    if sum(segment.n_tokens for segment in segments) == len(tokens):
        sizes, ends = [1] * len(tokens), list(accumulate(segment.n_tokens for segment in segments))
    else:
        sizes = [len(piece) for piece in pieces]
        ends = list(accumulate(len(segment.text.encode()) for segment in segments))
    labels: list[tuple[Phase, Settings]] = []
    place = 0
    for size, spelled in zip(sizes, model.vocabulary.pieces(tokens, special=True), strict=True):
        segment = min(bisect_right(ends, place), len(segments) - 1)
        labels.append(("thinking" if thoughts.inside else "answer", segments[segment].settings))
        thoughts.feed(spelled.decode("utf-8", errors="replace"))
        place += size
    spans = []
    for (phase, settings), group in groupby(zip(tokens, labels, strict=True), key=itemgetter(1)):
        spans.append(Span(tuple(token for token, _ in group), phase, settings))
    return spans
