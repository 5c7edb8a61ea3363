"""[[channel]] of a rules file: every mistake in it, and no address shown."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import fields
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import urlsplit

from ..errors import RuleError
from .channels import TYPES, Channel
from .mistakes import Mistakes, shown, suggest
from .rule import NAME, NAME_HINT, SEVERITIES


_DAY_S = 86_400.0
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NEEDS_ADDRESS = (
    "it needs `url_env`, the name of an environment variable that holds the address, as in "
    'url_env = "SLACK_URL" (or `url`, where the address is no secret)'
)


def channels_from_tables(
    tables: Iterable[Mapping[str, Any]], rules: Collection[str], mistakes: Mistakes
) -> tuple[Channel, ...]:
    """The channels of a rules file.

    Args:
        tables: Its [[channel]]s.
        rules: Names of the rules that there are.
        mistakes: Takes what is wrong.
    """
    channels: dict[str, Channel] = {}
    for table in tables:
        channel = mistakes.tried(lambda t=table: channel_from_table(t))
        if channel is None:
            continue
        if channel.name in channels:
            mistakes.add(f"channel {channel.name!r} is there twice. Give each a name of its own.")
        for glob in channel.rules:
            if rules and not any(fnmatchcase(name, glob) for name in rules):
                mistakes.add(
                    f"channel {channel.name!r}: `rules`: no rule is named {shown(glob)}. "
                    f"{suggest(glob, rules)}"
                )
        channels[channel.name] = channel
    return tuple(channels.values())


def channel_from_table(table: Mapping[str, Any]) -> Channel:
    """A [[channel]] of a rules file.

    Raises:
        RuleError: Keys or values are wrong; the message says what is allowed.
    """
    mistakes = Mistakes()
    keys = [f.name for f in fields(Channel)]
    for key in table:
        if key not in keys:
            mistakes.add(f"there is no key {shown(key)}. {suggest(key, keys)}")
    values = {
        key: value
        for key in keys
        if key in table
        and (value := mistakes.tried(lambda k=key: _READ[k](k, table[k]))) is not None
    }
    for key in ("name", "type"):
        if key not in table:
            mistakes.add(f"it has no `{key}`. A channel needs `name` and `type`.")
    mistakes.tried(lambda: _check_target(table))
    mistakes.tell_of(f"channel {shown(table.get('name', '?'))}")
    return Channel(**values)


def _check_target(table: Mapping[str, Any]) -> None:
    """A channel has one thing that tells where to: an address, or a program."""
    kind, url = table.get("type"), table.get("url")
    if kind == "command":
        if "command" not in table:
            raise RuleError('it has no `command`, as in ["python3", "tell.py"]')
    elif bool(url) == bool(table.get("url_env")):
        raise RuleError(_NEEDS_ADDRESS)
    elif isinstance(url, str) and kind in TYPES and not _is_address(url, web=kind != "apprise"):
        raise RuleError(
            "`url` is no address. It looks like https://host/path."
            + (' Other kinds than http go through type = "apprise".' if "://" in url else "")
        )


def _is_address(url: str, *, web: bool) -> bool:
    """Whether it has the form of an address, of the web where only that will do."""
    try:
        parts = urlsplit(url)
        return "://" in url and (
            (parts.scheme in ("http", "https") and bool(parts.hostname)) if web else True
        )
    except ValueError:
        return False


def _text(key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise RuleError(f"`{key}` was {shown(value)}; it is a text in quotes")
    return value


def _address(key: str, value: Any) -> str:
    if not isinstance(value, str):  # it may be a secret
        raise RuleError(f"`{key}` is a text in quotes")
    return value


def _name(key: str, value: Any) -> str:
    if not NAME.fullmatch(_text(key, value)):
        raise RuleError(NAME_HINT)
    return value


def _variable(key: str, value: Any) -> str:
    if not _VARIABLE.fullmatch(_address(key, value)):
        raise RuleError(
            f"`{key}` is no name of an environment variable. Put the address into a variable, and "
            'name that: export SLACK_URL=https://…, and url_env = "SLACK_URL"'
        )
    return value


def _choice(allowed: tuple[str, ...], rest: str = "") -> Any:
    def read(key: str, value: Any) -> str:
        if _text(key, value) not in allowed:
            raise RuleError(f"`{key}` was {shown(value)}. {suggest(value, allowed)}{rest}")
        return value

    return read


def _texts(key: str, value: Any, example: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(x, str) for x in value):
        raise RuleError(f"`{key}` was {shown(value)}; it is a list of texts, as in {example}")
    return tuple(value)


def _globs(key: str, value: Any) -> tuple[str, ...]:
    globs = _texts(key, value, '["dead-*"]')
    if not globs:
        raise RuleError(f"`{key}` is empty; leave it out to be told of all rules")
    return globs


def _program(key: str, value: Any) -> tuple[str, ...]:
    program = _texts(key, value, '["python3", "tell.py"]')
    if not program or not program[0].strip() or any("\0" in part for part in program):
        raise RuleError(f'`{key}` names no program, as ["python3", "tell.py"] does')
    return program


def _truth(key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise RuleError(f"`{key}` was {shown(value)}; it is true or false")
    return value


def _seconds(key: str, value: Any) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= _DAY_S:
        raise RuleError(
            f"`{key}` was {shown(value)}; it is a number of seconds, 0 to {_DAY_S:g} (a day)"
        )
    return float(value)


_READ: Mapping[str, Any] = {
    "name": _name,
    "type": _choice(TYPES, ' E-mail and the rest go through type = "apprise".'),
    "url_env": _variable,
    "url": _address,
    "command": _program,
    "severity": _choice(SEVERITIES),
    "rules": _globs,
    "resolved": _truth,
    "at_most_every_s": _seconds,
}
