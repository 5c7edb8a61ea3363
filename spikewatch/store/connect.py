"""Open the database of a runs folder: the file if it can be had, else a private replica.

DuckDB lets one process at a time open a file for writing, and then no other may even read it. Who
gets the lock feeds the file; who does not reads an own copy in memory, made from the same journals
by the same code.
"""

import logging
import os
import tempfile
from pathlib import Path

import duckdb

from ..errors import StoreError
from ..paths import DATABASE
from .schema import ForeignDatabaseError, ensure


_log = logging.getLogger("spikewatch")

ATTACHED = "store"
COPY_INSTEAD = "spikewatch: cannot write %s (%s). A copy in memory is used instead."

# Where users type SQL it can neither touch other files nor change these settings.
_SAFE: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": "false",
    "python_enable_replacements": "false",
    "lock_configuration": "true",
}
# DuckDB has no error codes: these are parts of its messages.
_HELD = ("Could not set lock", "different configuration")
_NOT_TO_BE_HAD = (
    *_HELD,
    "Cannot open file",
    "Could not write",
    "No space left",
    "Out of Memory",
    "Conflict",
)


def open_fed(folder: Path) -> tuple[duckdb.DuckDBPyConnection, bool]:
    """The database that is fed from the journals of a folder, and whether it is a replica.

    A file that is damaged, or that the catalogue cannot use, is moved aside and begun anew: all
    that was in it comes from the journals.
    """
    path = folder / DATABASE
    try:
        try:
            return _open_file(path), False
        except (duckdb.Error, ForeignDatabaseError) as error:
            if _matches(error, _NOT_TO_BE_HAD):
                raise
            move_aside(path, error)
            return _open_file(path), False
    except (duckdb.Error, OSError) as error:
        if not _matches(error, _HELD):
            _log.warning(COPY_INSTEAD, path, error)
        return open_replica(), True


def open_replica() -> duckdb.DuckDBPyConnection:
    """An empty database in memory; what does not fit goes to the system's temporary folder."""
    spill = Path(tempfile.gettempdir()) / f"spikewatch-{os.getpid()}"
    con = duckdb.connect(":memory:", config=_SAFE | {"temp_directory": str(spill)})
    ensure(con)
    return con


def open_readonly(path: Path) -> duckdb.DuckDBPyConnection:
    """A database file as it is, without journals.

    Raises:
        StoreError: It cannot be opened.
    """
    try:
        return duckdb.connect(str(path), read_only=True, config=_SAFE)
    except duckdb.Error as error:
        hint = "Check that it is a DuckDB database and that it may be read."
        if _matches(error, _HELD):
            hint = "A process has it open. Open its folder instead of the file, or end the process."
        raise StoreError(f"Cannot open the database {str(path)!r}: {error}\n{hint}") from error


def attach_uri(uri: str) -> duckdb.DuckDBPyConnection:
    """Whatever DuckDB can attach, read-only, say a DuckLake: `ducklake:postgres:dbname=runs`.

    It is attached under the name `ATTACHED`. External access stays on, because such a store keeps
    its data in files of its own.

    Raises:
        StoreError: DuckDB cannot attach it.
    """
    # No extension is fetched from the net behind the user's back.
    config: dict[str, str | bool | int | float | list[str]] = {
        "python_enable_replacements": "false",
        "autoinstall_known_extensions": "false",
    }
    con = duckdb.connect(":memory:", config=config)
    try:
        escaped = uri.replace("'", "''")
        con.execute(f"ATTACH '{escaped}' AS {ATTACHED} (READ_ONLY)")
    except duckdb.Error as error:
        con.close()
        raise StoreError(
            f"DuckDB cannot attach {uri!r}: {error}\nCheck the address, and that the extension "
            "it needs is installed."
        ) from error
    return con


def move_aside(path: Path, error: BaseException) -> None:
    """Put a database out of the way, with its log; nothing is deleted."""
    n = 1
    while (aside := path.with_name(f"{path.name}.aside-{n}")).exists():
        n += 1
    path.rename(aside)
    log = path.with_name(f"{path.name}.wal")
    if log.exists():
        log.rename(aside.with_name(f"{aside.name}.wal"))
    _log.warning(
        "spikewatch: %s cannot be used (%s). It was moved to %s, and is made again from the "
        "journals; delete it if you do not need it.",
        path,
        str(error).splitlines()[0],
        aside.name,
    )


def _open_file(path: Path) -> duckdb.DuckDBPyConnection:
    con = duckdb.connect(str(path), config=_SAFE)
    try:
        ensure(con)
    except BaseException:
        con.close()
        raise
    return con


def _matches(error: Exception, parts: tuple[str, ...]) -> bool:
    return any(part in str(error) for part in parts)
