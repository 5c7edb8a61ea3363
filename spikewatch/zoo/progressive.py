"""From full precision over soft to hard ternary weights while training.

The three phases are full precision; a soft ternary function whose temperature τ falls; and its
limit τ → 0. The soft phase begins hot, where the function is nearly linear, and not, as is
sometimes written, at a low temperature: there it would be nearly hard at once.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .quantized_linear import a_tensor
from .ternary_linear import Ternarize, TernaryLinear


Stage = Literal["full", "soft", "hard"]


def soft_ternary(weight: Tensor, *, delta: Tensor, temperature: float) -> Tensor:
    """α·t with t = ½(tanh((w − Δ)/τ) + tanh((w + Δ)/τ)), τ in units of Δ.

    Hot, it is w; for τ → 0 it is α·sign(w) beyond Δ and 0 within. α = Σwt/Σt² is the least-squares
    scale; it and Δ are taken as constants in the gradient, which is exact otherwise.

    Args:
        weight: Latent weights, any shape.
        delta: Δ, a scalar.
        temperature: τ/Δ.
    """
    tau = temperature * delta
    soft = (torch.tanh((weight - delta) / tau) + torch.tanh((weight + delta) / tau)) / 2
    with torch.no_grad():
        alpha = (weight * soft).sum() / soft.square().sum().clamp(min=1e-12)
    return alpha * soft


@dataclass(frozen=True)
class Schedule:
    """When each phase begins, and how τ falls: geometrically, from `hot` to `cold`.

    Attributes:
        soft_from: Share of the training after which weights become soft.
        hard_from: Share after which they are ternary.
        hot: τ/Δ at the beginning of the soft phase.
        cold: τ/Δ at its end.
    """

    soft_from: float = 0.2
    hard_from: float = 0.7
    hot: float = 4.0
    cold: float = 0.1

    def at(self, progress: float) -> tuple[Stage, float]:
        """Phase and τ/Δ at the share `progress`, 0 to 1, of the training."""
        if progress < self.soft_from:
            return "full", self.hot
        if progress >= self.hard_from:
            return "hard", 0.0
        passed = (progress - self.soft_from) / (self.hard_from - self.soft_from)
        return "soft", self.hot * (self.cold / self.hot) ** passed


class ProgressiveTernaryLinear(TernaryLinear):
    """TWN that is approached step by step; call `advance` in the training loop.

    Args:
        in_features: Size of the input's last dimension.
        out_features: Size of the output's.
        bias: Whether to add a bias, which stays in full precision.
        schedule: When each phase begins.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool = True,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(in_features, out_features, bias=bias)
        self.schedule = schedule or Schedule()
        self.advance(0.0)

    def advance(self, progress: float) -> None:
        """Set phase and temperature for the share `progress`, 0 to 1, of the training."""
        self.stage, self.temperature = self.schedule.at(progress)

    def quantized_weight(self) -> Tensor:
        """What the layer multiplies with, shape (out, in); its gradient reaches `weight`."""
        if self.stage == "full":
            return self.weight
        if self.stage == "hard":
            return a_tensor(Ternarize.apply(self.weight, self.delta_factor, False))
        delta = self.delta_factor * self.weight.detach().abs().mean()
        return soft_ternary(self.weight, delta=delta, temperature=self.temperature)

    def extra_repr(self) -> str:
        """What `print(model)` shows."""
        return f"{super().extra_repr()}, stage={self.stage!r}, temperature={self.temperature:g}"
