"""Loading: the shipped rules, as a file of the user's adds to, changes or mutes them."""

import os
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatchcase
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from ..errors import RuleError
from .agreement import check_agreement
from .channels import Channel, channel_from_table
from .expression import suggest
from .rule import Rule, key_of
from .rules_file import RulesFile, parse_rules, parse_toml, read_toml


_T = TypeVar("_T")

SHIPPED = "the shipped rules"
ENVIRONMENT = "SPIKEWATCH_RULES"


@dataclass(frozen=True)
class Ruleset:
    """Rules, and who is told.

    Attributes:
        rules: To judge by.
        channels: To be told, for rules with the action `notify`.
        origin: Where it comes from, in words.
        added: Names of rules that are not shipped.
        changed: Names of shipped rules that are otherwise here.
        muted: Names of shipped rules that were left out.
    """

    rules: tuple[Rule, ...]
    channels: tuple[Channel, ...] = ()
    origin: str = SHIPPED
    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    muted: tuple[str, ...] = ()


def load_rules(source: str | Path | None = None) -> tuple[Rule, ...]:
    """The rules of `load_ruleset`; without a source the shipped ones as they are."""
    return _shipped() if source is None else load_ruleset(source).rules


def load_ruleset(source: str | Path) -> Ruleset:
    """The shipped rules, changed by a file of the user's.

    A [[rule]] of the file is added, or takes the place of the shipped one of its name; a [[change]]
    changes some keys of a shipped one; `mute = ["glob"]` takes shipped ones out.

    Args:
        source: Path of a TOML file.

    Raises:
        RuleError: The file cannot be read or something in it is wrong. The message names the file
            and each mistake with its rule, says what was found and what is allowed.
    """
    path = Path(source).expanduser()
    try:
        return _merged(parse_rules(read_toml(path)), origin=str(path))
    except RuleError as error:
        raise RuleError(f"{path}: {error}") from error


def find_ruleset(source: str | Path | None = None) -> Ruleset:
    """The rules that are meant where none, or a file, is named.

    Args:
        source: A file; else `$SPIKEWATCH_RULES` names one, else `[tool.spikewatch]` of the nearest
            pyproject.toml names one (`rules = "FILE"`) or holds rules itself; else those shipped.

    Raises:
        RuleError: See `load_ruleset`.
    """
    if source is not None:
        return load_ruleset(source)
    if named := os.environ.get(ENVIRONMENT):
        try:
            return load_ruleset(named)
        except RuleError as error:
            raise RuleError(f"{error} (named by ${ENVIRONMENT})") from error
    return _of_project() or Ruleset(_shipped())


