"""Outbox: the queue of one channel, and the thread that empties it. Training never waits for it."""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import tenacity

from .channels import Channel
from .delivery import NotDelivered, Send, TryLater
from .messages import Message
from .through_apprise import OURS
from .transport import sender


MOST_WAITING = 200
ATTEMPTS = 5
_FIRST_WAIT_S, _MOST_WAIT_S = 0.5, 30.0


class Outbox:
    """Sends alerts to one channel: several in one message, not too often, and more than once.

    Args:
        channel: Where to.
        report: Told in words of failures, once each time they begin, and when they are over.

    Raises:
        MissingExtraError: The channel needs a package that is not installed.
    """

    def __init__(self, channel: Channel, report: Callable[[str], None]) -> None:
        self.channel = channel
        self._report = report
        self._send: Send = sender(channel)
        self._waiting: deque[Mapping[str, Any]] = deque()
        self._wake = threading.Condition()
        self._closing = threading.Event()
        self._n_lost = 0  # no place in the queue
        self._n_failed = 0  # not delivered since it last worked
        self._thread: threading.Thread | None = None

    def put(self, alert: Mapping[str, Any]) -> None:
        """Queue an alert; the oldest gives way when there are too many."""
        with self._wake:
            if len(self._waiting) >= MOST_WAITING:
                self._waiting.popleft()
                self._n_lost += 1
            self._waiting.append(alert)
            if self._thread is None:  # only who has something to say needs a thread
                name = OURS + self.channel.name
                self._thread = threading.Thread(target=self._run, name=name, daemon=True)
                self._thread.start()
            self._wake.notify()

    def hurry(self) -> None:
        """Send what waits, at once and without another try, and then end."""
        self._closing.set()
        with self._wake:
            self._wake.notify()

    def close(self, *, timeout_s: float) -> None:
        """Wait for the end."""
        self.hurry()
        if self._thread is None:
            return
        self._thread.join(timeout_s)
        if self._thread.is_alive() and not self._n_failed:  # else it was told already
            self._report(f"{self._name()} did not answer in time; its latest alerts may be lost")

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._waiting and not self._closing.is_set():
                    self._wake.wait()
                alerts, self._waiting = list(self._waiting), deque()
                n_lost, self._n_lost = self._n_lost, 0
            if not alerts:
                return
            began = time.monotonic()
            self._deliver(Message(alerts, n_lost))
            # Alerts that come meanwhile share the next message.
            spent_s = time.monotonic() - began
            self._closing.wait(max(0.0, self.channel.at_most_every_s - spent_s))

    def _deliver(self, message: Message) -> None:
        tries = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(TryLater),
            stop=tenacity.stop_any(
                tenacity.stop_after_attempt(ATTEMPTS), tenacity.stop_when_event_set(self._closing)
            ),
            wait=_wait,
            sleep=tenacity.sleep_using_event(self._closing),
            reraise=True,
        )
        try:
            tries(self._send, message)
        except NotDelivered as error:
            self._failed(str(error), message)
        except Exception as error:  # noqa: BLE001 - whatever a channel does, it ends here
            self._failed(type(error).__name__, message)
        else:
            if self._n_failed:
                n = self._n_failed
                self._report(f"{self._name()} works again; {n} alert{'s'[: n != 1]} did not arrive")
            self._n_failed = 0

    def _failed(self, why: str, message: Message) -> None:
        if not self._n_failed:
            self._report(
                f"{self._name()} failed: {why}. Training goes on, alerts are stored; this is told "
                "again only when it works"
            )
        self._n_failed += len(message.alerts)

    def _name(self) -> str:
        return f"channel {self.channel.name!r} ({self.channel.type}, {self.channel.where})"


def _wait(state: tenacity.RetryCallState) -> float:
    """Twice as long each time, or what the other side asks for."""
    error = state.outcome.exception() if state.outcome else None
    asked_s = error.after_s if isinstance(error, TryLater) else 0.0
    own = tenacity.wait_exponential(_FIRST_WAIT_S, _MOST_WAIT_S) + tenacity.wait_random(
        0, _FIRST_WAIT_S
    )
    return max(asked_s, own(state))
