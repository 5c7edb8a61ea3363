"""Channels: who is told of alerts.

The address of most channels is a secret. It is named by an environment variable, read when a
training begins, and shown nowhere: `Channel.where` is what may be seen.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import urlsplit

from .rule import SEVERITIES


TYPES = ("webhook", "slack", "discord", "apprise", "command")
ENVIRONMENT = "SPIKEWATCH_WEBHOOK"

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s\"']+")
_HOSTS = {"hooks.slack.com": "slack", "discord.com": "discord", "discordapp.com": "discord"}


@dataclass(frozen=True, kw_only=True)
class Channel:
    """Somebody to be told.

    Attributes:
        name: To be called by.
        type: `webhook` (JSON), `slack`, `discord`, `apprise` (e-mail and more than a hundred
            others, by their Apprise address) or `command`.
        url_env: The environment variable that holds the address.
        url: The address itself, where it is no secret.
        command: Program and arguments; it gets the message as JSON on its standard input.
        severity: The least that is told.
        rules: Globs of the rules that are told.
        resolved: Whether the end of an alert is told, too.
        at_most_every_s: Messages are at least so far apart; alerts in between share one.
    """

    name: str
    type: str
    url_env: str = ""
    url: str = field(default="", repr=False)
    command: tuple[str, ...] = ()
    severity: str = "warning"
    rules: tuple[str, ...] = ("*",)
    resolved: bool = True
    at_most_every_s: float = 10.0

    @property
    def address(self) -> str:
        """Where messages go; a secret. Empty where the environment does not say."""
        return (self.url or os.environ.get(self.url_env, "")).strip()

    @property
    def where(self) -> str:
        """The address as it may be shown."""
        if self.type == "command":
            return self.command[0]
        if self.url_env:
            return f"${self.url_env}"
        return shown(self.url)

    def wants(self, alert: Mapping[str, Any]) -> bool:
        """Whether a row of the table `alerts` is told here."""
        grave = SEVERITIES.index(alert["severity"]) >= SEVERITIES.index(self.severity)
        told = alert["state"] != "resolved" or self.resolved
        return grave and told and any(fnmatchcase(alert["rule"], glob) for glob in self.rules)


def shown(url: str) -> str:
    """An address without what may be secret in it: user, password, path and query."""
    try:
        parts = urlsplit(url)
        host = parts.hostname if parts.scheme in ("http", "https") else ""
        port = f":{parts.port}" if host and parts.port else ""
    except ValueError:
        return "(an address that cannot be read)"
    return f"{parts.scheme or '?'}://{host}{port}{'/' if host else ''}…"


def without_addresses(text: str) -> str:
    """A text, of whose addresses only what may be shown is left."""
    return _ADDRESS.sub(lambda match: shown(match[0]), text)


def channel_from_environment() -> Channel | None:
    """The one channel that needs no rules file: `$SPIKEWATCH_WEBHOOK`."""
    url = os.environ.get(ENVIRONMENT)
    if not url:
        return None
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        host = ""
    return Channel(name="environment", type=_HOSTS.get(host, "webhook"), url_env=ENVIRONMENT)
