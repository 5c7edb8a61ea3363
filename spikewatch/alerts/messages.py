"""What a channel is sent: one message for all alerts since the last one."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from .lines import alert_line


_MOST_LINES = 20
_DISCORD_CHARACTERS = 2000  # Discord refuses longer ones


@dataclass(frozen=True)
class Message:
    """Alerts to be told together.

    Attributes:
        alerts: Rows of the table `alerts`.
        n_lost: How many more there were, for which there was no place.
    """

    alerts: Sequence[Mapping[str, Any]]
    n_lost: int = 0

    @property
    def title(self) -> str:
        """The run, and how many alerts."""
        n = len(self.alerts)
        return f"spikewatch: run {self.alerts[0]['run']}, {n} alert{'s'[: n != 1]}"

    @property
    def text(self) -> str:
        """A line for each alert."""
        lines = [alert_line(row) for row in self.alerts[:_MOST_LINES]]
        more = len(self.alerts) - len(lines) + self.n_lost
        return "\n".join([*lines, *([f"and {more} more"] if more else [])])

    def json(self) -> bytes:
        """For programs: the rows, times in ISO 8601, NaN and infinity as null."""
        rows = [{key: _plain(value) for key, value in row.items()} for row in self.alerts]
        parts = {"run": self.alerts[0]["run"], "text": self.text, "alerts": rows}
        return json.dumps(parts | {"n_lost": self.n_lost}).encode()

    def slack(self) -> bytes:
        """For an incoming webhook of Slack; & < > would be its own markup."""
        text = f"*{self.title}*\n{self.text}"
        for mark, escaped in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
            text = text.replace(mark, escaped)
        return json.dumps({"text": text}).encode()

    def discord(self) -> bytes:
        """For a webhook of Discord; nobody is mentioned, whatever a layer is called."""
        content = f"**{self.title}**\n{self.text}"
        if len(content) > _DISCORD_CHARACTERS:
            content = content[: _DISCORD_CHARACTERS - 1] + "…"
        return json.dumps({"content": content, "allowed_mentions": {"parse": []}}).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat() + "Z"
    return None if isinstance(value, float) and not math.isfinite(value) else value
