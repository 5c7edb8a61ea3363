"""The condition of a rule: one SQL expression over the wide frame, checked before anything runs."""

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl

from ..errors import RuleError
from ..metrics import KEYS, METRICS
from .functions import FUNCTIONS
from .history import Lookback, rewrite
from .vocabulary import COLUMNS, WORDS


_EMPTY = pl.DataFrame(schema=COLUMNS)
_CALL = re.compile(r"([A-Za-z_]\w*)\s*\(")
_WORD = re.compile(r"[A-Za-z_]\w*")


@dataclass(frozen=True)
class Condition:
    """A checked SQL expression that is true, false or NULL for each row.

    Attributes:
        sql: As it was written.
        plain: The same with a column in place of each history function; DuckDB can evaluate it.
        expr: The same for Polars.
        lookbacks: What these columns hold.
        columns: The catalogue's columns that it names, in the order of the text, without keys.
        evidence: Those, and the counters that they are computed from. Where all of these are NULL
            the condition says nothing about a row. What begins with `is_` tells which layers are
            meant, not how they are: it counts only where nothing else is named.
    """

    sql: str
    plain: str
    expr: pl.Expr
    lookbacks: tuple[Lookback, ...]
    columns: tuple[str, ...]
    evidence: tuple[str, ...]


def parse(sql: str, *, after_step: int = 0) -> Condition:
    """Check one SQL expression.

    Args:
        sql: What could stand after WHERE.
        after_step: Where a layer's baseline begins.

    Raises:
        RuleError: It is no SQL, names an unknown column, is not true-or-false, or names no metric.
    """
    plain, lookbacks = rewrite(sql, after_step=after_step)
    expr = _to_polars(sql, plain)
    labels = {x.label: x for x in lookbacks}
    named = {labels[name].column if name in labels else name for name in expr.meta.root_names()}
    for name in sorted(named - COLUMNS.keys()):
        raise RuleError(f"there is no column {name!r} in {sql!r}. {suggest_column(name)}")
    try:
        empty = _EMPTY.with_columns(pl.lit(None, pl.Float64).alias(label) for label in labels)
        dtype = empty.select(expr.alias("x")).schema["x"]
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise RuleError(f"{sql!r} cannot be evaluated: {_first_line(error)}") from error
    if dtype != pl.Boolean:
        raise RuleError(
            f"{sql!r} is not a condition: it gives {dtype}, and has to be true or false. "
            "Compare it with something, as in `dead_frac > 0.05`."
        )
    columns = tuple(dict.fromkeys(w for w in _WORD.findall(sql) if w in named and w not in KEYS))
    if not columns:
        raise RuleError(
            f"{sql!r} names no metric. Metrics: {', '.join(METRICS)}; `spikewatch query` tells "
            "what each means."
        )
    return Condition(sql, plain, expr, lookbacks, columns, _evidence(columns))


def _to_polars(sql: str, plain: str) -> pl.Expr:
    try:
        return pl.sql_expr(plain)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        near = (difflib.get_close_matches(w.lower(), FUNCTIONS, n=1) for w in _CALL.findall(plain))
        meant = next((names[0] for names in near if names), None)
        hint = f"Did you mean {FUNCTIONS[meant][1]}? " if meant else ""
        raise RuleError(
            f"{sql!r} is not an SQL expression: {_first_line(error)}. {hint}Write what could stand "
            "after WHERE, as in `dead_frac > 0.05 AND mfr > 0`."
        ) from error


def _evidence(columns: Iterable[str]) -> tuple[str, ...]:
    roots = [c for name in columns if name in METRICS for c in METRICS[name].expr.meta.root_names()]
    names = tuple(dict.fromkeys([*columns, *roots]))
    return tuple(name for name in names if not name.startswith("is_")) or names


def own_counters(metric: str) -> tuple[str, ...]:
    """A metric and the counters that it is computed from."""
    return _evidence([metric])


def suggest(word: str, known: Iterable[str]) -> str:
    """`Did you mean 'x'?`, where one is close, and all the known words."""
    names = list(known)
    close = difflib.get_close_matches(word.lower(), names, n=1)
    hint = f"Did you mean {close[0]!r}? " if close else ""
    return f"{hint}Allowed: {', '.join(names)}."


def suggest_column(name: str) -> str:
    """What an unknown column could have been meant to be."""
    close = difflib.get_close_matches(name.lower(), WORDS, n=3)
    hint = f"Did you mean {' or '.join(map(repr, close))}? " if close else ""
    return f"{hint}Metrics: {', '.join(METRICS)}; `spikewatch query` lists the counters too."


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")
