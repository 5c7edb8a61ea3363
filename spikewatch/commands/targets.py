"""What a command is about: a runs folder, a run by name, by folder, or the newest."""

import difflib
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import StoreError
from ..paths import DATABASE, runs_dir
from ..store.journals import find_journals


if TYPE_CHECKING:
    from ..store import Store


def existing_runs(runs: str | None) -> str:
    """The runs folder or address as given; a run's own folder means the one it lies in."""
    if runs is not None and ":" in runs and not Path(runs).exists():
        return runs
    path = runs_dir(runs)
    if any(path.glob("rank-*.journal")):
        path = path.parent
    if not path.is_dir() and not path.is_file():
        raise StoreError(
            f"There is no runs folder at {str(path)!r}. Train with `spikewatch.attach(model)` "
            "first, try `spikewatch demo`, or name the folder."
        )
    return str(path)


def run_and_folder(run: str | None, folder: str | None) -> tuple[str | None, str | None]:
    """Take a run's folder apart: (runs folder, run name). A name, or None, stays as it is."""
    if run is not None:
        path = Path(run).expanduser()
        if any(path.glob("rank-*.journal")):
            return str(path.resolve().parent), path.resolve().name
        if folder is None and (any(path.glob("*/rank-*.journal")) or (path / DATABASE).exists()):
            return run, None
    return folder, run


def known_run(store: "Store", name: str | None) -> str:
    """The name of a run that is there; the newest where none is named."""
    runs = store.runs()["run"].to_list()
    empty = without_rows(store, runs)
    if name in empty or (name is None and not runs and empty):
        raise StoreError(
            f"Of run {name or empty[0]!r} nothing can be read: it was killed before its first "
            "second was over, or its journal is damaged."
        )
    if not runs:
        raise StoreError(
            f"There are no runs in {store.folder or 'this store'} yet. Train with "
            "`spikewatch.attach(model)`, or try `spikewatch demo`."
        )
    if name is None:
        return runs[0]
    if name not in runs:
        close = difflib.get_close_matches(name, runs, n=1)
        hint = f"Did you mean {close[0]!r}?" if close else f"The newest: {', '.join(runs[:5])}."
        raise StoreError(f"There is no run {name!r} in {store.folder or 'this store'}. {hint}")
    return name


def without_rows(store: "Store", known: Collection[str]) -> list[str]:
    """Runs that have a journal, but no row in the store."""
    journals = find_journals(store.folder) if store.folder else {}
    return sorted({journal.run for journal in journals} - set(known))
