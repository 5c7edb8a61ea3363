"""The instruments that read quantized weights, and where a new one is hung up."""

from .annealing import AnnealingStage
from .counts import LatentHistogram, LevelCounts, ScaleCounts
from .estimator import EstimatorGradients
from .latents import LatentCounts, UpdateRatio
from .precision import Precision
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
    EstimatorGradients,
    Transitions,
    AnnealingStage,
    Precision,
)
