"""A large file while it grows: every byte in its place from the start, and a counter that survives `kill -9`.

Decides how `FILE.partial` lives beside FILE: it appears with its header whole and with all the room that it will ever
need, one process alone may write it, a checkpoint counts only once everything before it is on the disk, and in the end
it takes FILE's place in one step. It does not know what the header or the data mean.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import stat
import struct
import sys
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path
from shlex import quote
from typing import Self

from ggufsteer.errors import ExitCode, SteerError
from ggufsteer.files.atomic import check_target, flush_folder, keep_permissions

if sys.platform != "win32":
    import fcntl

__all__ = ["FOOTER_BYTES", "PartFile", "mend_of"]

_MAGIC = b"ggsmark1"
_MARK = struct.Struct("<8sQQ8s")
_MARKS = 2
FOOTER_BYTES = _MARKS * _MARK.size
_BLOCK = bytes(1 << 20)
_ATTEMPTS = 20
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_CANNOT_RESERVE = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)


class PartFile:
    """The unfinished file, open for writing and locked. Make it with `open`, leave it with `finish` or `close`."""

    def __init__(self, target: Path, partial: Path, file: FileIO, header: bytes, data_bytes: int) -> None:
        self._target = target
        self._partial = partial
        self._file = file
        self._key = hashlib.blake2b(header).digest()
        self._end = len(header) + data_bytes
        self._turn, self.steps_done = self._last_mark()

    @classmethod
    def open(cls, target: Path, header: bytes, data_bytes: int, explain: Callable[[Path], SteerError]) -> Self:
        """Go on with `target`'s part file when it begins with this header, or make a new one.

        `explain` gives the error for a part file that begins otherwise. Raises `SteerError` when another process writes
        it, the disk has not the room, or the place cannot be written.
        """
        check_target(target)
        final = Path(os.path.realpath(target))
        partial = final.with_name(f"{final.name}.partial")
        new = final.with_name(f"{final.name}.partial.new")
        check_target(new)
        size = len(header) + data_bytes + FOOTER_BYTES
        with _explained(target):
            for _ in range(_ATTEMPTS):
                file = _locked(partial)
                if file is None:
                    _create(new, partial, header, size)
                    continue
                try:
                    if _read(file, 0, len(header)) != header:
                        raise explain(partial)
                    _reserve(file, partial, size)
                    return cls(target, partial, file, header, data_bytes)
                except BaseException:
                    file.close()
                    raise
        raise _busy(partial)

    def write(self, position: int, data: memoryview) -> None:
        """Put bytes at a position, counted from the beginning of the file."""
        with _explained(self._target, self._partial):
            _write(self._file, position, data)

    def checkpoint(self, steps_done: int) -> None:
        """Bring everything written so far onto the disk, and then the counter."""
        with _explained(self._target, self._partial):
            os.fsync(self._file.fileno())
            self._mark(steps_done)
            os.fsync(self._file.fileno())

    def finish(self) -> None:
        """Put the file, without the counter, in the target's place; what was there before is gone."""
        # Before the counter is gone: a target that cannot be replaced must not cost the work.
        check_target(self._target)
        final = Path(os.path.realpath(self._target))
        with _explained(self._target, self._partial):
            os.fsync(self._file.fileno())
            # A kill between here and the rename costs time, never truth: without a counter all is computed again.
            os.ftruncate(self._file.fileno(), self._end)
            try:
                os.fsync(self._file.fileno())
                keep_permissions(final, self._partial)
                if sys.platform == "win32":  # there, an open file cannot be renamed
                    self._file.close()
                self._partial.replace(final)
            except OSError:
                if not self._file.closed:
                    self._mark(self.steps_done)
                raise
        flush_folder(final.parent)
        self.close()

    def close(self) -> None:
        """Let go of the file and its lock; it stays where it is."""
        self._file.close()

    def _mark(self, steps_done: int) -> None:
        # Two marks take turns: when the power fails in the middle of one, the other still holds.
        turn = self._turn + 1
        place = self._end + turn % _MARKS * _MARK.size
        _write(self._file, place, memoryview(self._packed(turn, steps_done)))
        self._turn, self.steps_done = turn, steps_done

    def _packed(self, turn: int, steps_done: int) -> bytes:
        numbers = struct.pack("<QQ", turn, steps_done)
        return _MARK.pack(_MAGIC, turn, steps_done, hashlib.blake2b(numbers, key=self._key, digest_size=8).digest())

    def _last_mark(self) -> tuple[int, int]:
        """Give turn and counter of the newest mark that is whole; zeros where none is."""
        newest = (0, 0)
        for number in range(_MARKS):
            data = _read(self._file, self._end + number * _MARK.size, _MARK.size)
            if len(data) == _MARK.size:
                _, turn, steps_done, _ = _MARK.unpack(data)
                if data == self._packed(turn, steps_done):
                    newest = max(newest, (turn, steps_done))
        return newest


