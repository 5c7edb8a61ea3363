"""Small, right implementations of the systems that spikewatch watches.

They are what the demo trains and what the tests measure. Each says where it differs from the
formulas that circulate, and why. Whole models, with their data, are in `zoo.models`.
"""

from .channel_ternary_spike import ChannelTernarySpike as ChannelTernarySpike
from .digits import DigitsNet as DigitsNet, load_digits as load_digits
from .distillation import (
    agreement as agreement,
    distillation_loss as distillation_loss,
    feature_loss as feature_loss,
)
from .lif import LIF as LIF, over_time as over_time
from .lsq import LSQLinear as LSQLinear
from .precision import ternarize_middle as ternarize_middle
from .progressive import ProgressiveTernaryLinear as ProgressiveTernaryLinear, Schedule as Schedule
from .regularizers import (
    amplitude_variance as amplitude_variance,
    double_well as double_well,
    lost_entropy as lost_entropy,
    sparsity as sparsity,
)
from .steepness import AnnealedATan as AnnealedATan, LearnableATan as LearnableATan
from .sttn import STTNLinear as STTNLinear
from .surrogates import (
    ATan as ATan,
    Rectangle as Rectangle,
    SuperSpike as SuperSpike,
    Triangle as Triangle,
    spike as spike,
)
from .tequila import TequilaLinear as TequilaLinear
from .ternary_linear import (
    ChannelTernaryLinear as ChannelTernaryLinear,
    EightBitLinear as EightBitLinear,
    TernaryLinear as TernaryLinear,
)
from .ternary_spike import TernarySpike as TernarySpike, absorb_amplitude as absorb_amplitude
from .ttq import TTQLinear as TTQLinear


__all__ = [
    "LIF",
    "ATan",
    "AnnealedATan",
    "ChannelTernaryLinear",
    "ChannelTernarySpike",
    "DigitsNet",
    "EightBitLinear",
    "LSQLinear",
    "LearnableATan",
    "ProgressiveTernaryLinear",
    "Rectangle",
    "STTNLinear",
    "Schedule",
    "SuperSpike",
    "TTQLinear",
    "TequilaLinear",
    "TernaryLinear",
    "TernarySpike",
    "Triangle",
    "absorb_amplitude",
    "agreement",
    "amplitude_variance",
    "distillation_loss",
    "double_well",
    "feature_loss",
    "load_digits",
    "lost_entropy",
    "over_time",
    "sparsity",
    "spike",
    "ternarize_middle",
]
