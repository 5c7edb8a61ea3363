"""Channels: who is told of alerts, as a rules file declares it.

The address of most channels is a secret. It is named by an environment variable, read when a
training begins, and shown nowhere: `Channel.where` is what may be seen.
"""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import urlsplit

from ..errors import RuleError
from .expression import suggest
from .rule import SEVERITIES


TYPES = ("webhook", "slack", "discord", "apprise", "command")
ENVIRONMENT = "SPIKEWATCH_WEBHOOK"

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
        return self.url or os.environ.get(self.url_env, "")

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


def channel_from_table(table: Mapping[str, Any]) -> Channel:
    """A [[channel]] of a rules file.

    Raises:
        RuleError: A key or a value is wrong; the message says what is allowed.
    """
    who = f"channel {table.get('name', '?')!r}"
    keys = [f.name for f in fields(Channel)]
    for key in table:
        if key not in keys:
            raise RuleError(f"{who}: there is no key {key!r}. {suggest(key, keys)}")
    for key in ("name", "type"):
        if not isinstance(table.get(key), str):
            raise RuleError(f"{who}: it has no `{key}`. A channel needs `name` and `type`.")
    try:
        return _checked(table)
    except RuleError as error:
        raise RuleError(f"{who}: {error}") from error


def _checked(table: Mapping[str, Any]) -> Channel:
    values = dict(table)
    for key, allowed in (("type", TYPES), ("severity", SEVERITIES)):
        if values.get(key, allowed[0]) not in allowed:
            rest = ' E-mail and the rest go through type = "apprise".' if key == "type" else ""
            hint = suggest(str(values[key]), allowed)
            raise RuleError(f"`{key}` was {values[key]!r}. {hint}{rest}")
    for key in ("url", "url_env"):
        if not isinstance(values.get(key, ""), str):
            raise RuleError(f"`{key}` is a text in quotes")
    for key in ("rules", "command"):
        found = values.get(key, [])
        if not isinstance(found, list) or not all(isinstance(x, str) for x in found):
            raise RuleError(f'`{key}` was {found!r}; it is a list of texts, as in ["dead-*"]')
        if key in values:
            values[key] = tuple(found)
    if not isinstance(values.get("resolved", True), bool):
        raise RuleError(f"`resolved` was {values['resolved']!r}; it is true or false")
    every = values.get("at_most_every_s", 10)
    if isinstance(every, bool) or not isinstance(every, int | float) or not 0 <= every < math.inf:
        raise RuleError(f"`at_most_every_s` was {every!r}; it is a number of seconds, 0 or more")
    channel = Channel(**values)
    if channel.type == "command":
        if not channel.command:
            raise RuleError('it has no `command`, as in ["python3", "tell.py"]')
    elif bool(channel.url) == bool(channel.url_env):
        raise RuleError(
            "it needs `url_env`, the name of an environment variable that holds the address, as in "
            'url_env = "SLACK_URL" (or `url`, where the address is no secret)'
        )
    elif channel.url and not _is_address(channel.url):
        raise RuleError("`url` is no address. It looks like https://host/path.")
    return channel


def _is_address(url: str) -> bool:
    """Whether it has the form of an address."""
    try:
        return "://" in url and bool(urlsplit(url).scheme)
    except ValueError:
        return False
