"""Illnesses for the demo, planted the way they come about in practice.

No torch here: the command line lists the names.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from torch import Tensor

    from .zoo.training import Training


@dataclass(frozen=True)
class Ill:
    """One illness.

    Attributes:
        story: What went wrong, in a sentence.
        plant: Makes it go wrong in a healthy training.
    """

    story: str
    plant: Callable[["Training"], None]


def _dead_neurons(training: "Training") -> None:
    training.net.hidden_lif.threshold.fill_(30.0)


def _saturated(training: "Training") -> None:
    training.net.encoder_norm.bias.data.fill_(6.0)


def _vanishing_gradient(training: "Training") -> None:
    from .zoo import SuperSpike

    training.net.hidden_lif.surrogate = SuperSpike(1e4)


def _runaway_amplitude(training: "Training") -> None:
    amplitude = training.net.ternary_spike.amplitude
    (group,) = training.optimizer.param_groups
    group["params"] = [p for p in group["params"] if p is not amplitude]
    training.optimizer.add_param_group({"params": [amplitude], "lr": 100 * group["lr"]})


def _ternary_collapse(training: "Training") -> None:
    training.net.ternary.delta_factor = 3.5


def _nan(training: "Training") -> None:
    def by_hand(scores: "Tensor", labels: "Tensor") -> "Tensor":
        sharp = (100 * scores).softmax(1)
        return -sharp.gather(1, labels[:, None]).log().mean()

    training.loss = by_hand


ILLS: dict[str, Ill] = {
    "dead-neurons": Ill("the threshold of one layer is thirty times too high", _dead_neurons),
    "saturated": Ill("a large bias keeps the first layer firing all the time", _saturated),
    "vanishing-gradient": Ill("the surrogate of one layer is far too narrow", _vanishing_gradient),
    "runaway-amplitude": Ill(
        "the amplitude learns a hundred times faster than the weights", _runaway_amplitude
    ),
    "ternary-collapse": Ill("Δ of the ternary weights is five times too large", _ternary_collapse),
    "nan": Ill("a hand-written loss takes the logarithm of 0", _nan),
}
