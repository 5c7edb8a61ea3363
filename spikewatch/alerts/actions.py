"""What happens when an alert fires: a line on the terminal, a callback, a flag, an exception."""

import logging
import sys
from collections.abc import Callable, Iterable
from typing import Any

import polars as pl

from ..errors import AlertRaised
from .lines import alert_line
from .rule import Rule


_log = logging.getLogger("spikewatch")
_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "critical": logging.CRITICAL}


class Dispatcher:
    """Does what the rules ask for. Used by the writer thread, read by the training thread.

    Args:
        rules: Those that the engine judges by.
        on_alert: Called with each alert that fires or is resolved, as a dict with the columns of
            the table `alerts`.
        raise_on_alert: Every critical alert asks for an exception, not only those of rules with the
            action `raise`.

    Attributes:
        should_stop: Whether an alert fired whose rule has the action `stop`.
        pending_error: What the training thread is to raise; who raises it sets this to None.
    """

    def __init__(
        self,
        rules: Iterable[Rule],
        *,
        on_alert: Callable[[dict[str, Any]], None] | None = None,
        raise_on_alert: bool = False,
    ) -> None:
        self.should_stop = False
        self.pending_error: AlertRaised | None = None
        self._actions = {rule.name: rule.actions for rule in rules}
        self._on_alert = on_alert
        self._raise_on_alert = raise_on_alert
        self._callback_failed = False

    def handle(self, transitions: pl.DataFrame) -> None:
        """Act on rows of the table `alerts`; never raises.

        Only firing and its end are told. What is pending may be nothing.
        """
        told = transitions.filter(pl.col("state").is_in(["firing", "resolved"]))
        for row in told.iter_rows(named=True):
            actions = self._actions.get(row["rule"], ())
            if "log" in actions:
                _say(row)
            if "callback" in actions:
                self._call(row)
            if row["state"] == "firing":
                self._halt(row, actions)

    def _halt(self, row: dict[str, Any], actions: tuple[str, ...]) -> None:
        if "stop" in actions:
            self.should_stop = True
        critical = self._raise_on_alert and row["severity"] == "critical"
        if (critical or "raise" in actions) and self.pending_error is None:
            self.pending_error = AlertRaised(alert_line(row))

    def _call(self, row: dict[str, Any]) -> None:
        if self._on_alert is None:
            return
        try:
            self._on_alert(row)
        except Exception as error:  # noqa: BLE001 - contract 1
            if not self._callback_failed:
                _log.warning(
                    "spikewatch: on_alert failed on %r (%s: %s). Training goes on; further "
                    "failures are not reported.",
                    row["rule"],
                    type(error).__name__,
                    error,
                )
            self._callback_failed = True


def _say(row: dict[str, Any]) -> None:
    """Log the alert; on stderr where the program has set up no logging, at any level."""
    level = _LEVELS[row["severity"]] if row["state"] == "firing" else logging.INFO
    if _log.hasHandlers():
        _log.log(level, "%s", alert_line(row))
    elif level >= _log.level and sys.stderr is not None:
        # One write, so that lines of several threads do not mix.
        sys.stderr.write(alert_line(row) + "\n")
