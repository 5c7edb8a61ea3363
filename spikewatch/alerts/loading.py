"""Loading: the shipped rules, as a file of the user's adds to, changes or mutes them."""

import os
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatchcase
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from ..errors import RuleError
from .agreement import check_agreement
from .channels import Channel
from .channels_file import channels_from_tables
from .following import check_causes, check_circles
from .mistakes import Mistakes, shown, suggest
from .rule import Rule, key_of
from .rules_file import parse_rules, parse_toml, read_toml


SHIPPED = "the shipped rules"
ENVIRONMENT = "SPIKEWATCH_RULES"
# Keys that a rule has there and not here.
_PROMETHEUS = {"alert": "`name`", "labels": "`severity`", "annotations": "`summary` and `try`"}


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
        return _merged(read_toml(path), origin=str(path))
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
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError):
            continue  # not ours to complain about
        if "spikewatch" in tool:
            return _of_tool(path, tool["spikewatch"])
    return None


def _of_tool(path: Path, table: Any) -> Ruleset:
    where = f"{path} [tool.spikewatch]"
    try:
        if not isinstance(table, dict):
            raise RuleError(f'it was {shown(table)}; it is a table, as in rules = "rules.toml"')
        if "rules" not in table:
            return _merged(table, origin=where)
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
    mistakes = Mistakes()
    file = parse_rules(parse_toml(text), mistakes)
    rules = {rule.name: rule for rule in _rules(file.rules, mistakes)}
    for table in file.rules:
        check_causes(table, rules, mistakes)
    check_circles(rules.values(), rules, mistakes)
    mistakes.tell()
    return tuple(rules.values())


def _merged(content: Mapping[str, Any], *, origin: str) -> Ruleset:
    mistakes = Mistakes()
    file = parse_rules(content, mistakes)
    shipped = {rule.name: rule for rule in _shipped()}
    own = _rules(file.rules, mistakes, shipped)
    muted = _muted(file.mute, shipped, mistakes)
    changed = _changed(file.changes, shipped, muted, mistakes)
    for name in sorted({r.name for r in changed} & {r.name for r in own}):
        mistakes.add(f"rule {name!r} is changed and replaced. Take [[change]] or [[rule]] out.")
    known = shipped | {r.name: r for r in (*changed, *own)}
    meant = [name for t in file.rules if isinstance(name := t.get("name"), str)]
    names = list(dict.fromkeys([*known, *meant]))
    channels = channels_from_tables(file.channels, names, mistakes)
    for table in (*file.rules, *file.changes):
        check_causes(table, names, mistakes)
    check_circles([*changed, *own], known, mistakes)
    for rule in (*changed, *own):
        mistakes.tried(lambda r=rule: check_agreement((r.name, c) for c in r.conditions))
    mistakes.tell()
    return Ruleset(
        tuple(r for r in known.values() if r.name not in muted or r in own),
        channels,
        origin,
        tuple(r.name for r in own if r.name not in shipped),
        tuple(r.name for r in (*changed, *own) if r.name in shipped),
        tuple(sorted(muted)),
    )


def _muted(globs: Iterable[str], shipped: Mapping[str, Rule], mistakes: Mistakes) -> set[str]:
    muted: set[str] = set()
    for glob in globs:
        found = [name for name in shipped if fnmatchcase(name, glob)]
        if not found:
            mistakes.add(
                f"`mute`: no shipped rule is named {shown(glob)}. {suggest(glob, shipped)}"
            )
        muted.update(found)
    return muted


def _changed(
    tables: Iterable[Mapping[str, Any]],
    shipped: Mapping[str, Rule],
    muted: set[str],
    mistakes: Mistakes,
) -> list[Rule]:
    names: set[str] = set()

    def changed(table: Mapping[str, Any]) -> Rule:
        name = table.get("name")
        if not isinstance(name, str) or name not in shipped:
            if name is None:
                raise RuleError("[[change]]: it has no `name`. Give it that of a shipped rule.")
            meant = suggest(str(name), shipped)
            raise RuleError(f"[[change]]: no shipped rule is named {shown(name)}. {meant}")
        if name in muted:
            raise RuleError(f"rule {name!r} is muted and changed. Take one of the two out.")
        if name in names:
            raise RuleError(f"rule {name!r} is changed twice. Put both into one [[change]].")
        if len(table) == 1:
            raise RuleError(f"rule {name!r}: [[change]] names no key that is to be otherwise.")
        names.add(name)
        return _made(lambda values: replace(shipped[name], **values), table, f"rule {name!r}")

    found = [mistakes.tried(lambda t=table: changed(t)) for table in tables]
    return [rule for rule in found if rule is not None]


def _rules(
    tables: Iterable[Mapping[str, Any]], mistakes: Mistakes, shipped: Iterable[str] = ()
) -> list[Rule]:
    rules: dict[str, Rule] = {}
    names: set[str] = set()
    for number, table in enumerate(tables, start=1):
        name = table.get("name")
        if isinstance(name, str) and name in names:
            mistakes.add(f"rule {shown(name)} is there twice. Give each rule a name of its own.")
        names.add(str(name))
        rule = mistakes.tried(lambda t=table, n=number: _from_table(t, n, shipped))
        if rule is not None:
            rules[rule.name] = rule
    return list(rules.values())


def _from_table(table: Mapping[str, Any], number: int, shipped: Iterable[str]) -> Rule:
    name = table.get("name", number)
    who = f"rule {shown(name)}"
    for key in ("name", "expr"):
        if key not in table:
            hint = (
                "A rule needs at least `name` and `expr`; what is to change some keys of a shipped "
                "one begins with [[change]] and has its `name`."
            )
            if name in shipped:
                hint = f"To change some keys of the shipped {name!r}, begin with [[change]]."
            raise RuleError(f"{who}: it has no `{key}`. {hint}")
    return _made(lambda values: Rule(**values), table, who)


def _made(make: Callable[[dict[str, Any]], Rule], table: Mapping[str, Any], who: str) -> Rule:
    """A rule of the fields that a table of a rules file sets; other keys are mistakes as well."""
    keys = {key_of(f.name): f.name for f in fields(Rule)}
    mistakes = Mistakes()
    for key in table:
        if key == "mute":
            mistakes.add("`mute` belongs at the top of the file, before any [[rule]]")
        elif key not in keys:
            meant = (
                f"It is {other} here." if (other := _PROMETHEUS.get(key)) else suggest(key, keys)
            )
            mistakes.add(f"there is no key {shown(key)}. {meant}")
    try:
        rule = make({keys[key]: value for key, value in table.items() if key in keys})
    except RuleError as error:
        mistakes.add(str(error).removeprefix(f"{who}: "))
    mistakes.tell_of(who)
    return rule
