"""Surrogates whose steepness is learned, or annealed while training.

The two are often confused, and with a third: what was published as learnable surrogate gradients
(LSG; Lian et al., IJCAI 2023) lets the *decay* learn, which spreads or narrows the distribution of
the membrane potential under the surrogate. Annealing from wide to narrow is the evolutionary
surrogate gradient of IM-Loss (Guo et al., NeurIPS 2022).
"""

import math

import torch
from torch import Tensor, nn


ALPHA_RANGE = (0.2, 20.0)


class _ATan(nn.Module):
    """σ′ = α / (2(1 + (π/2·α·d)²)) with an α that changes; see `surrogates.ATan`."""

    alpha: Tensor

    def _alpha(self) -> Tensor:
        return self.alpha.clamp(*ALPHA_RANGE)

    @property
    def peak(self) -> float:
        """α/2."""
        return self._alpha().item() / 2

    @property
    def area(self) -> float:
        """1, whatever α: a change of α changes the width, not the mean gradient."""
        return 1.0

    @property
    def fwhm(self) -> float:
        """4/(πα)."""
        return 4 / (math.pi * self._alpha().item())

    @torch.no_grad()
    def derivative(self, distance: Tensor) -> Tensor:
        """σ′ at each element of `distance`; same shape and dtype."""
        alpha = self._alpha().to(distance.dtype)
        return alpha / 2 / (1 + (math.pi / 2 * alpha * distance) ** 2)

    def extra_repr(self) -> str:
        """What `print(model)` shows."""
        return f"alpha={self.alpha.item():g}"


class LearnableATan(_ATan):
    """ATan whose α is a parameter.

    Θ stands for the smooth σ(d; α) = ½ + arctan(π/2·α·d)/π, so that α gets the gradient
    ∂σ/∂α = d·σ′(d)/α: positive for neurons above the threshold, negative for those below.

    Args:
        alpha: Initial α. Used clamped to [0.2, 20]; beyond, it gets no gradient.
    """

    def __init__(self, alpha: float = 2.0) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.tensor(alpha))

    @property
    def trained(self) -> Tensor:
        """The parameter that learns through each spike."""
        return self.alpha

    @torch.no_grad()
    def trained_slope(self, distance: Tensor) -> Tensor:
        """∂σ/∂α at each element of `distance`."""
        low, high = ALPHA_RANGE
        inside = (self.alpha >= low) & (self.alpha <= high)
        return distance * self.derivative(distance) / self._alpha() * inside


class AnnealedATan(_ATan):
    """ATan that goes from wide, where many neurons get gradient, to narrow, where it is precise.

    α goes geometrically from `start` to `end`, and is kept in the `state_dict`.

    Args:
        start: α at the beginning.
        end: α at the end.
    """

    def __init__(self, start: float = 1.0, end: float = 8.0) -> None:
        super().__init__()
        self.start, self.end = start, end
        self.alpha: Tensor
        self.register_buffer("alpha", torch.tensor(start))

    def advance(self, progress: float) -> None:
        """Set α for the share `progress`, 0 to 1, of the training that has passed."""
        progress = min(max(progress, 0.0), 1.0)
        self.alpha.fill_(self.start * (self.end / self.start) ** progress)
