"""The watches of this process, and their end when the process ends."""

import atexit
import contextlib
import functools
import os
import sys
from types import TracebackType
from typing import Protocol


class Ends(Protocol):
    """What has to be closed when the process ends."""

    def close(self) -> None:
        """End in peace."""

    def close_after(self, error: BaseException) -> None:
        """End because of an exception."""

    def leave_to_parent(self) -> None:
        """Do nothing more: this process is a fork of the one that trains."""


_open: list[Ends] = []


def remember(watch: Ends) -> None:
    """Close `watch` when the process ends, if it is open then."""
    _open.append(watch)
    _end_with_process()


def forget(watch: Ends) -> None:
    """`watch` is closed."""
    if watch in _open:
        _open.remove(watch)


def still_open() -> list[Ends]:
    """The watches that are open, oldest first."""
    return list(_open)


def _die_by_it() -> None:
    """Have the process still die by SIGINT, so that a shell ends the loop that it was started from.

    Python remembers that nobody handled the interrupt, until something is executed from a string;
    what is imported while a watch is closed does that.
    """
    with contextlib.suppress(KeyboardInterrupt):
        exec("raise KeyboardInterrupt")  # noqa: S102


@functools.cache  # once in a process
def _end_with_process() -> None:
    report_crash = sys.excepthook

    def on_crash(
        kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        for watch in still_open():
            watch.close_after(error)
        if issubclass(kind, KeyboardInterrupt):
            _die_by_it()
        report_crash(kind, error, trace)

    def on_exit() -> None:
        for watch in still_open():
            watch.close()

    def in_child() -> None:
        # A worker of a DataLoader: a copy of the model, without the thread that writes. Whoever
        # held one of our locks when the process was forked will never give it back in here.
        for watch in still_open():
            watch.leave_to_parent()
            forget(watch)

    sys.excepthook = on_crash
    atexit.register(on_exit)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=in_child)
