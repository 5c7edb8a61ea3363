"""Rule: when a layer is ill, how sure one has to be, and what to do then."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from functools import cached_property, lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from ..errors import RuleError
from ..metrics import METRICS
from ..metrics.wide import COLUMNS
from .agreement import check_agreement
from .expression import Condition, parse, suggest, suggest_column
from .rules_file import RulesFile, parse_rules, read_rules


SEVERITIES = ("info", "warning", "critical")  # least first
PHASES = ("train", "eval", "any")
ACTIONS = ("log", "callback", "stop", "raise")

Severity = Literal["info", "warning", "critical"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def _field(key: str, default: Any) -> Any:
    """A field that a rules file calls otherwise, because Python has that word for itself."""
    return field(default=default, metadata={"key": key})


@dataclass(frozen=True, kw_only=True)
class Rule:
    """An alert rule. Its words are those of Prometheus; counts are in *observed* steps.

    A step at which a condition is NULL counts as not observed: it neither starts nor ends, nor
    interrupts anything.

    Attributes:
        name: Letters, digits and `_ . -`; unique among the rules.
        expr: SQL over the catalogue's columns, as in `dead_frac > 0.05 AND mfr > 0`.
        for_steps: `for` in a file: fires once `expr` held at so many consecutive steps.
        keep_firing_for: Goes on firing for so many steps after `clear` began to hold.
        clear: SQL that has to hold for firing to end; by default `NOT expr`.
        severity: `info`, `warning` or `critical`.
        layers: Globs; the rule looks at the layers (or scalars) that one of them matches.
        phase: `train`, `eval`, or `any` (each by itself).
        after_step: Before this step the rule is unknown.
        metric: The figure to show; by default the first metric in `expr`.
        summary: What is wrong, in a sentence.
        likely: Likely causes.
        advice: `try` in a file: what to try.
        actions: Of `log`, `callback` (`attach(on_alert=…)`), `stop` and `raise`.

    Raises:
        RuleError: A value is wrong; the message says what is allowed.
    """

    name: str
    expr: str
    for_steps: int = _field("for", 1)
    keep_firing_for: int = 0
    clear: str | None = None
    severity: Severity = "warning"
    layers: tuple[str, ...] = ("*",)
    phase: str = "train"
    after_step: int = 0
    metric: str | None = None
    summary: str = ""
    likely: str = ""
    advice: str = _field("try", "")
    actions: tuple[str, ...] = ("log", "callback")

    def __post_init__(self) -> None:
        try:
            for name in ("layers", "actions"):
                object.__setattr__(self, name, _as_tuple(name, getattr(self, name)))
            self._check()
        except RuleError as error:
            raise RuleError(f"rule {self.name!r}: {error}") from error

    def _check(self) -> None:
        for name in ("name", "expr", "severity", "phase", "summary", "likely", "advice"):
            _check_text(_key(name), getattr(self, name))
        for name in ("clear", "metric"):
            if getattr(self, name) is not None:
                _check_text(name, getattr(self, name))
        for name, least in (("for_steps", 1), ("keep_firing_for", 0), ("after_step", 0)):
            _check_count(_key(name), getattr(self, name), least=least)
        if not _NAME.fullmatch(self.name):
            raise RuleError("a name has 1 to 64 letters, digits and _ . -, and begins with neither")
        _check_choice("severity", self.severity, SEVERITIES)
        _check_choice("phase", self.phase, PHASES)
        for action in self.actions:
            _check_choice("actions", action, ACTIONS)
        if not self.layers:
            raise RuleError("`layers` is empty; leave it out to look at all layers")
        _ = self.condition, self.clear_condition  # parsed, and so checked
        if self.metric is not None:
            _check_figure(self.metric)

    @cached_property
    def condition(self) -> Condition:
        """`expr`, checked."""
        return _parsed("expr", self.expr)

    @cached_property
    def clear_condition(self) -> Condition | None:
        """`clear`, checked."""
        return None if self.clear is None else _parsed("clear", self.clear)

    @property
    def figure(self) -> str:
        """The column whose value is shown."""
        named = self.condition.columns
        return self.metric or next((c for c in named if c in METRICS), named[0])

    def looks_at(self, phase: str, layer: str) -> bool:
        """Whether the rule is about this layer in this phase."""
        return self.phase in ("any", phase) and any(
            glob == "*" or fnmatchcase(layer, glob) for glob in self.layers
        )


def load_rules(source: str | Path | None = None) -> tuple[Rule, ...]:
    """The shipped rules, changed by a file of the user's.

    A rule of the file is added, or replaces the shipped one of its name; `mute = ["name"]` takes
    shipped ones out.

    Args:
        source: Path of a TOML file; None for the shipped rules as they are.

    Raises:
        RuleError: The file cannot be read or something in it is wrong. The message names the file
            and the rule, says what was found and what is allowed.
    """
    shipped = _shipped()
    if source is None:
        return shipped
    path = Path(source).expanduser()
    try:
        file = read_rules(path)
        own = _rules(file)
        check_agreement((r.name, c) for r in own for c in (r.condition, r.clear_condition))
        names = [r.name for r in shipped]
        for muted in file.mute:
            if muted not in names:
                raise RuleError(
                    f"`mute`: no shipped rule is named {muted!r}. {suggest(muted, names)}"
                )
    except RuleError as error:
        raise RuleError(f"{path}: {error}") from error
    merged = {r.name: r for r in shipped} | {r.name: r for r in own}
    return tuple(r for r in merged.values() if r.name not in file.mute)


@lru_cache
def _shipped() -> tuple[Rule, ...]:
    text = files(__name__.rpartition(".")[0]).joinpath("default_rules.toml").read_text("utf-8")
    return tuple(_rules(parse_rules(text)))


def _rules(file: RulesFile) -> list[Rule]:
    rules: dict[str, Rule] = {}
    for number, table in enumerate(file.rules, start=1):
        rule = _from_table(table, number)
        if rule.name in rules:
            raise RuleError(f"rule {rule.name!r} is there twice. Give each rule a name of its own.")
        rules[rule.name] = rule
    return list(rules.values())


def _from_table(table: Mapping[str, Any], number: int) -> Rule:
    keys = {_key(f.name): f.name for f in fields(Rule)}
    who = f"rule {table.get('name', number)!r}"
    for key in table:
        if key == "mute":
            raise RuleError(f"{who}: `mute` belongs at the top of the file, before any [[rule]]")
        if key not in keys:
            raise RuleError(f"{who}: there is no key {key!r}. {suggest(key, keys)}")
    for key in ("name", "expr"):
        if key not in table:
            raise RuleError(f"{who}: it has no `{key}`. A rule needs at least `name` and `expr`.")
    return Rule(**{keys[key]: value for key, value in table.items()})


def _key(name: str) -> str:
    """What a rules file calls the field `name`."""
    return Rule.__dataclass_fields__[name].metadata.get("key", name)


def _parsed(key: str, sql: str) -> Condition:
    try:
        return parse(sql)
    except RuleError as error:
        raise RuleError(f"`{key}`: {error}") from error


def _as_tuple(key: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str) and key == "layers":
        value = [value]
    if not isinstance(value, list | tuple) or not all(isinstance(v, str) for v in value):
        raise RuleError(f'`{key}` was {value!r}; it is a list of texts, as in ["log"]')
    return tuple(value)


def _check_text(key: str, value: object) -> None:
    if not isinstance(value, str):
        raise RuleError(f"`{key}` was {value!r}; it is a text in quotes")


def _check_count(key: str, value: object, *, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise RuleError(f"`{key}` was {value!r}; it is a whole number of steps, {least} or more")


def _check_choice(key: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise RuleError(f"`{key}` was {value!r}. {suggest(value, allowed)}")


def _check_figure(name: str) -> None:
    if name not in COLUMNS or not COLUMNS[name].is_numeric():
        raise RuleError(f"`metric`: there is no figure {name!r}. {suggest_column(name)}")
