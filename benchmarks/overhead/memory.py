"""How much memory the process uses now."""

import os
import sys
from pathlib import Path

import torch


_STATM = Path("/proc/self/statm")
_MIB = 2**20


def used_mib() -> float:
    """Resident memory of this process, and what torch holds on the GPU, in MiB.

    Where there is no /proc (macOS) it is the most that was resident until now, whose growth is the
    growth of what is never given back.
    """
    gpu = torch.cuda.memory_allocated() if torch.cuda.is_initialized() else 0
    if _STATM.exists():
        resident = int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    else:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        resident = peak if sys.platform == "darwin" else peak * 1024
    return (resident + gpu) / _MIB