def _of_project() -> Ruleset | None:
    """The rules of the nearest pyproject.toml that has a table [tool.spikewatch]."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        path = folder / "pyproject.toml"
        if not path.is_file():
            continue
        try:
            tool = tomllib.loads(path.read_text("utf-8")).get("tool", {})
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
            continue  # not ours to complain about
        if "spikewatch" in tool:
            return _of_tool(path, tool["spikewatch"])
    return None


def _of_tool(path: Path, table: Any) -> Ruleset:
    where = f"{path} [tool.spikewatch]"
    try:
        if not isinstance(table, dict):
            raise RuleError(f'it was {table!r}; it is a table, as in rules = "rules.toml"')
        if "rules" not in table:
            return _merged(parse_rules(table), origin=where)
        if not isinstance(table["rules"], str) or len(table) > 1:
            raise RuleError(
                'it has either rules = "FILE" and nothing else, or mute, [[tool.spikewatch.rule]] …'
            )
    except RuleError as error:
        raise RuleError(f"{where}: {error}") from error
    return load_ruleset(path.parent / table["rules"])


@lru_cache
def _shipped() -> tuple[Rule, ...]:
    text = files(__name__.rpartition(".")[0]).joinpath("default_rules.toml").read_text("utf-8")
    mistakes = _Mistakes()
    rules = _rules(parse_rules(parse_toml(text)).rules, mistakes)
    _check_causes(rules, rules, mistakes)
    mistakes.tell()
    return tuple(rules)


class _Mistakes:
    """Collects them: who has a file full of mistakes wants to see all at once."""

    def __init__(self) -> None:
        self._found: list[str] = []

    def tried(self, make: Callable[[], _T]) -> _T | None:
        """What `make` returns; None where it finds a mistake."""
        try:
            return make()
        except RuleError as error:
            self._found.append(str(error))
            return None

    def add(self, message: str) -> None:
        """Take a mistake."""
        self._found.append(message)

    def tell(self) -> None:
        """Raise them all."""
        if len(self._found) == 1:
            raise RuleError(self._found[0])
        if self._found:
            lines = "".join(f"\n  - {mistake}" for mistake in self._found)
            raise RuleError(f"{len(self._found)} mistakes:{lines}")


def _merged(file: RulesFile, *, origin: str) -> Ruleset:
    mistakes = _Mistakes()
    shipped = {rule.name: rule for rule in _shipped()}
    own = _rules(file.rules, mistakes, shipped)
    muted = _muted(file.mute, shipped, mistakes)
    changed = _changed(file.changes, shipped, muted, mistakes)
    channels = [mistakes.tried(lambda t=t: channel_from_table(t)) for t in file.channels]
    known = shipped | {r.name: r for r in (*changed, *own)}
    _check_causes([*changed, *own], known.values(), mistakes)
    for rule in (*changed, *own):
        mistakes.tried(lambda r=rule: check_agreement((r.name, c) for c in r.conditions))
    mistakes.tell()
    return Ruleset(
        tuple(r for r in known.values() if r.name not in muted or r in own),
        tuple(c for c in channels if c is not None),
        origin,
        tuple(r.name for r in own if r.name not in shipped),
        tuple(r.name for r in (*changed, *own) if r.name in shipped),
        tuple(sorted(muted)),
    )


def _muted(globs: Iterable[str], shipped: Mapping[str, Rule], mistakes: _Mistakes) -> set[str]:
    muted: set[str] = set()
    for glob in globs:
        found = [name for name in shipped if fnmatchcase(name, glob)]
        if not found:
            mistakes.add(f"`mute`: no shipped rule is named {glob!r}. {suggest(glob, shipped)}")
        muted.update(found)
    return muted


def _changed(
    tables: Iterable[Mapping[str, Any]],
    shipped: Mapping[str, Rule],
    muted: set[str],
    mistakes: _Mistakes,
) -> list[Rule]:
    def changed(table: Mapping[str, Any]) -> Rule:
        name = table.get("name")
        if not isinstance(name, str) or name not in shipped:
            meant = suggest(str(name), shipped) if name is not None else "Give it a `name`."
            raise RuleError(f"[[change]]: no shipped rule is named {name!r}. {meant}")
        if name in muted:
            raise RuleError(f"rule {name!r} is muted and changed. Take one of the two out.")
        return replace(shipped[name], **_fields(table, f"rule {name!r}"))

    found = [mistakes.tried(lambda t=table: changed(t)) for table in tables]
    return [rule for rule in found if rule is not None]


def _rules(
    tables: Iterable[Mapping[str, Any]], mistakes: _Mistakes, shipped: Iterable[str] = ()
) -> list[Rule]:
    rules: dict[str, Rule] = {}
    for number, table in enumerate(tables, start=1):
        rule = mistakes.tried(lambda t=table, n=number: _from_table(t, n, shipped))
        if rule is None:
            continue
        if rule.name in rules:
            mistakes.add(f"rule {rule.name!r} is there twice. Give each rule a name of its own.")
        rules[rule.name] = rule
    return list(rules.values())


def _from_table(table: Mapping[str, Any], number: int, shipped: Iterable[str]) -> Rule:
    name = table.get("name", number)
    who = f"rule {name!r}"
    values = _fields(table, who)
    for key in ("name", "expr"):
        if key not in table:
            hint = "A rule needs at least `name` and `expr`."
            if name in shipped:
                hint = f"To change some keys of the shipped {name!r}, begin with [[change]]."
            raise RuleError(f"{who}: it has no `{key}`. {hint}")
    return Rule(**values)


def _fields(table: Mapping[str, Any], who: str) -> dict[str, Any]:
    """The fields of `Rule` that a table of a rules file sets."""
    keys = {key_of(f.name): f.name for f in fields(Rule)}
    for key in table:
        if key == "mute":
            raise RuleError(f"{who}: `mute` belongs at the top of the file, before any [[rule]]")
        if key not in keys:
            raise RuleError(f"{who}: there is no key {key!r}. {suggest(key, keys)}")
    return {keys[key]: value for key, value in table.items()}


def _check_causes(rules: Iterable[Rule], known: Iterable[Rule], mistakes: _Mistakes) -> None:
    names = [rule.name for rule in known]
    for rule in rules:
        for place, glob in rule.causes:
            if not any(fnmatchcase(name, glob) for name in names):
                mistakes.add(
                    f"rule {rule.name!r}: `follows.{place}`: no rule is named {glob!r}. "
                    f"{suggest(glob, names)}"
                )
