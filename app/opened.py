"""The one store that this server reads, and plain words when it cannot.

All sessions share it. It is opened when it is first asked for, and again after it went away: the
page may be up before the first run begins, and stay up when the folder is moved.
"""

import contextlib
import threading
from dataclasses import dataclass
from pathlib import Path

import duckdb

from spikewatch.errors import SpikewatchError
from spikewatch.paths import runs_dir
from spikewatch.store import Store, open_store


# What a store that breaks under us can raise, whatever it wraps.
FAILURES = (SpikewatchError, OSError, duckdb.Error)


@dataclass(frozen=True)
class Trouble:
    """Why there is nothing to show. `title` is one line; `advice` is Markdown."""

    title: str
    advice: str
    is_error: bool = False


class _Shelf:
    """Holds the open store; safe to ask from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._store: Store | None = None
        self._folder = ""

    def get(self, folder: str) -> Store:
        with self._lock:
            if self._store is None or self._folder != folder:
                self._drop()
                self._store = open_store(folder)
                self._folder = folder
            return self._store

    def forget(self) -> None:
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            with contextlib.suppress(*FAILURES):
                store.close()


_shelf = _Shelf()


def folder() -> str:
    """The runs folder, or the URI of a store on a server."""
    given = str(runs_dir())
    return given if _is_uri(given) else str(Path(given).absolute())


def the_store() -> Store | Trouble:
    """The open store, or what is in the way."""
    where = folder()
    if not _is_uri(where) and not Path(where).exists():
        _shelf.forget()
        return Trouble(
            "There is no runs folder yet",
            f"Looked for `{where}`. It appears with the first `spikewatch.attach(model)` that "
            "writes there, and this page shows it by itself. To look elsewhere, start it with "
            "`spikewatch show FOLDER`, or set `SPIKEWATCH_DIR`.",
        )
    try:
        return _shelf.get(where)
    except FAILURES as error:
        return trouble(error)


def trouble(error: Exception) -> Trouble:
    """A failure of the store in plain words; the next refresh opens it anew."""
    _shelf.forget()
    said = str(error).strip().splitlines() or [type(error).__name__]
    return Trouble(
        "The runs cannot be read just now",
        f"{said[0]}\n\nThis page tries again at every refresh. What training wrote is safe in "
        f"the journals (`{folder()}/*/rank-*.journal`); the database beside them may be deleted "
        "at any time, it is rebuilt from them.",
        is_error=True,
    )


def _is_uri(where: str) -> bool:
    head = where.split(":", 1)[0]
    return ":" in where and len(head) > 1 and head.isalpha()
