"""Names of runs, and the rank of this process in a distributed run."""

import os
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

from .errors import AttachError
from .paths import check_run_name, journal_path


def rank_of_this_process() -> int:
    """That of the process group, else the one set by torchrun and its kin (`RANK`), else 0."""
    group = _process_group()
    if group is not None:
        return group.get_rank()
    rank = os.environ.get("RANK", "0")
    return int(rank) if rank.isdigit() else 0


def n_ranks() -> int:
    """How many processes train together: as the process group says, else `WORLD_SIZE`, else 1."""
    group = _process_group()
    if group is not None:
        return group.get_world_size()
    size = os.environ.get("WORLD_SIZE", "1")
    return int(size) if size.isdigit() else 1


def _process_group() -> Any:
    # Launchers that are no torchrun (Lightning's, `mp.spawn`) set no `RANK`, and start the group.
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available():
        return None
    return distributed if distributed.is_initialized() else None


def free_run_name(folder: Path, wanted: str | None, *, rank: int) -> str:
    """The name of a new run: `wanted`, or the time of day; with a number if it is taken.

    A run is never written twice, so a script that names its run can be started again and again.

    Raises:
        AttachError: `wanted` cannot name a folder, or several ranks have no name in common.
    """
    name = check_run_name(wanted) if wanted is not None else _default_name()
    if rank or n_ranks() > 1:
        return _name_of_ranks(folder, name, wanted, rank)
    candidate, n = name, 1
    while (folder / candidate).exists():
        n += 1
        candidate = f"{name}-{n}"
    return candidate


def _default_name() -> str:
    return datetime.now().astimezone().strftime("%Y-%m-%d_%H-%M-%S")


def _name_of_ranks(folder: Path, name: str, wanted: str | None, rank: int) -> str:
    # All ranks have to find the same name without talking to each other.
    if wanted is None:
        shared = os.environ.get("TORCHELASTIC_RUN_ID") or os.environ.get("MASTER_PORT")
        if not shared or shared == "none":
            raise AttachError(
                "This is a distributed run, and its ranks need one name in common. "
                "Pass the same `run=` in every rank."
            )
        name = check_run_name(f"job-{shared}")
    if journal_path(folder, name, rank).exists():
        raise AttachError(
            f"Rank {rank} of run {name!r} is in {folder} already. Pass another `run=`, the same "
            "in every rank."
        )
    return name
