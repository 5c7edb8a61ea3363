"""One reading statement of a user's, safely: SQL in, a Polars frame out, errors that help."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import duckdb
import polars as pl

from ..errors import StoreError


Params = Sequence[Any] | Mapping[str, Any] | None

# MULTI is what PIVOT becomes.
_READING = ("SELECT", "EXPLAIN", "PRAGMA", "MULTI")


def read(con: duckdb.DuckDBPyConnection, query: str, params: Params = None) -> pl.DataFrame:
    """Run one statement that reads.

    Args:
        con: A connection of this call's own; it is closed.
        query: SELECT, WITH, FROM, PIVOT, DESCRIBE, SHOW, SUMMARIZE, EXPLAIN or PRAGMA table_info.
        params: Values for `?`, or for `$name` by name.

    Raises:
        StoreError: The statement is wrong or would change something. It says what DuckDB says,
            and what there is to ask for.
    """
    try:
        _check_reading(query)
        # The type of a statement is not enough: a CTE may write, and so may EXPLAIN ANALYZE.
        con.execute("BEGIN TRANSACTION READ ONLY")
        relation = con.sql(query, params=params)
        return pl.DataFrame() if relation is None else _to_polars(relation)
    except duckdb.Error as error:
        raise StoreError(_explain(error, query, con)) from error
    finally:
        con.close()


def _check_reading(query: str) -> None:
    kinds = [s.type.name for s in duckdb.extract_statements(query)]
    if len(kinds) != 1:
        raise StoreError(
            f"One statement at a time, please: found {len(kinds)}. Run them one after the other."
        )
    if kinds[0] not in _READING:
        raise StoreError(
            f"Only statements that read are run here, and this is {kinds[0]}. Ask with SELECT, "
            "DESCRIBE or SUMMARIZE; to change or keep data, work on the frame that comes back."
        )


def _to_polars(relation: duckdb.DuckDBPyRelation) -> pl.DataFrame:
    names = list(relation.columns)
    types = [str(t) for t in relation.types]
    if len(set(names)) < len(names):
        twice = sorted({n for n in names if names.count(n) > 1})
        raise StoreError(
            f"The result has more than one column named {', '.join(twice)}. Name them apart: "
            f"SELECT a.{twice[0]} AS {twice[0]}_a, …"
        )
    table = relation.to_arrow_table()
    try:
        frame = pl.DataFrame(pl.from_arrow(table))
    except pl.exceptions.PolarsError as error:
        raise StoreError(
            f"Polars has no type for a column of the result ({', '.join(types)}). Convert it in "
            "the query: an INTERVAL to seconds with epoch(…), anything to text with ::VARCHAR."
        ) from error
    return frame.with_columns(_tidy(frame, dict(zip(names, types, strict=True))))


def _tidy(frame: pl.DataFrame, types: dict[str, str]) -> list[pl.Expr | pl.Series]:
    """Columns whose Arrow form nobody expects: bitmaps with a prefix, sums as decimals."""
    tidy: list[pl.Expr | pl.Series] = []
    for name, type_ in types.items():
        column = frame[name]
        if type_ == "BIT":  # a byte that counts the padding bits leads
            tidy.append(pl.col(name).bin.slice(1))
        elif type_ == "HUGEINT":  # what DuckDB makes of sum()
            small = column.cast(pl.Int64, strict=False)
            if small.null_count() == column.null_count():
                tidy.append(small)
    return tidy


def _explain(error: duckdb.Error, query: str, con: duckdb.DuckDBPyConnection) -> str:
    message = str(error)
    if "does not exist" in message and message.startswith("Catalog Error: Table"):
        con.rollback()
        names = con.execute(
            "SELECT name FROM (SELECT table_name AS name FROM duckdb_tables() WHERE NOT internal "
            "UNION ALL SELECT view_name FROM duckdb_views() WHERE NOT internal) ORDER BY name"
        ).fetchall()
        return f"{message}\nTables and views: {', '.join(n for (n,) in names)}"
    if message.startswith("Parser Error") and re.search(r'(?i)(?<!")\bat\b(?!")', query):
        return f'{message}\n`at` is a word of SQL: write the column as "at", in double quotes.'
    return message
