"""The user's function for alerts, in a thread of its own: one that hangs holds up nobody else."""

import threading
from collections import deque
from collections.abc import Callable
from typing import Any


MOST_WAITING = 200


class Callback:
    """Calls a function with one alert after the other.

    Args:
        function: Called with each; what it raises is its own matter.
        report: Told in words where it does not return in time.
    """

    def __init__(
        self, function: Callable[[dict[str, Any]], None], report: Callable[[str], None]
    ) -> None:
        self._function = function
        self._report = report
        self._waiting: deque[dict[str, Any]] = deque(maxlen=MOST_WAITING)
        self._wake = threading.Condition()
        self._closing = False
        self._thread: threading.Thread | None = None

    def put(self, alert: dict[str, Any]) -> None:
        """Queue an alert; the oldest gives way when there are too many."""
        with self._wake:
            self._waiting.append(alert)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="spikewatch-on_alert", daemon=True
                )
                self._thread.start()
            self._wake.notify()

    def close(self, *, timeout_s: float) -> None:
        """Wait until all that was queued has been handed over."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        if self._thread is None:
            return
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            n = len(self._waiting)
            more = f"; {n} more alert{'s'[: n != 1]} waited for it" if n else ""
            self._report(f"on_alert did not return in time{more}")

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._waiting and not self._closing:
                    self._wake.wait()
                if not self._waiting:
                    return
                alert = self._waiting.popleft()
            self._function(alert)
