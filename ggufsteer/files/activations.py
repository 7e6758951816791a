"""Hidden states of an extraction on disk: written while the model runs, resumed after any interruption, read in place.

The file is plain safetensors, F32, one tensor (observations, n_embd) a set and layer, called `positive.layer.5`. While
it grows it is called `FILE.partial`; a part file is gone on with only when its header is, byte for byte, the one that
the same extraction gives. It does not know models, recipes, or what is computed from the states.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ggufsteer.errors import FileFormatError, SteerError
from ggufsteer.files.activations_header import VALUE_BYTES, Layout, header_of, read_header
from ggufsteer.files.activations_part import FOOTER_BYTES, PartFile, mend_of
from ggufsteer.files.inputs import open_bounded
from ggufsteer.text import clean

__all__ = ["Activations", "ActivationsWriter", "Layout"]

_FILE_LIMIT_BYTES = 1 << 50
_SHOWN_CHARACTERS = 60
_SHOWN_DIFFERENCES = 4


class ActivationsWriter:
    """Puts hidden states where they belong, in whatever order they come.

    A context manager: leaving it without `finish` keeps `FILE.partial`, and `open` goes on from its last checkpoint.
    """

    def __init__(self, layout: Layout, part: PartFile, data_start: int) -> None:
        self.layout = layout
        self._part = part
        self._data_start = data_start
        # Number of the first observation of each set. # (sets,)
        self._counts = np.array(list(layout.counts.values()), dtype=np.int64)
        self._firsts = np.cumsum(self._counts) - self._counts

    @classmethod
    def open(cls, path: Path | str, layout: Layout) -> Self:
        """Go on with the part file of this very layout, or begin one, with all its room on the disk reserved.

        Raises `SteerError` when the part file belongs to another extraction (its differences are named) or to none,
        when another process is writing it, when the disk has not the room, or when `path` cannot be a file.
        """
        header = header_of(layout)
        part = PartFile.open(Path(path), header, layout.data_bytes, lambda partial: _misfit(partial, layout))
        return cls(layout, part, len(header))

    @property
    def steps_done(self) -> int:
        """What the last checkpoint said; 0 for a new file, and for one whose checkpoints are damaged."""
        return self._part.steps_done

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._part.close()

    def write(self, observations: NDArray[np.int64], rows: NDArray[np.float32]) -> None:
        """Put the states of some observations into the file, bit by bit as they are: NaN and infinity too.

        `observations` (k,) are numbers counted through all sets in the layout's order, in any order; of a number given
        twice the last one counts. `rows` is (k, layers, n_embd). What was written is safe only after the next
        `checkpoint`. Raises `ValueError` when the shapes or numbers are not the layout's, `SteerError` when the disk
        does not take it.
        """
        self._check(observations, rows)
        order = np.argsort(observations, kind="stable")
        numbers = observations[order]
        runs = self._runs(numbers)
        for index in range(len(self.layout.layers)):
            states = np.ascontiguousarray(rows[order, index], dtype="<f4")  # (k, n_embd)
            for begin, end in runs:
                self._part.write(self._position(int(numbers[begin]), index), states[begin:end].data.cast("B"))

    def checkpoint(self, steps_done: int) -> None:
        """Bring everything written so far onto the disk, and only then the counter.

        A kill at any moment leaves a counter that is true. Costs two flushes of the disk. Raises `SteerError` when
        the disk fails.
        """
        self._part.checkpoint(steps_done)

    def finish(self) -> None:
        """Turn the part file into the finished one, durably; that every observation was written is the caller's word.

        Raises `SteerError` when `path` cannot be replaced; the part file is then still there.
        """
        self._part.finish()

    def _check(self, observations: NDArray[np.int64], rows: NDArray[np.float32]) -> None:
        expected = (observations.size, len(self.layout.layers), self.layout.n_embd)
        if observations.ndim != 1 or observations.dtype.kind != "i" or rows.shape != expected:
            raise ValueError(f"{observations.shape} observations with rows {rows.shape}, expected (k,) and {expected}")
        if rows.dtype != np.float32:
            raise ValueError(f"rows are {rows.dtype}, not float32")
        if observations.size and not 0 <= observations.min() <= observations.max() < self.layout.observations:
            raise ValueError(f"observations {observations.min()} to {observations.max()} of {self.layout.observations}")

    def _runs(self, numbers: NDArray[np.int64]) -> Sequence[tuple[int, int]]:
        """Cut ascending numbers into runs without gaps, none of them across two sets."""
        cut = (np.diff(numbers) != 1) | np.isin(numbers[1:], self._firsts)
        bounds = [0, *(np.flatnonzero(cut) + 1).tolist(), numbers.size]
        return [(begin, end) for begin, end in pairwise(bounds) if begin < end]

    def _position(self, observation: int, index: int) -> int:
        """Byte of the file at which the state of an observation begins, in the layer of that index."""
        # From the right: of sets that begin at the same number, all but the last are empty.
        which = int(np.searchsorted(self._firsts, observation, side="right")) - 1
        first, count = int(self._firsts[which]), int(self._counts[which])
        row = first * len(self.layout.layers) + index * count + observation - first
        return self._data_start + row * self.layout.n_embd * VALUE_BYTES


class Activations:
    """A finished file of hidden states, mapped into memory: only what is looked at is read from the disk.

    The map lives as long as the views into it. The file must not be cut while it is in use; replacing it does no harm.
    """

    def __init__(self, path: Path | str, layout: Layout, mapped: mmap.mmap, data_start: int) -> None:
        self.path = path
        self.layout = layout
        self._mapped = mapped
        self._data_start = data_start

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Check a file from end to end, its values aside, and map it.

        Raises `FileFormatError` when it is missing, unfinished, damaged, or not what `ActivationsWriter` writes.
        """
        file, size = open_bounded(path, _FILE_LIMIT_BYTES)
        with file:
            try:
                layout, data_start = read_header(path, file, size)
                _check_length(path, size, data_start + layout.data_bytes)
                mapped = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or str(error)
                raise FileFormatError(f"{path}: cannot be read: {reason}", "check the disk") from error
        return cls(path, layout, mapped, data_start)

    def rows(self, name: str) -> NDArray[np.float32]:
        """The states of one set, read-only and without a copy. # (observations, layers, n_embd)

        Raises `SteerError` when the file has no such set.
        """
        if name not in self.layout.counts:
            raise SteerError(f"{self.path}: has no set '{name}'", f"it has {', '.join(self.layout.counts)}")
        shape = (len(self.layout.layers), self.layout.counts[name], self.layout.n_embd)
        place = self._data_start + self.layout.bytes_before(name)
        states = np.ndarray(shape, dtype=np.dtype("<f4"), buffer=self._mapped, offset=place)
        return states.transpose(1, 0, 2)


