"""A rules file as it stands: TOML with `mute`, [[change]], [[rule]] and [[channel]]."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import RuleError
from .mistakes import Mistakes, shown, suggest


KEYS = ("rule", "change", "mute", "channel")
Table = dict[str, Any]


@dataclass(frozen=True)
class RulesFile:
    """What a rules file holds, as tables.

    Attributes:
        mute: Globs of shipped rules to leave out.
        changes: Shipped rules by name, with the keys that are to be otherwise.
        rules: Whole rules.
        channels: Who is told.
    """

    mute: tuple[str, ...]
    changes: tuple[Table, ...]
    rules: tuple[Table, ...]
    channels: tuple[Table, ...]


def read_toml(path: Path) -> Table:
    """Read a TOML file.

    Raises:
        RuleError: It cannot be read, is not UTF-8, or is not TOML (with line and column).
    """
    if path.is_dir():
        raise RuleError("this is a folder. Name the TOML file in it that holds the rules.")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise RuleError(f"there is no such file (looked in {str(Path.cwd())!r})") from None
    except OSError as error:
        raise RuleError(f"it cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise RuleError(
            f"it is not UTF-8 text (byte {error.start} is 0x{error.object[error.start]:02x}). "
            "Save it as UTF-8."
        ) from error
    return parse_toml(text)


def parse_toml(text: str) -> Table:
    """Parse TOML; see `read_toml`."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RuleError(f"it is not TOML: {error}") from error
    except RecursionError:
        raise RuleError(
            "it is nested too deeply. A rules file needs no more than tables."
        ) from None


def parse_rules(content: Mapping[str, Any], mistakes: Mistakes) -> RulesFile:
    """Sort what a rules file holds. What is not as it should be is a mistake, and left out."""
    for key in content:
        if key not in KEYS:
            mistakes.add(
                f"there is no key {shown(key)} at the top. {suggest(key, KEYS)} "
                "A rule begins with [[rule]]."
            )
    if not content:
        mistakes.add(
            "it holds no rule. Begin one with [[rule]], change a shipped one with [[change]], or "
            'leave shipped ones out with mute = ["…"].'
        )
    mute = content.get("mute", [])
    if not isinstance(mute, list) or not all(isinstance(m, str) for m in mute):
        mistakes.add(f'`mute` was {shown(mute)}; it is a list of names, as in ["low-rate"]')
        mute = []
    tables = {key: _tables(content, key, mistakes) for key in ("change", "rule", "channel")}
    return RulesFile(tuple(mute), tables["change"], tables["rule"], tables["channel"])


def _tables(content: Mapping[str, Any], key: str, mistakes: Mistakes) -> tuple[Table, ...]:
    tables = content.get(key, [])
    if not isinstance(tables, list) or not all(isinstance(t, dict) for t in tables):
        mistakes.add(f"a {key} begins with [[{key}]], with two brackets on each side")
        return ()
    return tuple(tables)
