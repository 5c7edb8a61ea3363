"""Which journals there are on disk, and whether they changed."""

import contextlib
import os
import re
from dataclasses import dataclass
from pathlib import Path


_RANK = re.compile(r"rank-(\d{1,9})\.journal")

# What of a file changes when it grows or is replaced: inode, size, time in ns.
Signature = tuple[int, int, int]


@dataclass(frozen=True)
class Journal:
    """A journal found on disk."""

    path: Path
    run: str
    rank: int


def find_journals(folder: Path) -> dict[Journal, Signature]:
    """The journals of all runs in a folder, each with a signature that changes as it does."""
    found = {}
    # Called before every query, hence not Path.glob: that takes four times as long.
    with os.scandir(folder) as runs:
        for run in runs:
            if run.is_dir():
                found.update(_journals_of(run))
    return found


def _journals_of(run: os.DirEntry[str]) -> dict[Journal, Signature]:
    found = {}
    # Deleted since, or somebody else's.
    with contextlib.suppress(FileNotFoundError, PermissionError), os.scandir(run.path) as files:
        for file in files:
            if rank := _RANK.fullmatch(file.name):
                stat = file.stat()
                journal = Journal(Path(file.path), run.name, int(rank[1]))
                found[journal] = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
    return found
