"""Store: asks the runs of one place, and keeps level with their journals while it is open."""

import logging
import os
import re
import threading
from pathlib import Path

import duckdb
import polars as pl

from ..errors import StoreError
from ..paths import DATABASE, runs_dir
from .connect import (
    ATTACHED,
    COPY_INSTEAD,
    attach_uri,
    move_aside,
    open_fed,
    open_readonly,
    open_replica,
)
from .ingest import Ingester
from .journals import find_journals
from .query import Params, read
from .runs import COUNTS_SQL, RANKS_SQL, being_written, summarize


_log = logging.getLogger("spikewatch")
_URI = re.compile(r"[A-Za-z][A-Za-z0-9_+.-]+:.+")  # two letters at least: C:\runs is a path
_DAMAGED = ("orrupt", "checksum", "invalidated", "INTERNAL Error")


def open_store(where: str | Path | None = None) -> "Store":
    """Open the runs of one place.

    Args:
        where: A runs folder (by default `$SPIKEWATCH_DIR`, else `./spikewatch-runs`); a `.duckdb`
            file, which is read as it is; or an address that DuckDB can ATTACH.

    Raises:
        StoreError: There is no such place, or it is something else.
    """
    given = str(where or os.environ.get("SPIKEWATCH_DIR", ""))
    if _URI.fullmatch(given) and not Path(given).exists():
        return Store(attach_uri(given), prelude=f"USE {ATTACHED}")
    path = runs_dir(where)
    if path.is_file():
        return Store(open_readonly(path))
    if not path.is_dir():
        raise StoreError(
            f"There is no runs folder at {str(path)!r} (looked in {str(Path.cwd())!r}). Train with "
            "`spikewatch.attach(model)` first, or name the folder: as an argument, or in "
            "$SPIKEWATCH_DIR."
        )
    if any(path.glob("rank-*.journal")):
        raise StoreError(
            f"{str(path)!r} is one run. Open the folder that holds the runs: {str(path.parent)!r}."
        )
    return Store(None, folder=path)


class Store:
    """Runs, by SQL. Made by `open_store()`; may be used by several threads.

    Attributes:
        folder: The runs folder; None for a database without journals.
        is_replica: Whether this is a private copy, because another process has the database.
    """

    def __init__(
        self,
        con: duckdb.DuckDBPyConnection | None,
        *,
        folder: Path | None = None,
        prelude: str = "",
    ) -> None:
        self.folder = folder
        self._prelude = prelude
        self.is_replica = False
        self._lock = threading.RLock()
        self._con = con
        self._ingester: Ingester | None = None
        self._watermark = self._base = 0
        if folder is not None:
            self._feed(*open_fed(folder))

    def sql(self, query: str, params: Params = None) -> pl.DataFrame:
        """Run one statement that reads, on rows no older than this call.

        Args:
            query: SELECT, WITH, FROM, PIVOT, DESCRIBE, SHOW, SUMMARIZE or EXPLAIN.
            params: Values for `?` in order, or for `$name` by name.

        Raises:
            StoreError: The statement is wrong, or would change something.
        """
        self.refresh()
        try:
            return read(self._cursor(), query, params)
        except StoreError as error:
            if not self._is_damage(error.__cause__):
                raise
            self._recover(error.__cause__ or error)
            self.refresh()
            return read(self._cursor(), query, params)

    def runs(self) -> pl.DataFrame:
        """The runs, newest first: what became of each and what fires in it.

        Returns:
            Columns `run, state, started_at, last_at, last_step, n_layers, n_warning, n_critical,
            n_fired_warning, n_fired_critical, script`. `state` is `running`, `finished`, `failed`
            (an exception) or `lost` (killed); of several ranks, the first of running, failed,
            lost, finished that one of them has. Times are UTC without a zone.
        """
        # Asked first: a run that ends in between must not look lost for want of its last rows.
        live = being_written(find_journals(self.folder)) if self.folder else set()
        self.refresh()
        ranks, counts = (read(self._cursor(), query) for query in (RANKS_SQL, COUNTS_SQL))
        return summarize(ranks, counts, live)

    def refresh(self) -> int:
        """Take in what the journals have to offer; cheap when that is nothing.

        Returns:
            A number that grows whenever rows arrived (or went, with a deleted run).

        Raises:
            StoreError: The runs folder is gone, or the store was closed.
        """
        with self._lock:
            self._cursor().close()
            if self._ingester is None:
                return self._watermark
            try:
                level = self._ingester.catch_up()
            except duckdb.Error as error:
                self._recover(error)
                level = self._ingester.catch_up()
            self._watermark = max(self._watermark, self._base + level)
            return self._watermark

    def close(self) -> None:
        """Close the database; may be called twice."""
        with self._lock:
            for part in (self._ingester, self._con):
                if part is not None:
                    part.close()
            self._con = self._ingester = None

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _feed(self, con: duckdb.DuckDBPyConnection, is_replica: bool) -> None:
        assert self.folder is not None  # noqa: S101 - for the type checker
        self._con, self.is_replica = con, is_replica
        # A new database counts from 0; what this store has answered must not shrink.
        self._base = self._watermark
        self._ingester = Ingester(con.cursor(), self.folder)

    def _cursor(self) -> duckdb.DuckDBPyConnection:
        with self._lock:
            if self._con is None:
                raise StoreError("This store was closed. Open it again with `open_store()`.")
            cursor = self._con.cursor()
            if self._prelude:
                cursor.execute(self._prelude)
            return cursor

    def _is_damage(self, error: BaseException | None) -> bool:
        fed = self.folder is not None and not self.is_replica
        return fed and isinstance(error, duckdb.Error) and any(x in str(error) for x in _DAMAGED)

    def _recover(self, error: BaseException) -> None:
        """Go on after the database failed: on a new file, or else in memory."""
        with self._lock:
            if self.is_replica or self.folder is None:
                raise StoreError(f"Cannot hold the journals' rows in memory: {error}") from error
            self.close()
            path = self.folder / DATABASE
            if self._is_damage(error):
                move_aside(path, error)
                self._feed(*open_fed(self.folder))
            else:
                _log.warning(COPY_INSTEAD, path, error)
                self._feed(open_replica(), True)
