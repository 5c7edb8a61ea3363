"""A rules file as it stands: TOML with `mute` and [[rule]]. What a rule may say is `Rule`'s."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import RuleError
from .expression import suggest


@dataclass(frozen=True)
class RulesFile:
    """What a rules file holds: names to leave out, and its rules as tables."""

    mute: tuple[str, ...]
    rules: tuple[dict[str, Any], ...]


def read_rules(path: Path) -> RulesFile:
    """Read and parse a rules file.

    Raises:
        RuleError: It cannot be read, is not UTF-8, or `parse_rules` does not like it.
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
    return parse_rules(text)


def parse_rules(text: str) -> RulesFile:
    """Parse the text of a rules file.

    Raises:
        RuleError: It is not TOML (with line and column), holds nothing, or has other keys than
            `mute` and `rule` at the top.
    """
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RuleError(f"it is not TOML: {error}") from error
    for key in content:
        if key not in ("rule", "mute"):
            raise RuleError(
                f"there is no key {key!r} at the top. {suggest(key, ('rule', 'mute'))} "
                "A rule begins with [[rule]]."
            )
    if not content:
        raise RuleError(
            "it holds no rule. Begin one with [[rule]], or leave shipped ones out with "
            'mute = ["…"].'
        )
    rules, mute = content.get("rule", []), content.get("mute", [])
    if not isinstance(rules, list) or not all(isinstance(r, dict) for r in rules):
        raise RuleError("a rule begins with [[rule]], with two brackets on each side")
    if not isinstance(mute, list) or not all(isinstance(m, str) for m in mute):
        raise RuleError(f'`mute` was {mute!r}; it is a list of names, as in ["low-rate"]')
    return RulesFile(tuple(mute), tuple(rules))
