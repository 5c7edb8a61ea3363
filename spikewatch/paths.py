"""Where runs live on disk.

RUNS/                       ./spikewatch-runs, or $SPIKEWATCH_DIR, or what the user passes
  spikewatch.duckdb         fed from the journals, may be deleted at any time: it is rebuilt
  <run>/rank-<r>.journal    the truth, one append-only file per rank
"""

import os
import re
from pathlib import Path

from .errors import AttachError


DATABASE = "spikewatch.duckdb"
_RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._ =,+-]{0,127}")


def runs_dir(given: str | Path | None = None) -> Path:
    """The runs folder: the argument, else `$SPIKEWATCH_DIR`, else `./spikewatch-runs`."""
    return Path(given or os.environ.get("SPIKEWATCH_DIR") or "spikewatch-runs").expanduser()


def journal_path(runs: Path, run: str, rank: int) -> Path:
    """The journal of one rank of one run."""
    return runs / run / f"rank-{rank}.journal"


def check_run_name(run: str) -> str:
    """Return `run` if it can name a folder on every system.

    Raises:
        AttachError: It cannot; the message says which characters may stand in a name.
    """
    if not _RUN_NAME.fullmatch(run) or run.endswith((".", " ")):
        raise AttachError(
            f"{run!r} cannot name a run, because a run is a folder on disk. Use 1 to 128 letters, "
            "digits, spaces and . _ = , + -, beginning with a letter or digit."
        )
    return run
