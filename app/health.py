"""Whether the page can do its work, for those who watch it with a machine."""

from typing import Any

import polars as pl

from .opened import FAILURES, Trouble, the_store, trouble


def health() -> dict[str, Any]:
    """State of the store: `ok`, `store`, and of its runs how many there are, run and are ill.

    A runs folder that does not exist yet is fine; one that cannot be read is not.
    """
    found = the_store()
    if not isinstance(found, Trouble):
        try:
            runs = found.runs()
        except FAILURES as error:
            found = trouble(error)
        else:
            return {
                "ok": True,
                "store": "replica" if found.is_replica else "open",
                "runs": runs.height,
                "running": runs.filter(state="running").height,
                "firing": runs.select(pl.sum("n_warning") + pl.sum("n_critical")).item(),
            }
    return {"ok": not found.is_error, "store": found.title}
