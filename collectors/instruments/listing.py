"""The instruments that read a spiking layer, and where a new one is hung up.

An instrument reads forward calls as they come, reduces them at once on their device and keeps no
tensor of the user's. When the step ends it hands over its counters. There is one set for each
phase, and for each shape of neurons (`sites`): an instrument never sees its neurons change.
"""

from typing import Protocol

from spikewatch.observing import Counts

from ..calls import Call, Subject
from .amplitudes import AmplitudeReader
from .cut_spikes import CutSpikes
from .dynamics import DynamicsReader
from .first_spikes import FirstSpikes
from .gradient_counts import GradientCounts
from .membrane import MembraneReader
from .neuron_rates import NeuronRates
from .spike_counts import SpikeCounts
from .surrogate_counts import SurrogateCounts
from .surrogate_width import SurrogateWidth


class Instrument(Protocol):
    """Reads calls, hands over counters."""

    def __init__(self, subject: Subject) -> None: ...

    def add(self, call: Call) -> None:
        """Read one forward call."""

    def flush(self) -> Counts | None:
        """What was read since the last flush; None without anything."""


# In the order in which they are flushed: later ones may use what earlier ones told the subject.
INSTRUMENTS: tuple[type[Instrument], ...] = (
    SpikeCounts,
    NeuronRates,
    SurrogateCounts,
    GradientCounts,
    CutSpikes,
    MembraneReader,
    FirstSpikes,
    DynamicsReader,
    SurrogateWidth,
    AmplitudeReader,
)
# Those that read each call; the others are shown those of steps with the dear readings only.
ALWAYS: tuple[type[Instrument], ...] = (SpikeCounts, GradientCounts)
# Those that have something to hand over where they were shown a call, and never else.
CLOSE: tuple[type[Instrument], ...] = (
    CutSpikes,
    MembraneReader,
    FirstSpikes,
    DynamicsReader,
    SurrogateWidth,
)
