"""The database's tables and views, made from the catalogue.

Each table of the catalogue is a table here; `journals` says how far each journal was read, and
`progress` counts the changes. A database that lacks columns gets them. One that cannot be ours is
refused, and the caller begins a new one: all that it holds comes from the journals.
"""

import threading
from typing import TYPE_CHECKING

import polars as pl

from ..metrics import KEYS, RECORDS, TABLES


if TYPE_CHECKING:
    import duckdb

FRAMES: dict[str, dict[str, pl.DataType]] = {n: t.schema for n, t in TABLES.items()} | RECORDS

BOOKKEEPING = {
    "journals": {
        "run": "VARCHAR",
        "rank": "INTEGER",
        "id": "BLOB",  # of the file that was read
        "bytes": "BIGINT",  # how far it was read
        "unknown": "VARCHAR[]",  # tables and columns that were left out, because no one knew them
    },
    "progress": {"watermark": "BIGINT"},  # one row
}

_TYPES: dict[pl.DataType, str] = {
    pl.String(): "VARCHAR",
    pl.Int32(): "INTEGER",
    pl.Int64(): "BIGINT",
    pl.Float64(): "DOUBLE",
    pl.Boolean(): "BOOLEAN",
    pl.Datetime("us"): "TIMESTAMP",
    pl.Binary(): "BIT",  # every binary column of the catalogue is a bitmap
    pl.List(pl.Float64()): "DOUBLE[]",
    pl.List(pl.Int64()): "BIGINT[]",
}
# Two stores on one file in one process share DuckDB's instance, and its lock: they take turns.
TURN = threading.Lock()

_JOIN = [k for k in KEYS if k != "at"]


class ForeignDatabaseError(Exception):
    """The file is a DuckDB database, but none that the catalogue can use."""


def quote(name: str) -> str:
    """A name as SQL takes it, whatever is in it (`at` is a word of SQL)."""
    return '"' + name.replace('"', '""') + '"'


def tables() -> dict[str, dict[str, str]]:
    """Every table's columns with their DuckDB types."""
    data = {n: {c: _TYPES[t] for c, t in schema.items()} for n, schema in FRAMES.items()}
    return data | BOOKKEEPING


def ensure(con: "duckdb.DuckDBPyConnection") -> None:
    """Create or extend the tables, and the views over them.

    Raises:
        ForeignDatabaseError: There are tables of somebody else's, or columns of another type.
    """
    with TURN:
        con.execute("BEGIN")
        _ensure(con)
        con.execute("COMMIT")


def _ensure(con: "duckdb.DuckDBPyConnection") -> None:
    found: dict[str, dict[str, str]] = {}
    columns = "SELECT table_name, column_name, data_type FROM duckdb_columns() WHERE NOT internal"
    for table, column, type_ in con.execute(columns).fetchall():
        found.setdefault(table, {})[column] = type_
    if found and "journals" not in found:
        raise ForeignDatabaseError(f"it holds the tables {', '.join(sorted(found))}")
    for table, wanted in tables().items():
        if table not in found:
            body = ", ".join(f"{quote(c)} {t}" for c, t in wanted.items())
            con.execute(f"CREATE TABLE {quote(table)} ({body})")
            continue
        for column, type_ in wanted.items():
            has = found[table].get(column)
            if has is None:
                con.execute(f"ALTER TABLE {quote(table)} ADD COLUMN {quote(column)} {type_}")
            elif has != type_:
                raise ForeignDatabaseError(f"its column {table}.{column} is {has}, not {type_}")
    for view in (_wide_view(), _metrics_view()):
        con.execute(view)
    con.execute("INSERT INTO progress SELECT 0 WHERE NOT EXISTS (FROM progress)")
    # What an older spikewatch left out of the rows it stored is read once more.
    known = [*FRAMES, *(f"{t}.{c}" for t, schema in FRAMES.items() for c in schema)]
    con.execute("UPDATE journals SET id = NULL WHERE list_has_any(unknown, ?)", [known])


def _wide_view() -> str:
    """`wide`: what `spikewatch.metrics.wide.widen` makes of the same rows, in any order.

    Grouped rather than joined: should a key ever come twice, a join of four tables would multiply.
    """
    keys = ", ".join(map(quote, _JOIN))
    columns = ", ".join(
        f"any_value({quote(c)}){'::BLOB' * (dtype == pl.Binary())} AS {quote(c)}"
        for table in TABLES.values()
        for c, dtype in table.schema.items()
        if c not in KEYS and not dtype.is_nested()
    )
    rows = " UNION ALL BY NAME ".join(f"FROM {table}" for table in TABLES)
    return f"""CREATE OR REPLACE VIEW wide AS
        SELECT {keys}, any_value("at") AS "at", {columns},
            NULL::DOUBLE AS value, NULL::BIGINT AS n_nonfinite_value
        FROM ({rows}) GROUP BY {keys}
        UNION ALL BY NAME
        SELECT run, rank, phase, step, name AS layer, "at", value,
            (NOT isfinite(value))::BIGINT AS n_nonfinite_value
        FROM scalars"""  # noqa: S608 - names of the catalogue


def _metrics_view() -> str:
    """`metrics`: a row per metric that has a value."""
    keys = ", ".join(map(quote, _JOIN))
    parts = [
        f"SELECT {keys}, '{m.name}' AS metric, {quote(m.name)} AS value "  # noqa: S608
        f"FROM {name} WHERE {quote(m.name)} IS NOT NULL"
        for name, table in TABLES.items()
        for m in table.metrics
    ]
    return "CREATE OR REPLACE VIEW metrics AS " + " UNION ALL ".join(parts)
