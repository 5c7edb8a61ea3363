"""Small, right implementations of the systems that spikewatch watches.

They are what the demo trains and what the tests measure. Each says where it differs from the
formulas that circulate, and why.
"""

from .digits import DigitsNet as DigitsNet, load_digits as load_digits
from .lif import LIF as LIF, over_time as over_time
from .steepness import AnnealedATan as AnnealedATan, LearnableATan as LearnableATan
from .surrogates import (
    ATan as ATan,
    Rectangle as Rectangle,
    SuperSpike as SuperSpike,
    Triangle as Triangle,
    spike as spike,
)
from .ternary_linear import TernaryLinear as TernaryLinear
from .ternary_spike import TernarySpike as TernarySpike


__all__ = [
    "LIF",
    "ATan",
    "AnnealedATan",
    "DigitsNet",
    "LearnableATan",
    "Rectangle",
    "SuperSpike",
    "TernaryLinear",
    "TernarySpike",
    "Triangle",
    "load_digits",
    "over_time",
    "spike",
]
