"""One language: an expression has to mean the same to Polars (rules) and to DuckDB (queries).

The dialects differ in corners (`GREATEST` of NULL, `IS TRUE`, casts), and Polars would average over
whatever rows happen to come together where DuckDB refuses. So each expression of a user's is tried
in both on rows that hold every special value, and refused if the answers differ.
"""

import random
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING

import polars as pl

from ..errors import RuleError
from .expression import Condition
from .mistakes import shown
from .vocabulary import COLUMNS


if TYPE_CHECKING:
    import duckdb

_N_ROWS = 256
_OF_MANY_ROWS = " A condition sees one row; avg_over(x, n), min_over and max_over look back."
_FLOATS = (None, float("nan"), float("inf"), float("-inf"), 0.0, 1.0, -1.0, 1e-12, 0.05, 0.3, 3.0)
_INTS = (None, 0, 1, 2, 7, -3, 3000)
_TEXTS = (None, "", "train", "eval", "lif1", "Loss")


_agreed: set[str] = set()


def check_agreement(conditions: Iterable[tuple[str, Condition | None]]) -> None:
    """Check conditions of rules.

    Args:
        conditions: Names of rules, each with a condition of it.

    Raises:
        RuleError: Polars and DuckDB give different answers, or DuckDB has none.
    """
    new = [(rule, c) for rule, c in conditions if c is not None and c.plain not in _agreed]
    if not new:
        return
    import duckdb

    labels = sorted({x.label for _, c in new for x in c.lookbacks})
    rows = _with_lookbacks(probe_rows(), labels)
    with duckdb.connect(":memory:", config={"threads": 1}) as con:
        con.register("probe", rows.to_arrow())
        con.execute("CREATE TABLE wide AS FROM probe")
        for rule, condition in new:
            if trouble := _disagreement(condition.plain, rows, con):
                raise RuleError(f"rule {rule!r}: {shown(condition.sql)} {trouble}")
            _agreed.add(condition.plain)


def _with_lookbacks(rows: pl.DataFrame, labels: Iterable[str]) -> pl.DataFrame:
    """Rows with a column for each use of a history function, as mixed as the others are."""
    figure = rows["value"]
    return rows.with_columns(
        figure.gather([(7 * i + k) % _N_ROWS for i in range(_N_ROWS)]).alias(label)
        for k, label in enumerate(labels, start=1)
    )


def _disagreement(sql: str, rows: pl.DataFrame, con: "duckdb.DuckDBPyConnection") -> str:
    """What is wrong with an expression that Polars can parse; empty if nothing is."""
    import duckdb

    try:
        # In WHERE, DuckDB refuses aggregates and window functions: they need other rows.
        con.execute(f"SELECT 1 FROM wide WHERE ({sql}\n) LIMIT 0")  # noqa: S608 - one expression
        theirs = [x for (x,) in con.execute(f"SELECT ({sql}\n) FROM wide").fetchall()]  # noqa: S608
    except duckdb.Error as error:
        why = str(error).splitlines()[0]
        hint = _OF_MANY_ROWS if "aggregates" in why or "window functions" in why else ""
        return f"cannot be evaluated by DuckDB: {why}{hint}"
    try:
        ours = rows.select(pl.sql_expr(sql).alias("x"))["x"].to_list()
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        return f"cannot be evaluated: {str(error).splitlines()[0]}"
    if ours == theirs:
        return ""
    return (
        "does not mean the same to Polars, which judges, and to DuckDB, which answers queries. "
        "Comparisons, arithmetic, AND, OR, NOT, BETWEEN, IN, IS NULL, COALESCE, CASE, LIKE, ABS, "
        "LN, SQRT and POWER do; GREATEST, IS TRUE and casts may not."
    )


@lru_cache
def probe_rows() -> pl.DataFrame:
    """Rows of the wide frame that mix NULL, NaN, ±∞, thresholds and ordinary figures."""
    draw = random.Random(0)  # noqa: S311 - not for secrets

    def values(dtype: pl.DataType) -> list[object]:
        if dtype == pl.Float64():
            special = [draw.choice(_FLOATS) for _ in range(_N_ROWS)]
            return [draw.random() if draw.random() < 0.5 else x for x in special]
        pool = _INTS if dtype.is_integer() else _TEXTS if dtype == pl.String() else (None,)
        return [draw.choice(pool) for _ in range(_N_ROWS)]

    return pl.DataFrame(
        {name: pl.Series(values(dtype), dtype=dtype) for name, dtype in COLUMNS.items()}
    )
