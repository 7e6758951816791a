"""Where a model's block of thoughts begins and ends inside an answer. Text only."""

from collections.abc import Iterable

_TAGS = (("<think>", "</think>"), ("<thinking>", "</thinking>"), ("<thought>", "</thought>"), ("[THINK]", "[/THINK]"))
_LONGEST_TAG = max(len(tag) for pair in _TAGS for tag in pair)


class ThoughtTracker:
    """Follows an answer piece by piece and tells whether the next piece belongs to the block of thoughts.

    The opening tag does not belong to it, the closing one does, since it is only known when it is complete.
    """

    def __init__(self, prompt: str = "") -> None:
        """Begin after a prompt: some templates open the block themselves, at the prompt's very end."""
        self._tail = ""
        self._closing = ""
        bare = prompt.rstrip()
        for opening, closing in _TAGS:
            if bare.endswith(opening):
                self._closing = closing

    @property
    def inside(self) -> bool:
        """Whether what comes next is thought."""
        return bool(self._closing)

    def feed(self, piece: str) -> None:
        """Take the next piece of the answer, special tokens written out."""
        text = self._tail + piece
        while True:
            found = _first(text, [self._closing] if self._closing else [opening for opening, _ in _TAGS])
            if found is None:
                break
            place, tag = found
            text = text[place + len(tag) :]
            self._closing = "" if self._closing else dict(_TAGS)[tag]
        self._tail = text[-(_LONGEST_TAG - 1) :]


def _first(text: str, tags: Iterable[str]) -> tuple[int, str] | None:
    """Find the earliest of several tags."""
    places = [(place, tag) for tag in tags if (place := text.find(tag)) >= 0]
    return min(places) if places else None
