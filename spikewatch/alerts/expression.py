"""The condition of a rule: one SQL expression over the wide frame, checked before anything runs."""

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl

from ..errors import RuleError
from ..metrics import KEYS, METRICS
from .functions import FUNCTIONS
from .history import QUOTED, Lookback, rewrite
from .mistakes import shown
from .vocabulary import COLUMNS, WORDS


# Both engines take the longer for a condition the longer it is: with the third power of its terms.
MOST_CHARACTERS = 2000

_THERE_ARE = (
    "There are mfr, dead_frac, sg_active_frac, grad_norm, weight_zero_frac, `value` of what is "
    "logged, and many more: `spikewatch query` tells all, with what each means."
)
_MOST_OF_ERROR = 150  # characters; Polars quotes the whole expression
_EMPTY = pl.DataFrame(schema=COLUMNS)
_CALL = re.compile(r"([A-Za-z_]\w*)\s*\(")
_WORD = re.compile(r"[A-Za-z_]\w*")
_DEFAULTED = re.compile(r"\bCOALESCE\s*\(\s*(\w+)\s*,\s*[-+.\d]+\s*\)", re.IGNORECASE)
_SELECT = re.compile(r"\bSELECT\b", re.IGNORECASE)
_CLOCK = re.compile(
    r"\b(now|today|get_current_time(?:stamp)?|current_(?:date|time|timestamp)|local(?:time|timestamp))"
    r"\b",
    re.IGNORECASE,
)


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
            the condition says nothing about a row. What is only asked with a default beside it, as
            in `COALESCE(x, 0)`, is no evidence, unless there is nothing else; nor is what begins
            with `is_`, which tells the layers that are meant, and not how they are.
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
        RuleError: It is no SQL, names an unknown column, is not true-or-false, names no metric, or
            asks for more than the row that is judged.
    """
    _check_bounds(sql)
    plain, lookbacks = rewrite(sql, after_step=after_step)
    expr = _to_polars(sql, plain)
    labels = {x.label: x for x in lookbacks}
    named = {labels[name].column if name in labels else name for name in expr.meta.root_names()}
    for name in sorted(named - COLUMNS.keys()):
        raise RuleError(f"there is no column {name!r} in {shown(sql)}. {suggest_column(name)}")
    try:
        empty = _EMPTY.with_columns(pl.lit(None, pl.Float64).alias(label) for label in labels)
        dtype = empty.select(expr.alias("x")).schema["x"]
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise RuleError(f"{shown(sql)} cannot be evaluated: {_first_line(error)}") from error
    if dtype != pl.Boolean:
        raise RuleError(
            f"{shown(sql)} is not a condition: it gives {dtype}, and has to be true or false. "
            "Compare it with something, as in `dead_frac > 0.05`."
        )
    columns = tuple(dict.fromkeys(w for w in _WORD.findall(sql) if w in named and w not in KEYS))
    if not columns:
        raise RuleError(f"{shown(sql)} names no metric. {_THERE_ARE}")
    aside = _aside(sql)
    asked = [c for c in columns if c not in aside] or columns
    return Condition(sql, plain, expr, lookbacks, columns, _evidence(asked))


def _aside(sql: str) -> set[str]:
    """Columns that are only named with a default beside them."""
    names = _DEFAULTED.findall(sql)
    words = _WORD.findall(sql)
    return {name for name in names if words.count(name) == names.count(name)}


def _check_bounds(sql: str) -> None:
    """A condition is short, and about one row at a time that was observed, whenever it is asked."""
    if len(sql) > MOST_CHARACTERS:
        raise RuleError(
            f"it has {len(sql)} characters; {MOST_CHARACTERS} may be. Split it into several rules."
        )
    bare = QUOTED.sub(" ", sql)
    if _SELECT.search(bare):
        raise RuleError(
            f"{shown(sql)} holds a SELECT. A condition sees the row that is judged, and no table; "
            f"to look back, write {_look_back('avg_over')}."
        )
    if clock := _CLOCK.search(bare):
        raise RuleError(
            f"{shown(sql)} asks for the time ({clock[0]}): the run's history would be judged "
            'otherwise than the run was. Take `step`, or the time of the row, "at".'
        )


def _look_back(name: str) -> str:
    return FUNCTIONS[name][1].partition(":")[0]


def _to_polars(sql: str, plain: str) -> pl.Expr:
    try:
        return pl.sql_expr(plain)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        near = (difflib.get_close_matches(w.lower(), FUNCTIONS, n=1) for w in _CALL.findall(plain))
        meant = next((names[0] for names in near if names), None)
        hint = f"Did you mean {FUNCTIONS[meant][1]}? " if meant else ""
        raise RuleError(
            f"{shown(sql)} is not an SQL expression: {_first_line(error)}. {hint}Write what could "
            "stand after WHERE, as in `dead_frac > 0.05 AND mfr > 0`."
        ) from error


def _evidence(columns: Iterable[str]) -> tuple[str, ...]:
    roots = [c for name in columns if name in METRICS for c in METRICS[name].expr.meta.root_names()]
    names = tuple(dict.fromkeys([*columns, *roots]))
    return tuple(name for name in names if not name.startswith("is_")) or names


def own_counters(metric: str) -> tuple[str, ...]:
    """A metric and the counters that it is computed from."""
    return _evidence([metric])


def suggest_column(name: str) -> str:
    """What an unknown column could have been meant to be."""
    close = difflib.get_close_matches(name.lower(), WORDS, n=3)
    if close:
        return f"Did you mean {' or '.join(map(repr, close))}? `spikewatch query` lists all."
    return _THERE_ARE


def _first_line(error: BaseException) -> str:
    line = str(error).strip().partition("\n")[0].rstrip(".")
    return line if len(line) <= _MOST_OF_ERROR else f"{line[:_MOST_OF_ERROR]}…"
