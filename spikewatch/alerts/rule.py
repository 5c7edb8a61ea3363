"""Rule: when a layer is ill, how sure one has to be, and what to do then."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any, Literal, TypeVar

from ..errors import RuleError
from ..metrics import METRICS
from .expression import Condition, parse, suggest_column
from .mistakes import Mistakes, shown, suggest
from .vocabulary import COLUMNS


SEVERITIES = ("info", "warning", "critical")  # least first
PHASES = ("train", "eval", "any")
ACTIONS = ("log", "callback", "notify", "checkpoint", "stop", "raise")
# Where the cause of an alert may be, seen from the layer that has it.
PLACES = ("before", "here", "behind", "anywhere")
KINDS = ("spiking", "ternary", "tap", "scalar")

Severity = Literal["info", "warning", "critical"]
_T = TypeVar("_T")

# No training is longer; and what is larger is a mistake.
MOST_STEPS = 10**9

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
NAME_HINT = (
    "a name has 1 to 64 letters from a to z, digits and _ . -, and begins with a letter or digit"
)
_CHANNELS = ("webhook", "slack", "discord", "email", "mail", "apprise", "command", "send")


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
        expr: SQL over the catalogue's columns, as in `dead_frac > 0.05 AND mfr > 0`, with history
            functions, as in `mfr < 0.5 * baseline(mfr)`; see `functions.FUNCTIONS`.
        for_steps: `for` in a file: fires once `expr` held at so many consecutive steps.
        keep_firing_for: Goes on firing for so many steps after `clear` began to hold.
        clear: SQL that has to hold for firing to end; by default `NOT expr`.
        severity: `info`, `warning` or `critical`.
        layers: Globs; the rule looks at the layers (or scalars) that one of them matches.
            `kind:ternary` stands for all layers of a kind.
        phase: `train`, `eval`, or `any` (each by itself).
        after_step: Before this step the rule is unknown.
        metric: The figure to show; by default the first metric in `expr`.
        summary: What is wrong, in a sentence.
        likely: Likely causes.
        advice: `try` in a file: what to try.
        source: Where the threshold comes from.
        follows: What it may be a mere consequence of: for each of `PLACES` globs of rules. While
            one of them is pending or fires there, this alert is folded under it. The first that
            is found counts.
        actions: Of `log`, `callback` (`attach(on_alert=…)`), `notify` (the channels of the rules
            file), `checkpoint` (`attach(on_checkpoint=…)`), `stop` and `raise`.

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
    source: str = ""
    follows: Mapping[str, Sequence[str]] | tuple[tuple[str, str], ...] = ()
    actions: tuple[str, ...] = ("log", "callback", "notify")

    def __post_init__(self) -> None:
        mistakes = Mistakes()

        def tried(check: Callable[..., _T], *args: object, **more: object) -> _T | None:
            return mistakes.tried(lambda: check(*args, **more))

        actions = tried(_as_tuple, "actions", self.actions, example="log")
        object.__setattr__(self, "actions", actions or ())
        object.__setattr__(self, "layers", tried(_layers, self.layers) or ())
        object.__setattr__(self, "follows", tried(_causes, self.follows) or ())
        for name in ("name", "severity", "phase", "summary", "likely", "advice", "source"):
            tried(_check_text, key_of(name), getattr(self, name))
        for name, least in (("for_steps", 1), ("keep_firing_for", 0), ("after_step", 0)):
            tried(_check_count, key_of(name), getattr(self, name), least=least)
        tried(_check_name, self.name)
        tried(_check_choice, "severity", self.severity, SEVERITIES)
        tried(_check_choice, "phase", self.phase, PHASES)
        for action in self.actions:
            tried(_check_action, action)
        for name in ("expr", "clear"):
            tried(self._check_condition, name)
        if self.metric is not None:
            tried(_check_figure, self.metric)
        mistakes.tell_of(f"rule {shown(self.name)}")

    def _check_condition(self, name: str) -> None:
        sql = getattr(self, name)
        if sql is None and name == "clear":
            return
        _check_text(name, sql)
        after_step = self.after_step if isinstance(self.after_step, int) else 0
        _parsed(name, sql, after_step)

    @cached_property
    def condition(self) -> Condition:
        """`expr`, checked."""
        return _parsed("expr", self.expr, self.after_step)

    @cached_property
    def clear_condition(self) -> Condition | None:
        """`clear`, checked."""
        return None if self.clear is None else _parsed("clear", self.clear, self.after_step)

    @property
    def conditions(self) -> list[Condition]:
        """`expr`, and `clear` where there is one."""
        return [c for c in (self.condition, self.clear_condition) if c is not None]

    @property
    def figure(self) -> str:
        """The column whose value is shown."""
        named = self.condition.columns
        return self.metric or next((c for c in named if c in METRICS), named[0])

    @property
    def causes(self) -> tuple[tuple[str, str], ...]:
        """`follows` as pairs of place and glob, the first to be looked for first."""
        assert isinstance(self.follows, tuple)  # noqa: S101 - made so above
        return self.follows

    def looks_at(self, phase: str, layer: str, kind: str = "") -> bool:
        """Whether the rule is about this layer in this phase."""
        return self.phase in ("any", phase) and any(
            glob == "*"
            or (kind == glob[5:] if glob.startswith("kind:") else fnmatchcase(layer, glob))
            for glob in self.layers
        )


def key_of(name: str) -> str:
    """What a rules file calls the field `name`."""
    return Rule.__dataclass_fields__[name].metadata.get("key", name)


def _parsed(key: str, sql: str, after_step: int) -> Condition:
    try:
        return parse(sql, after_step=after_step)
    except RuleError as error:
        raise RuleError(f"`{key}`: {error}") from error


def _causes(value: Any) -> tuple[tuple[str, str], ...]:
    """`follows` in the form of `Rule.causes`."""
    if isinstance(value, tuple):  # as made before, when a rule is copied
        return value
    example = '{ before = ["dead-layer"] }'
    if not isinstance(value, Mapping):
        raise RuleError(f"`follows` was {shown(value)}; it is a table, as in {example}")
    pairs = []
    for place, globs in value.items():
        _check_choice("follows", str(place), PLACES)
        if not isinstance(globs, Sequence) or isinstance(globs, str):
            raise RuleError(f"`follows.{place}` was {shown(globs)}; it is a list, as in {example}")
        for glob in globs:
            _check_text(f"follows.{place}", glob)
            pairs.append((str(place), glob))
    return tuple(pairs)


def _as_tuple(key: str, value: Any, *, example: str) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(v, str) for v in value):
        raise RuleError(f'`{key}` was {shown(value)}; it is a list of texts, as in ["{example}"]')
    return tuple(value)


def _layers(value: Any) -> tuple[str, ...]:
    globs = _as_tuple("layers", [value] if isinstance(value, str) else value, example="head.*")
    if not globs:
        raise RuleError("`layers` is empty; leave it out to look at all layers")
    for glob in globs:
        if not glob.strip():
            raise RuleError(f"`layers` holds {glob!r}, which matches no layer; take it out")
        if glob.startswith("kind:"):
            _check_choice("layers", glob.removeprefix("kind:"), KINDS)
    return globs


def _check_text(key: str, value: object) -> None:
    if not isinstance(value, str):
        raise RuleError(f"`{key}` was {shown(value)}; it is a text in quotes")


def _check_count(key: str, value: object, *, least: int) -> None:
    is_number = isinstance(value, int) and not isinstance(value, bool)
    if not is_number or value < least:
        raise RuleError(
            f"`{key}` was {shown(value)}; it is a whole number of steps, {least} or more"
        )
    if value > MOST_STEPS:
        raise RuleError(f"`{key}` was {shown(value)}; no training has more than {MOST_STEPS} steps")


def _check_choice(key: str, value: str, allowed: tuple[str, ...]) -> None:
    if isinstance(value, str) and value not in allowed:
        raise RuleError(f"`{key}` was {shown(value)}. {suggest(value, allowed)}")


def _check_name(name: object) -> None:
    if isinstance(name, str) and not NAME.fullmatch(name):
        raise RuleError(NAME_HINT)


def _check_action(action: str) -> None:
    if action.lower() in _CHANNELS:
        raise RuleError(
            f"`actions` was {shown(action)}. Who is told is said once for all rules: declare a "
            '[[channel]] in the rules file; the action "notify" then tells it.'
        )
    _check_choice("actions", action, ACTIONS)


def _check_figure(name: str) -> None:
    _check_text("metric", name)
    if name not in COLUMNS or not COLUMNS[name].is_numeric():
        raise RuleError(f"`metric`: there is no figure {shown(name)}. {suggest_column(name)}")
