"""Journals into DuckDB: every row exactly once, whatever is killed when.

How far each journal was read is committed in the transaction that holds its rows. A run is a
folder and a rank is a file in it: rows carry the names that these have on disk, so a copied or
renamed folder is a run of its own, and the rows of a folder that was deleted leave the store.
"""

import contextlib
import logging
from pathlib import Path
from typing import Any

import duckdb
import polars as pl

from ..errors import StoreError
from ..journal import journal_id, read_frames
from .batch import Batch, Progress
from .journals import Journal, Signature, find_journals
from .schema import FRAMES, TURN, quote


_log = logging.getLogger("spikewatch")

# A transaction takes about so many bytes of journals: bounds memory, and what a kill throws away.
BATCH_BYTES = 16 << 20


class Ingester:
    """Keeps one database level with the journals of one folder."""

    def __init__(self, con: duckdb.DuckDBPyConnection, folder: Path) -> None:
        self._con = con
        self._folder = folder
        self._seen: dict[Journal, Signature] = {}
        self._unreadable: dict[Journal, str] = {}
        self.watermark = self._read_watermark()

    def catch_up(self) -> int:
        """Read what the journals have and the database has not; return the watermark.

        Raises:
            StoreError: The folder is gone.
            duckdb.Error: The rows could not be stored; nothing of them was.
        """
        if not self._folder.is_dir():
            raise StoreError(
                f"The runs folder {str(self._folder)!r} is gone. If it is on a disk that was "
                "taken away, bring it back; else open the folder that takes its place."
            )
        found = find_journals(self._folder)
        if found != self._seen:
            with TURN:
                self._read(found)
                self.watermark = self._read_watermark()
            self._seen = found
        return self.watermark

    def close(self) -> None:
        """Close the connection."""
        self._con.close()

    def _read(self, found: dict[Journal, Signature]) -> None:
        rows = self._con.execute("SELECT run, rank, id, bytes, unknown FROM journals").fetchall()
        known = {(run, rank): rest for run, rank, *rest in rows}
        batch = Batch(stale=known.keys() - {(j.run, j.rank) for j in found})
        for journal, signature in found.items():
            if self._seen.get(journal) == signature:
                continue
            try:
                progress = _resume(journal, known.get((journal.run, journal.rank)))
                if progress is None:
                    continue
                if progress.end == 0:
                    batch.stale |= known.keys() & {(journal.run, journal.rank)}
                for frame in read_frames(journal.path, progress.end):
                    batch.add(progress, frame)
                    if batch.n_bytes >= BATCH_BYTES:
                        self._commit(batch)
                        batch = Batch()
            except (StoreError, OSError) as error:
                self._complain(journal, str(error))
        if batch.progress or batch.stale:
            self._commit(batch)

    def _commit(self, batch: Batch) -> None:
        """Store the batch in one transaction."""
        self._con.execute("BEGIN")
        try:
            if batch.stale:
                for table in (*FRAMES, "journals"):
                    self._delete(table, batch.stale)
            for table, rows in batch.frames():
                self._insert(table, rows)
            self._note(batch.progress)
            self._con.execute("UPDATE progress SET watermark = watermark + 1")
            self._con.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(duckdb.Error):
                self._con.execute("ROLLBACK")
            raise

    def _note(self, progress: dict[Journal, Progress]) -> None:
        if not progress:
            return
        rows = [[j.run, j.rank, p.file_id, p.end, sorted(p.unknown)] for j, p in progress.items()]
        self._delete("journals", {(j.run, j.rank) for j in progress})
        self._con.executemany("INSERT INTO journals VALUES (?, ?, ?, ?, ?)", rows)

    def _delete(self, table: str, keys: set[tuple[str, int]]) -> None:
        delete = f"""DELETE FROM {quote(table)}
            WHERE (run, rank) IN (SELECT unnest(?::VARCHAR[]), unnest(?::INTEGER[]))"""  # noqa: S608
        self._con.execute(delete, [*map(list, zip(*keys, strict=True))])

    def _insert(self, table: str, frame: pl.DataFrame) -> None:
        schema = FRAMES[table]
        # An empty bitmap has no form in DuckDB.
        values = ", ".join(
            f"nullif({quote(c)}, ''::BLOB)::BIT" if dtype == pl.Binary() else quote(c)
            for c, dtype in schema.items()
        )
        names = ", ".join(map(quote, schema))
        insert = f"INSERT INTO {quote(table)} ({names}) SELECT {values} FROM incoming"  # noqa: S608
        self._con.register("incoming", frame)
        try:
            self._con.execute(insert)
        finally:
            self._con.unregister("incoming")

    def _read_watermark(self) -> int:
        row = self._con.execute("SELECT watermark FROM progress").fetchone()
        return row[0] if row else 0

    def _complain(self, journal: Journal, message: str) -> None:
        if self._unreadable.get(journal) != message:
            self._unreadable[journal] = message
            _log.warning("spikewatch: run %r is not complete. %s", journal.run, message)


def _resume(journal: Journal, known: list[Any] | None) -> Progress | None:
    """Where to go on reading; at 0 if the file took another's place or has to be read again."""
    file_id = journal_id(journal.path)
    if file_id is None:
        return None
    if known is not None:
        old_id, end, unknown = known
        if old_id == file_id and end <= journal.path.stat().st_size:
            return Progress(journal, file_id, end, set(unknown))
    return Progress(journal, file_id, 0, set())
