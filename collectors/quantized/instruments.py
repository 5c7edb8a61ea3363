"""The instruments that read quantized weights, and where a new one is hung up."""

from .counts import LatentHistogram, LevelCounts, ScaleCounts
from .reading import WeightInstrument, Weights
from .transitions import Transitions


__all__ = ["INSTRUMENTS", "WeightInstrument", "Weights"]

INSTRUMENTS: tuple[type[WeightInstrument], ...] = (
    LevelCounts,
    ScaleCounts,
    LatentHistogram,
    Transitions,
)
