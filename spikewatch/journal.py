"""The journal: one append-only file per rank, and the truth of what a run recorded.

A frame is written by one `write` and holds all that was observed at once, so whoever is killed
when, a frame is there as a whole or not at all: a torn tail is ignored until it is whole. Nothing
calls `fsync`: rows outlive a killed process, though not a power cut of the last seconds.
"""

import contextlib
import errno
import os
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import polars as pl

from .errors import StoreError
from .framing import DECODE_ERRORS, FILE_HEADER, MAGIC, MAGIC_STEM, decode, encode, whole_frames


try:
    import fcntl
except ImportError:  # Windows has no flock; there a run counts as running while its file is fresh
    fcntl = None  # type: ignore[assignment]

# Where a file system knows no locks, a journal that changed so recently counts as being written.
_FRESH_S = 30.0
# A reader that asks whether a journal is being written holds its lock for some microseconds.
_LOCK_TIMEOUT_S = 1.0

_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)

_open_writers: "weakref.WeakSet[JournalWriter]" = weakref.WeakSet()


@dataclass(frozen=True)
class Frame:
    """What one `append` wrote.

    Attributes:
        tables: The tables, by name.
        end: Offset of the first byte after the frame; reading goes on from there.
        skipped: Damaged bytes between the frame before (or the offset asked for) and this one.
    """

    tables: dict[str, pl.DataFrame]
    end: int
    skipped: int = 0


class JournalWriter:
    """Appends frames to one journal. Holds its lock until closed or killed.

    Raises:
        StoreError: The file cannot be written, is not a journal, or another process writes it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = -1
        self._mutex = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(path, _FLAGS, 0o644)
            _lock(self._fd, path)
            self._end = _prepare(self._fd, path)
        except OSError as error:
            self.close()
            raise StoreError(
                f"Cannot write the journal {str(path)!r}: {error.strerror or error}. Choose a "
                "folder that can be written, with `attach(..., dir=...)` or $SPIKEWATCH_DIR, or "
                "free some space."
            ) from error
        except StoreError:
            self.close()
            raise
        _open_writers.add(self)

    def append(self, tables: Mapping[str, pl.DataFrame]) -> int:
        """Append one frame that holds all the tables.

        Args:
            tables: Frames by table name. The catalogue is not asked: what is given is kept.

        Returns:
            The journal's new length in bytes.

        Raises:
            OSError: The frame could not be written. The journal is as it was before the call.
        """
        frame = encode(tables)
        with self._mutex:
            if self._fd < 0:
                raise OSError(errno.EBADF, "The journal is closed, or belongs to another process")
            if os.fstat(self._fd).st_nlink == 0:
                raise OSError(errno.ENOENT, "The journal was deleted", str(self.path))
            try:
                _write_all(self._fd, frame, self._end)
            except OSError:
                # Should this fail too, the next append overwrites what is left: readers skip it.
                with contextlib.suppress(OSError):
                    os.ftruncate(self._fd, self._end)
                raise
            self._end += len(frame)
            return self._end

    def close(self) -> None:
        """Close the file and give its lock back; may be called twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> "JournalWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_frames(path: Path, offset: int = 0) -> Iterator[Frame]:
    """Read the whole frames of a journal; stop where the next one is not whole yet.

    A damaged frame is skipped, and counted in the `skipped` of the next, as soon as a whole frame
    follows it. Until then it cannot be told from a tail that is still being written.

    Args:
        path: The journal.
        offset: Where to begin: 0, or the `end` of a frame.

    Raises:
        StoreError: There is no such file, or it is not a journal.
    """
    with _open_journal(path) as file:
        if journal_id(path) is None:
            return
        for start, end, body, skipped in whole_frames(file, max(offset, FILE_HEADER)):
            try:
                tables = decode(body)
            except DECODE_ERRORS as e:
                raise StoreError(
                    f"The frame at byte {start} of {str(path)!r} is whole but cannot be read "
                    f"({e}). It was written by another version of spikewatch: install that one."
                ) from e
            yield Frame(tables, end, skipped)


def journal_id(path: Path) -> bytes | None:
    """The 16 bytes that name a journal file; None while its first bytes are not yet whole.

    Raises:
        StoreError: There is no such file, or it is not a journal.
    """
    with _open_journal(path) as file:
        header = file.read(FILE_HEADER)
    _check_magic(header, path)
    return header[len(MAGIC) :] if len(header) == FILE_HEADER else None


def is_being_written(path: Path) -> bool:
    """Whether a live process holds the writer's lock of this journal.

    The kernel drops the lock with the process, however it ends. On a file system without locks
    the answer is whether the journal changed in the last 30 s.
    """
    try:
        with path.open("rb") as file:
            if fcntl is None:
                return time.time() - os.fstat(file.fileno()).st_mtime < _FRESH_S
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            except OSError:
                return time.time() - os.fstat(file.fileno()).st_mtime < _FRESH_S
            return False
    except OSError:
        return False


def _lock(fd: int, path: Path) -> None:
    """Take the writer's lock, where the file system has locks.

    It is flock, not a POSIX lock: that one would be lost as soon as anyone in this process, say a
    notebook that reads the run it trains, opened and closed the journal. What flock has against
    it, that a forked child inherits it, `_forget_in_child` undoes.
    """
    if fcntl is None:
        return
    deadline = time.monotonic() + _LOCK_TIMEOUT_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise StoreError(
                    f"The journal {str(path)!r} is being written by another process. Give this "
                    "run another name, or end that process."
                ) from None
            time.sleep(0.01)
        except OSError:
            return  # no locks here; see is_being_written
        else:
            return


def _forget_in_child() -> None:
    # A data loader's worker must not keep the lock of a trainer that was killed.
    for writer in list(_open_writers):
        writer.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)


def _prepare(fd: int, path: Path) -> int:
    """Write the file's header, or cut a torn tail off; return where the next frame goes."""
    with os.fdopen(os.dup(fd), "rb") as file:
        header = file.read(FILE_HEADER)
        _check_magic(header, path)
        ends = (end for _, end, _, _ in whole_frames(file, FILE_HEADER))
        end = max(ends, default=FILE_HEADER)
    if len(header) < FILE_HEADER:
        _write_all(fd, MAGIC + os.urandom(16), 0)
    os.ftruncate(fd, end)
    return end


def _check_magic(header: bytes, path: Path) -> None:
    magic = header[: len(MAGIC)]
    if MAGIC.startswith(magic):
        return
    if magic.startswith(MAGIC_STEM):
        raise StoreError(
            f"The journal {str(path)!r} has format {magic!r}; this spikewatch reads {MAGIC!r}. "
            "Upgrade spikewatch: pip install -U spikewatch."
        )
    raise StoreError(
        f"{str(path)!r} is not a spikewatch journal: it begins with {magic!r}, not with "
        f"{MAGIC!r}. Move it out of the runs folder."
    )


def _open_journal(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise StoreError(
            f"Cannot read the journal {str(path)!r}: {error.strerror or error}. Check that the "
            "run still exists and that its files may be read."
        ) from error


def _write_all(fd: int, data: bytes, at: int) -> None:
    view = memoryview(data)
    os.lseek(fd, at, os.SEEK_SET)
    while view:  # a full disk takes a part first and refuses the rest
        view = view[os.write(fd, view) :]