def mend_of(partial: Path) -> str:
    """What to do about a part file that is in the way."""
    return f"delete it (rm {quote(str(partial))}) when nobody needs it, or choose another file"


def _create(new: Path, partial: Path, header: bytes, size: int) -> None:
    """Make a part file with its header and all its room, and let it appear in one step.

    The name of the new file is always the same, so that its lock also keeps two processes from making one each, and so
    that what a killed process has left of it is used again.
    """
    file = _locked(new, create=True)
    if file is None:
        return
    with file:
        if os.path.lexists(partial):
            new.unlink()
            return
        try:
            os.ftruncate(file.fileno(), 0)
            _write(file, 0, memoryview(header))
            _reserve(file, new, size)
            os.fsync(file.fileno())
            if sys.platform == "win32":  # there, an open file cannot be renamed
                file.close()
            new.replace(partial)
        except BaseException:
            with contextlib.suppress(OSError):
                new.unlink()
            raise
    flush_folder(partial.parent)


def _locked(path: Path, *, create: bool = False) -> FileIO | None:
    """Open a file for this process alone; None when it is not there, or was moved away meanwhile."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise SteerError(f"{path}: is not an ordinary file, so no work can be resumed from it", mend_of(path))
    try:
        # No following of links: whoever may write to the folder could lead the writing to any file of the person's.
        special = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        descriptor = os.open(path, os.O_RDWR | special | (os.O_CREAT if create else 0), 0o666)
    except FileNotFoundError:
        if create:
            raise
        return None
    file = os.fdopen(descriptor, "r+b", buffering=0)
    try:
        if sys.platform != "win32":
            _lock(file, path)
        # Until the lock was ours, the file may have been finished, renamed or deleted.
        still_there = os.path.samestat(os.lstat(path), os.fstat(file.fileno()))
    except FileNotFoundError:
        still_there = False
    except BaseException:
        file.close()
        raise
    if not still_there:
        file.close()
        return None
    return file


if sys.platform != "win32":

    def _lock(file: FileIO, path: Path) -> None:
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise _busy(path) from error
        except OSError as error:
            # Some network file systems know no locks; there the person has to see to it.
            if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
                raise


def _busy(partial: Path) -> SteerError:
    return SteerError(
        f"{partial}: another process is writing this file",
        "wait until it is done, or choose another file",
        exit_code=ExitCode.FAILED,
    )


def _reserve(file: FileIO, path: Path, size: int) -> None:
    """Take all the room now, so that a full disk shows at once and not after hours of work."""
    if os.fstat(file.fileno()).st_size >= size:
        return
    free = shutil.disk_usage(path.parent).free
    try:
        _take_room(file, size)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        if error.errno == errno.EFBIG:
            mend = "raise the limit on the size of files (ulimit -f), or write to a disk that takes larger ones"
        else:
            mend = "free some space on that disk, or write to another one"
        reason = error.strerror or error
        raise SteerError(
            f"{path}: needs {size} bytes, and {free} are free: {reason}", mend, exit_code=ExitCode.FAILED
        ) from error


def _take_room(file: FileIO, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            if error.errno not in _CANNOT_RESERVE:
                raise
        else:
            return
    begin = os.fstat(file.fileno()).st_size
    for position in range(begin, size, len(_BLOCK)):
        _write(file, position, memoryview(_BLOCK)[: size - position])


def _write(file: FileIO, position: int, data: memoryview) -> None:
    """Write all of it: one call may take less than it was given."""
    while data:
        if hasattr(os, "pwrite"):
            done = os.pwrite(file.fileno(), data, position)
        else:
            file.seek(position)
            done = file.write(data) or 0
        position += done
        data = data[done:]


def _read(file: FileIO, position: int, count: int) -> bytes:
    """Read what is there of `count` bytes."""
    file.seek(position)
    parts: list[bytes] = []
    while count and (part := file.read(count)):
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


@contextlib.contextmanager
def _explained(target: Path, partial: Path | None = None) -> Iterator[None]:
    """Turn an error of the operating system into one that names the file and the mend."""
    try:
        yield
    except OSError as error:
        safe = f"; the work up to the last checkpoint is safe in {partial}" if partial else ""
        again = ", then run the same command again" if partial else ", or write to another one"
        full = "free some space on that disk" if error.errno in _FULL else "check the disk and the folder's permissions"
        message = f"{target}: cannot be written: {error.strerror or error}{safe}"
        raise SteerError(message, full + again, exit_code=ExitCode.FAILED) from error
