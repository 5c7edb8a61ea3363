"""Unit tests of rules: figures of layers over time in, states of rules out.

A file of tests names the rules it is about and holds [[test]]s:

    rules = "rules.toml"

    [[test]]
    name = "a layer that falls silent"
    fires = ["quiet-output on head"]

    [test.layers.head]
    mfr = "0.1*20 0.005*20"

    [[test.expect]]
    step = 24
    rule = "quiet-output"
    layer = "head"
    state = "firing"

`0.1*20` is twenty times 0.1, `0.1+0.01*5` is 0.1 0.11 0.12 0.13 0.14, `_` is not known; a list of
numbers does as well. Layers lie in the order in which they are named.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from ..errors import RuleError
from .engine import Engine
from .expression import suggest_column
from .loading import Ruleset, find_ruleset, load_ruleset
from .machine import STATES
from .mistakes import Mistakes, shown, suggest
from .rule import KINDS, MOST_STEPS, PHASES
from .rules_file import read_toml
from .vocabulary import COLUMNS, WORDS


_NUMBER = r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_TOKEN = re.compile(
    rf"(?P<value>_|[+-]?(?:nan|inf|{_NUMBER}))(?:(?P<step>[+-]{_NUMBER})(?=\*))?(?:\*(?P<n>\d+))?",
    re.IGNORECASE,
)
_MOST_STEPS = 100_000
_BEGAN = datetime(2000, 1, 1)
_KEYS = ("name", "phase", "every", "first_step", "layers", "expect", "fires")
_EXPECT = ("step", "rule", "layer", "state", "follows")


@dataclass(frozen=True)
class Outcome:
    """What became of one test.

    Attributes:
        name: Of the test.
        failures: What was otherwise than expected, in words; empty if it passed.
    """

    name: str
    failures: tuple[str, ...]


def run_tests(path: Path) -> list[Outcome]:
    """Run the tests of a file.

    Raises:
        RuleError: The file, or the rules that it names, are wrong.
    """
    try:
        content = read_toml(path)
        for key in content:
            if key not in ("rules", "test"):
                hint = suggest(key, ("rules", "test"))
                raise RuleError(f"there is no key {key!r} at the top. {hint}")
        tests = content.get("test", [])
        if not isinstance(tests, list) or not tests or not all(isinstance(t, dict) for t in tests):
            raise RuleError("it holds no test. Begin one with [[test]].")
        rules = content.get("rules")
        if rules is not None and not isinstance(rules, str):
            raise RuleError(f'`rules` was {rules!r}; it is a path, as in "rules.toml"')
        ruleset = find_ruleset() if rules is None else load_ruleset(path.parent / rules)
        mistakes = Mistakes()
        made = [_Test(test, number, ruleset) for number, test in enumerate(tests, start=1)]
        outcomes = [mistakes.tried(test.run) for test in made]
        mistakes.tell()
        return [outcome for outcome in outcomes if outcome is not None]
    except RuleError as error:
        raise RuleError(f"{path}: {error}") from error


class _Test:
    """One [[test]]."""

    def __init__(self, table: Mapping[str, Any], number: int, ruleset: Ruleset) -> None:
        self._name = str(table.get("name", f"test {number}"))
        self._table = table
        self._ruleset = ruleset

    def run(self) -> Outcome:
        """Judge the figures, and hold the states against what is expected."""
        try:
            _only(self._table, _KEYS)
            frame, layers = self._frame()
            engine = Engine(self._ruleset.rules, run="test", rank=0)
            engine.place(layers)
            alerts = engine.feed(frame)
            failures = [f for e in self._expected() if (f := self._differs(e, alerts, layers))]
            return Outcome(self._name, (*failures, *self._wrong_fires(alerts)))
        except RuleError as error:
            raise RuleError(f"test {self._name!r}: {error}") from error

    def _frame(self) -> tuple[pl.DataFrame, list[tuple[str, int, str]]]:
        tables = self._table.get("layers")
        if not isinstance(tables, dict) or not tables:
            raise RuleError('it has no layers. Write [test.layers.NAME] with mfr = "0.1*20".')
        phase = self._table.get("phase", "train")
        if phase not in PHASES[:2]:
            raise RuleError(f"`phase` was {phase!r}. {suggest(str(phase), PHASES[:2])}")
        every, first = (_count(self._table, k, d) for k, d in (("every", 1), ("first_step", 0)))
        frames, layers = [], []
        for depth, (layer, columns) in enumerate(tables.items()):
            if not isinstance(columns, dict):
                raise RuleError(f"[test.layers.{layer}] is no table of figures")
            kind = columns.get("kind", "spiking")
            if kind not in KINDS:
                raise RuleError(f"`kind` was {shown(kind)}. {suggest(str(kind), KINDS)}")
            series = {c: _values(c, v) for c, v in columns.items() if c != "kind"}
            n = max(map(len, series.values()), default=0)
            filled = {c: [*v, *[None] * (n - len(v))] for c, v in series.items()}
            steps = [first + i * every for i in range(n)]
            frame = pl.DataFrame(
                {c: pl.Series(v, dtype=pl.Float64).cast(COLUMNS[c]) for c, v in filled.items()}
                | {"step": pl.Series(steps, dtype=pl.Int64)}
            )
            at = pl.Series([_BEGAN + timedelta(seconds=s) for s in steps], dtype=COLUMNS["at"])
            places = {"layer": pl.lit(layer), "phase": pl.lit(phase), "at": at}
            frames.append(frame.with_columns(**places))
            layers.append((layer, depth, kind))
        whole = pl.concat(frames, how="diagonal")
        missing = [pl.lit(None, t).alias(c) for c, t in COLUMNS.items() if c not in whole.columns]
        return whole.with_columns(missing).select(
            pl.col(c).cast(t) for c, t in COLUMNS.items()
        ), layers

    def _expected(self) -> list[Mapping[str, Any]]:
        expected = self._table.get("expect", [])
        if not isinstance(expected, list) or not all(isinstance(e, dict) for e in expected):
            raise RuleError("what is expected begins with [[test.expect]]")
        if not expected and "fires" not in self._table:
            raise RuleError("it expects nothing. Add [[test.expect]], or fires = [].")
        return expected

    def _differs(
        self, expected: Mapping[str, Any], alerts: pl.DataFrame, layers: list[tuple[str, int, str]]
    ) -> str:
        _only(expected, _EXPECT)
        for key in ("step", "rule", "layer", "state"):
            if key not in expected:
                raise RuleError(f"[[test.expect]] has no `{key}`")
        step, rule, layer, state = (expected[k] for k in ("step", "rule", "layer", "state"))
        step = _count(expected, "step", 0)
        for word, known in (
            (rule, [r.name for r in self._ruleset.rules]),
            (layer, [name for name, _, _ in layers]),
            (state, [*STATES, "none"]),
        ):
            if word not in known:
                raise RuleError(f"[[test.expect]] speaks of {word!r}. {suggest(str(word), known)}")
        seen = alerts.filter(pl.col("step") <= step, rule=rule, layer=layer)
        last = seen.row(-1, named=True) if seen.height else {"state": "none", "root_rule": None}
        if last["state"] != state:
            return f"step {step}: {rule} on {layer!r} is {last['state']}, and should be {state}"
        follows = f"{last['root_rule']} on {last['root_layer']}" if last["root_rule"] else "nothing"
        if expected.get("follows", follows) != follows:
            wanted = expected["follows"]
            return f"step {step}: {rule} on {layer!r} follows from {follows}, not from {wanted}"
        return ""

    def _wrong_fires(self, alerts: pl.DataFrame) -> list[str]:
        if "fires" not in self._table:
            return []
        wanted = self._table["fires"]
        if not isinstance(wanted, list) or not all(isinstance(w, str) for w in wanted):
            raise RuleError(f'`fires` was {wanted!r}; it is a list, as in ["dead-layer on lif1"]')
        rules = [rule.name for rule in self._ruleset.rules]
        for name in (words.partition(" on ")[0] for words in wanted):
            if name not in rules:
                raise RuleError(f"`fires` speaks of {shown(name)}. {suggest(name, rules)}")
        roots = alerts.filter(pl.col("root_rule").is_null(), state="firing")
        fired = {f"{rule} on {layer}" for rule, layer in roots.select("rule", "layer").iter_rows()}
        failures = [f"{x} does not fire, and should" for x in wanted if x not in fired]
        return failures + [f"{x} fires, and should not" for x in sorted(fired - set(wanted))]


def _values(column: str, value: Any) -> list[float | None]:
    """The figures of a column, step by step."""
    if column not in WORDS:
        raise RuleError(f"there is no figure {column!r}. {suggest_column(column)}")
    if not COLUMNS[column].is_numeric():
        raise RuleError(f"{column!r} is no figure, but a column of another kind")
    if isinstance(value, int | float | list):
        values = _numbers(column, value if isinstance(value, list) else [value])
    else:
        values = _written(column, value)
    if not COLUMNS[column].is_float():
        for figure in values:
            _check_counter(column, figure)
    return values


def _numbers(column: str, values: list[Any]) -> list[float | None]:
    for value in values:
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise RuleError(f"{column} holds {shown(value)}, which is no number")
    return [float(value) for value in values]


def _written(column: str, value: Any) -> list[float | None]:
    """What `"0.1*20 0.005*20"` stands for."""
    if not isinstance(value, str):
        raise RuleError(f'{column} was {value!r}; it is a text, as in "0.1*20 0.005*20", or a list')
    values: list[float | None] = []
    for token in value.split():
        match = _TOKEN.fullmatch(token)
        if match is None:
            raise RuleError(
                f"{column}: {token!r} cannot be read. Write 0.1, 0.1*20, 0.1+0.01*5 or _."
            )
        n = int(match["n"] or 1)
        if len(values) + n > _MOST_STEPS:
            raise RuleError(f"{column} has more than {_MOST_STEPS} steps")
        start = None if match["value"] == "_" else float(match["value"])
        slope = float(match["step"] or 0)
        values += [None if start is None else start + slope * i for i in range(n)]
    return values


def _check_counter(column: str, value: float | None) -> None:
    if value is not None and not (abs(value) < 2**63 and float(value).is_integer()):
        raise RuleError(f"{column} counts something; it cannot be {value:g}")


def _count(table: Mapping[str, Any], key: str, default: int) -> int:
    value = table.get(key, default)
    least = min(default, 1)
    is_number = isinstance(value, int) and not isinstance(value, bool)
    if not is_number or not least <= value <= MOST_STEPS:
        raise RuleError(
            f"`{key}` was {shown(value)}; it is a whole number, {least} to {MOST_STEPS}"
        )
    return value


def _only(table: Mapping[str, Any], keys: tuple[str, ...]) -> None:
    for key in table:
        if key not in keys:
            raise RuleError(f"there is no key {key!r}. {suggest(key, keys)}")