def _check_length(path: Path | str, size: int, expected: int) -> None:
    if size == expected + FOOTER_BYTES:
        raise FileFormatError(
            f"{path}: is unfinished: the extraction that writes it was interrupted, or still runs",
            "run the same ggufsteer extract --save-activations again; it goes on where it stopped",
        )
    if size != expected:
        raise FileFormatError(
            f"{path}: is {size} bytes long, and its header announces {expected}",
            "copy it again, or let ggufsteer extract --save-activations make it again",
        )


def _misfit(partial: Path, layout: Layout) -> SteerError:
    """Say why the work in a part file cannot be gone on with."""
    try:
        file, size = open_bounded(partial, _FILE_LIMIT_BYTES)
        with file:
            found, _ = read_header(partial, file, size)
    except FileFormatError as error:
        return FileFormatError(f"{error.message}; so no work can be resumed from it", mend_of(partial))
    differences = list(_differences(found, layout)) or ["its header is spelled otherwise"]
    if len(differences) > _SHOWN_DIFFERENCES:
        more = len(differences) - _SHOWN_DIFFERENCES + 1
        differences[_SHOWN_DIFFERENCES - 1 :] = [f"and {more} more differences"]
    return SteerError(f"{partial}: holds the work of another extraction: {', '.join(differences)}", mend_of(partial))


def _differences(found: Layout, wanted: Layout) -> Iterator[str]:
    """What tells the layout that was found from the one that is wanted, in words."""
    if list(found.counts) != list(wanted.counts):
        yield f"its sets are {_shown(' '.join(found.counts))}, not {_shown(' '.join(wanted.counts))}"
    for name, count in found.counts.items():
        if wanted.counts.get(name, count) != count:
            yield f"it has {count} {name} observations, not {wanted.counts[name]}"
    if found.layers != wanted.layers:
        yield f"its layers are {_shown(_in_words(found.layers))}, not {_shown(_in_words(wanted.layers))}"
    if found.n_embd != wanted.n_embd:
        yield f"its states are {found.n_embd} wide, not {wanted.n_embd}"
    for key in sorted(found.metadata.keys() | wanted.metadata.keys()):
        there, here = found.metadata.get(key), wanted.metadata.get(key)
        if there is None or here is None:
            yield f"'{_shown(key)}' is set {'only here' if there is None else 'only there'}"
        elif there != here:
            short = max(len(there), len(here)) <= _SHOWN_CHARACTERS and _shown(there) != _shown(here)
            values = f"is '{_shown(there)}', not '{_shown(here)}'" if short else "differs"
            yield f"'{_shown(key)}' {values}"


def _shown(text: str) -> str:
    # Cut before cleaning, which takes its time: the text may be as long as a header.
    line = " ".join(clean(text[: 8 * _SHOWN_CHARACTERS]).split())
    return line if len(line) <= _SHOWN_CHARACTERS else f"{line[: _SHOWN_CHARACTERS - 1]}…"


def _in_words(layers: Sequence[int]) -> str:
    """Layers as ranges.

    >>> _in_words((1, 2, 3, 7))
    '1-3 7'
    """
    runs: list[list[int]] = []
    for layer in layers:
        if runs and runs[-1][-1] == layer - 1:
            runs[-1][1:] = [layer]
        else:
            runs.append([layer])
    return " ".join("-".join(map(str, run)) for run in runs)
