"""Frames on a terminal and in files: whole, and never cut in silence."""

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from .errors import StoreError
from .metrics import KEYS, METRICS, RECORDS, TABLES


if TYPE_CHECKING:
    from .alerts.check import Verdict

_MAX_ROWS = 1000  # on a terminal, where nobody reads more
_MAX_WIDTH = 65_535  # what Polars can count to


def print_frame(frame: pl.DataFrame, *, wrap: bool = True) -> None:
    """Print a frame as a table, with all its columns and no cell shortened.

    Args:
        frame: What to print.
        wrap: Fold long cells to the width of the terminal.

    On a terminal at most 1000 rows are printed, and it is said how many there are.
    """
    terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if terminal and wrap else _MAX_WIDTH
    with pl.Config(
        tbl_rows=-1,
        tbl_cols=-1,
        tbl_width_chars=width,
        fmt_str_lengths=10**9,
        fmt_table_cell_list_len=-1,
        tbl_formatting="UTF8_FULL_CONDENSED",
        tbl_hide_dataframe_shape=True,
        tbl_hide_column_data_types=True,
        tbl_cell_numeric_alignment="RIGHT",
    ):
        shown = frame.head(_MAX_ROWS) if terminal else frame
        print(_readable(shown))
    n = frame.height
    more = (
        f"; the first {_MAX_ROWS} are shown, --csv or --json gives all" if n > shown.height else ""
    )
    print(f"{n} row{'s'[: n != 1]}{more}")


def print_runs(runs: pl.DataFrame) -> None:
    """Print what a person wants to know of `Store.runs()`."""
    print_frame(
        runs.select(
            "run",
            "state",
            pl.col("started_at").dt.strftime("%Y-%m-%d %H:%M:%S").alias("started (UTC)"),
            pl.col("last_step").alias("step"),
            pl.col("n_layers").alias("layers"),
            _alerts("n_critical", "n_warning").alias("alerts now"),
            _alerts("n_fired_critical", "n_fired_warning").alias("alerts ever"),
        ),
        wrap=False,  # names stay in one piece, to be copied
    )


def _alerts(critical: str, warning: str) -> pl.Expr:
    parts = [
        pl.when(pl.col(name) > 0).then(pl.format("{} " + word, name))
        for name, word in ((critical, "critical"), (warning, "warning"))
    ]
    return pl.concat_str(parts, separator=", ", ignore_nulls=True)


def print_json(frame: pl.DataFrame) -> None:
    """Print a frame as a JSON array with one object a row.

    Bitmaps are written in hexadecimal; JSON knows no NaN and no infinity, they become null.
    """
    print(_readable(frame).write_json())


def print_csv(frame: pl.DataFrame) -> None:
    """Print a frame as CSV. Lists are written as JSON, bitmaps in hexadecimal."""
    nested = [name for name, dtype in frame.schema.items() if dtype.is_nested()]
    texts = [
        pl.Series(
            name, [None if v is None else json.dumps(v, default=str) for v in frame[name].to_list()]
        )
        for name in nested
    ]
    print(_readable(frame).with_columns(texts).write_csv(), end="")


def write_parquet(frame: pl.DataFrame, path: Path) -> None:
    """Write a frame to a Parquet file.

    Raises:
        StoreError: The file cannot be written.
    """
    try:
        frame.write_parquet(path)
    except OSError as error:
        raise StoreError(f"Cannot write {str(path)!r}: {error}. Name another file.") from error


def print_verdict(verdict: "Verdict", *, as_json: bool = False) -> None:
    """Print what is to be said of a run, in lines or as a JSON object."""
    if as_json:
        parts = {
            name: json.loads(getattr(verdict, name).write_json()) for name in ("fired", "unknown")
        }
        print(json.dumps({"run": verdict.run, "exit_code": verdict.exit_code} | parts))
    else:
        print(*verdict.lines, sep="\n")


def _readable(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(pl.selectors.binary().bin.encode("hex"))


def print_vocabulary() -> None:
    """Print every table and column that a query may name, with what each means."""
    meanings = {name: f"{m.meaning} [{m.unit}]" for name, m in METRICS.items()}
    for table in TABLES.values():
        print(
            f"{table.name}: {table.about}. One row per ({', '.join(k for k in KEYS if k != 'at')})"
        )
        known = {c.name: c.meaning for c in table.counters} | meanings
        _print_columns({name: known[name] for name in table.schema if name not in KEYS})
    for name, schema in RECORDS.items():
        print(f"{name}: {', '.join(schema)}\n")
    print("metrics: all metrics, long: run, rank, phase, step, layer, metric, value")
    print("wide: one row per (run, rank, phase, step, layer) with the columns of every table\n")
    print("Every table begins with: " + ", ".join(KEYS))


def _print_columns(columns: dict[str, str]) -> None:
    width = max(map(len, columns))
    for name, meaning in columns.items():
        print(f"  {name:<{width}}  {meaning}")
    print()
