"""Know at once that a journal grew, was made or was deleted.

With `watchdog` (extra `app`) the operating system says so; without it, and on network drives of
which it says nothing, the journals are looked at twice a second.
"""

import contextlib
import threading
import time
from pathlib import Path
from typing import Any

from .journals import find_journals


_LOOK_EVERY_S = 0.5
_CHANGES = ("created", "modified", "deleted", "moved")


class Follower:
    """Follows the journals of a runs folder, until closed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._changed = threading.Event()
        self._seen = find_journals(folder)
        self._observer = self._observe()

    def wait(self, timeout_s: float) -> bool:
        """Wait until a journal changes; return whether one did since the last call."""
        deadline = time.monotonic() + timeout_s
        while True:
            self._changed.clear()
            found = find_journals(self._folder)
            if found != self._seen:
                self._seen = found
                return True
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return False
            self._changed.wait(min(_LOOK_EVERY_S, left_s))

    def close(self) -> None:
        """Stop following."""
        if self._observer is not None:
            self._observer.stop()
            self._observer.join()
            self._observer = None

    def __enter__(self) -> "Follower":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _observe(self) -> Any:
        try:
            from watchdog.events import FileSystemEvent, FileSystemEventHandler
            from watchdog.observers import Observer
        except ImportError:
            return None

        changed = self._changed

        class Handler(FileSystemEventHandler):
            def on_any_event(self, event: FileSystemEvent) -> None:
                # DuckDB writes in the same folder, and reading a journal is an event too.
                paths = f"{event.src_path} {event.dest_path}"
                if event.event_type in _CHANGES and (event.is_directory or ".journal" in paths):
                    changed.set()

        observer = Observer()
        # The system's watches may be used up (inotify); then looking has to do.
        with contextlib.suppress(OSError):
            observer.schedule(Handler(), str(self._folder), recursive=True)
            observer.start()
            return observer
        return None
