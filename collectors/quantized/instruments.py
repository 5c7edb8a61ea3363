"""The instruments that read quantized weights, and where a new one is hung up."""

from .counts import LatentHistogram, LevelCounts, ScaleCounts
from .latents import LatentCounts, UpdateRatio
from .reading import WeightInstrument, Weights
from .scales import OwnScales
from .transitions import Transitions


__all__ = ["INSTRUMENTS", "WeightInstrument", "Weights"]

INSTRUMENTS: tuple[type[WeightInstrument], ...] = (
    LevelCounts,
    ScaleCounts,
    LatentHistogram,
    LatentCounts,
    UpdateRatio,
    OwnScales,
    Transitions,
)
