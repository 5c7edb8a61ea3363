"""A network of plain activations whose inner weights are ternary, in any of the ways of the zoo."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .digits import N_CLASSES, N_PIXELS
from .precision import Make, ternarize_middle
from .regularizers import lost_entropy
from .ternary_linear import DELTA_FACTOR, TernaryLinear
from .training import LEARNING_RATE, Training


# Scales that learn are single numbers of the size of a weight: they take small steps.
SCALE_LEARNING_RATE = 2e-4
ENTROPY_WEIGHT = 0.01


class TernaryDigitsNet(nn.Sequential):
    """Four layers; the first and the last have 8-bit weights, the two between ternary ones.

    Args:
        make: Makes a ternary layer.
        n_hidden: Width.
    """

    def __init__(self, make: Make, *, n_hidden: int = 128) -> None:
        layers: list[nn.Module] = [nn.Linear(N_PIXELS, n_hidden), nn.BatchNorm1d(n_hidden)]
        for _ in range(2):
            layers += [nn.ReLU(), nn.Linear(n_hidden, n_hidden), nn.BatchNorm1d(n_hidden)]
        super().__init__(*layers, nn.ReLU(), nn.Linear(n_hidden, N_CLASSES))
        self.ternary_frac = ternarize_middle(self, make=make, ends="8-bit")


@dataclass
class KeepingEntropy(Training):
    """A training that keeps latent weights from collapsing, and says what that adds to the loss."""

    def losses(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """The `loss`, and the `lost_entropy` in it, in nats."""
        loss, lost = self.loss(self.net(inputs), targets), torch.zeros(())
        for module in self.net.modules():
            if isinstance(module, TernaryLinear):
                size = module.weight.detach().abs().mean()
                lost = lost + lost_entropy(module.weight, alpha=size, delta=DELTA_FACTOR * size)
        return {"loss": loss + ENTROPY_WEIGHT * lost, "lost_entropy": lost}


def optimizer_of(net: nn.Module) -> torch.optim.Adam:
    """Adam, with a lower learning rate for scales that learn."""
    scales = [p for p in net.parameters() if p.dim() == 0]
    others = [p for p in net.parameters() if p.dim() > 0]
    groups = [{"params": others}, {"params": scales, "lr": SCALE_LEARNING_RATE}]
    return torch.optim.Adam(groups[: 2 if scales else 1], LEARNING_RATE)
