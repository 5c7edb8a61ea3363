"""A line of the table: one training, watched in one way."""

from dataclasses import dataclass

from .host_syncs import Syncs
from .pairing import Costs


MEASURED = "measured"
NOT_INSTALLED = "not installed"


@dataclass(frozen=True)
class Growth:
    """Memory that watching takes and does not give back.

    Attributes:
        start_mib: What it takes once: from before it was attached to after its first second or so,
            when its threads have worked. Imports are not in it.
        mib: Growth of the process (and of the GPU's memory) over the `n_steps` after that.
        n_steps: Watched steps; fewer than planned where time or memory ended it.
    """

    start_mib: float
    mib: float
    n_steps: int


@dataclass(frozen=True)
class Row:
    """What came of one training, watched in one way.

    Attributes:
        training: Name of the training.
        watcher: Name of what watches it.
        status: "measured", "not installed", or what went wrong.
        costs: Times and ratios; None unless measured.
        growth: Memory.
        read_ms: Time to read each spike tensor of a step once, by `sum()`; only of that watcher.
        written_bytes_per_step: Bytes on disk, by the watched steps.
        settled: Whether the sampler's first credit was spent before anything was timed.
        syncs: On a GPU: by kind of step ("bare", "off-sample", "sampled"), what waited for it.
    """

    training: str
    watcher: str
    status: str = MEASURED
    costs: Costs | None = None
    growth: Growth | None = None
    read_ms: float | None = None
    written_bytes_per_step: float | None = None
    settled: bool = True
    syncs: dict[str, Syncs] | None = None
