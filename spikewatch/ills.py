"""Illnesses for the demo, planted the way they come about in practice.

No torch here: the command line lists the names.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from torch import Tensor, nn

    from .zoo.training import Training


@dataclass(frozen=True)
class Ill:
    """One illness.

    Attributes:
        story: What went wrong, in a sentence.
        where: The part of a network that can fall ill with it; None if there is none.
        strike: Makes it go wrong there, in a healthy training.
    """

    story: str
    where: "Callable[[nn.Module], nn.Module | None]"
    strike: "Callable[[Training, Any], None]"

    def plant(self, training: "Training") -> bool:
        """Make a healthy training ill; False if its network cannot have this illness."""
        part = self.where(training.net)
        if part is not None:
            self.strike(training, part)
        return part is not None


def _inner_neuron(net: "nn.Module") -> "nn.Module | None":
    """The second layer of LIF neurons, or the only one."""
    from .zoo import LIF

    neurons = [m for m in net.modules() if isinstance(m, LIF)]
    return neurons[min(1, len(neurons) - 1)] if neurons else None


def _with_surrogate(net: "nn.Module") -> "nn.Module | None":
    from .zoo.equilibrium import EquilibriumNet

    return None if isinstance(net, EquilibriumNet) else _inner_neuron(net)


def _norm_before_neurons(net: "nn.Module") -> "nn.Module | None":
    """The normalisation in front of the first LIF: it has the same name, but for that word."""
    from .zoo import LIF

    parts = dict(net.named_modules())
    lifs = [name for name, m in parts.items() if isinstance(m, LIF) and "lif" in name]
    norms = (parts.get(name.replace("lif", "norm")) for name in lifs)
    return next((norm for norm in norms if norm is not None), None)


def _with(*attributes: str) -> "Callable[[nn.Module], nn.Module | None]":
    return lambda net: next(
        (m for m in net.modules() if any(hasattr(m, a) for a in attributes)), None
    )


def _dead_neurons(training: "Training", neuron: Any) -> None:  # noqa: ARG001
    neuron.threshold.data.fill_(30.0)


def _saturated(training: "Training", norm: Any) -> None:  # noqa: ARG001
    norm.bias.data.fill_(6.0)


def _vanishing_gradient(training: "Training", neuron: Any) -> None:  # noqa: ARG001
    from .zoo import SuperSpike

    del neuron.surrogate  # it may be a module, and this one is none
    neuron.surrogate = SuperSpike(1e4)


def _runaway_amplitude(training: "Training", neuron: Any) -> None:
    (group,) = training.optimizer.param_groups
    group["params"] = [p for p in group["params"] if p is not neuron.amplitude]
    training.optimizer.add_param_group({"params": [neuron.amplitude], "lr": 100 * group["lr"]})


def _ternary_collapse(training: "Training", layer: Any) -> None:  # noqa: ARG001
    if hasattr(layer, "delta_factor"):
        layer.delta_factor = 3.5
    else:
        layer.delta_share = 1.0


def _nan(training: "Training", net: Any) -> None:  # noqa: ARG001
    def by_hand(scores: "Tensor", labels: "Tensor") -> "Tensor":
        sharp = (100 * scores).flatten(0, -2).softmax(1)
        return -sharp.gather(1, labels.reshape(-1, 1)).log().mean()

    training.loss = by_hand


ILLS: dict[str, Ill] = {
    "dead-neurons": Ill(
        "the threshold of one layer is thirty times too high", _inner_neuron, _dead_neurons
    ),
    "saturated": Ill(
        "a large bias keeps the first layer firing all the time", _norm_before_neurons, _saturated
    ),
    "vanishing-gradient": Ill(
        "the surrogate of one layer is far too narrow", _with_surrogate, _vanishing_gradient
    ),
    "runaway-amplitude": Ill(
        "the amplitude learns a hundred times faster than the weights",
        _with("amplitude"),
        _runaway_amplitude,
    ),
    "ternary-collapse": Ill(
        "Δ of the ternary weights is five times too large",
        _with("delta_factor", "delta_share"),
        _ternary_collapse,
    ),
    "nan": Ill("a hand-written loss takes the logarithm of 0", lambda net: net, _nan),
}
