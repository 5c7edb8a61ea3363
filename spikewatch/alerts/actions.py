"""What happens when an alert fires: a line, a callback, a message, a flag, an exception."""

import logging
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import polars as pl

from ..errors import AlertRaised
from .callback import Callback
from .channels import Channel
from .lines import alert_line
from .outbox import Outbox
from .rule import Rule


_log = logging.getLogger("spikewatch")
_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "critical": logging.CRITICAL}
_CLOSE_S = 6.0
_MOST_CHECKPOINTS = 16

Alert = dict[str, Any]
Lane = tuple[int, str, str, str]


class Dispatcher:
    """Does what the rules ask for. Used by the writer thread, read by the training thread.

    What follows from another alert is not told; it may still ask for a stop, an exception or a
    checkpoint.

    Args:
        rules: Those that the engine judges by.
        on_alert: Called with each alert that is told, as a dict with the columns of the table
            `alerts`, in a thread of its own.
        on_checkpoint: Called, in the training loop, with each alert whose rule has the action
            `checkpoint`.
        raise_on_alert: Every critical alert asks for an exception, not only those of rules with the
            action `raise`.
        channels: Who is told, for rules with the action `notify`.

    Attributes:
        should_stop: Whether an alert fired whose rule has the action `stop`.
        may_stop: Whether there is such a rule.
        on_trouble: Called with words on a channel that fails, to be stored.
    """

    def __init__(
        self,
        rules: Iterable[Rule],
        *,
        on_alert: Callable[[Alert], None] | None = None,
        on_checkpoint: Callable[[Alert], None] | None = None,
        raise_on_alert: bool = False,
        channels: Sequence[Channel] = (),
    ) -> None:
        self.should_stop = False
        self.on_trouble: Callable[[str], None] = lambda _: None
        self._actions = {rule.name: rule.actions for rule in rules}
        self.may_stop = any("stop" in actions for actions in self._actions.values())
        self._callback: Callback | None = None
        if on_alert is not None:
            call = partial(self._call, "on_alert", on_alert)
            self._callback = Callback(call, self._channel_trouble)
        self._on_checkpoint = on_checkpoint
        self._raise_on_alert = raise_on_alert
        self._failed: set[str] = set()
        self._fires: set[Lane] = set()
        self._told: set[Lane] = set()
        self._error: AlertRaised | None = None
        self._checkpoints: deque[Alert] = deque(maxlen=_MOST_CHECKPOINTS)
        self._outboxes = [
            Outbox(c, self._channel_trouble) for c in channels if c.address or c.command
        ]
        self._silent = [c for c in channels if not (c.address or c.command)]

    def start(self) -> None:
        """Say which channels have no address."""
        for channel in self._silent:
            self._channel_trouble(
                f"channel {channel.name!r} ({channel.type}) is left out: ${channel.url_env} is not "
                "set. Set it to the address before training"
            )

    def handle(self, transitions: pl.DataFrame) -> None:
        """Act on rows of the table `alerts`; never raises. What is pending may be nothing."""
        told = transitions.filter(pl.col("state").is_in(["firing", "resolved", "error"]))
        for row in told.iter_rows(named=True):
            lane = (row["rank"], row["phase"], row["rule"], row["layer"])
            if row["state"] == "error":
                _log.warning("spikewatch: rule %r: %s", row["rule"], row["summary"])
            elif row["state"] == "resolved":
                self._fires.discard(lane)
                if lane in self._told:
                    self._told.discard(lane)
                    self._tell(row)
            else:
                if row["root_rule"] is None and lane not in self._told:
                    self._told.add(lane)
                    self._tell(row)
                if lane not in self._fires:
                    self._fires.add(lane)
                    self._halt(row)

    def act(self) -> None:
        """What the training thread has to do itself, between two steps.

        Raises:
            AlertRaised: An alert fired whose rule asks for it.
        """
        while self._checkpoints:
            self.checkpoint(self._checkpoints.popleft())
        error, self._error = self._error, None
        if error is not None:
            raise error

    def checkpoint(self, alert: Alert) -> None:
        """Call the user's function; never raises."""
        if self._on_checkpoint is not None:
            self._call("on_checkpoint", self._on_checkpoint, alert)

    def close(self) -> None:
        """Send what waits; some seconds at most."""
        deadline = time.monotonic() + _CLOSE_S
        for outbox in self._outboxes:
            outbox.hurry()
        closing = [*self._outboxes, *([self._callback] if self._callback else [])]
        for part in closing:
            part.close(timeout_s=max(0.1, deadline - time.monotonic()))

    def _tell(self, row: Alert) -> None:
        actions = self._actions.get(row["rule"], ())
        if "log" in actions:
            _say(row)
        if "callback" in actions and self._callback is not None:
            self._callback.put(row)
        if "notify" in actions:
            for outbox in self._outboxes:
                if outbox.channel.wants(row):
                    outbox.put(row)

    def _halt(self, row: Alert) -> None:
        actions = self._actions.get(row["rule"], ())
        if "stop" in actions:
            self.should_stop = True
        if "checkpoint" in actions:
            self._checkpoints.append(row)
        critical = self._raise_on_alert and row["severity"] == "critical"
        if (critical or "raise" in actions) and self._error is None:
            self._error = AlertRaised(alert_line(row))

    def _call(self, name: str, function: Callable[[Alert], None], row: Alert) -> None:
        try:
            function(row)
        except Exception as error:  # noqa: BLE001 - contract 1
            if name not in self._failed:
                _log.warning(
                    "spikewatch: %s failed on %r (%s: %s). Training goes on; further "
                    "failures are not reported.",
                    name,
                    row["rule"],
                    type(error).__name__,
                    error,
                )
            self._failed.add(name)

    def _channel_trouble(self, message: str) -> None:
        _log.warning("spikewatch: %s.", message)
        self.on_trouble(message)


def _say(row: Alert) -> None:
    """Log the alert; on stderr where the program has set up no logging, at any level."""
    level = _LEVELS[row["severity"]] if row["state"] == "firing" else logging.INFO
    if _log.hasHandlers():
        _log.log(level, "%s", alert_line(row))
    elif level >= _log.level and sys.stderr is not None:
        # One write, so that lines of several threads do not mix.
        sys.stderr.write(alert_line(row) + "\n")
