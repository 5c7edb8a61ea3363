"""A spiking network trained at its equilibrium, without surrogate: after SpikingBERT.

Bal & Sengupta (AAAI 2024): driven by a constant input, the average spiking rates a of a recurrent
spiking network converge, to a fixed point a* = f(a*). The spikes are simulated without a graph;
the gradient comes from the fixed point alone (implicit function theorem). So there is no σ′ in this
network, and no σ′ to monitor; whether the rates *have* converged is what has to be watched. Memory
does not grow with the number of time steps: O(layers), where backpropagation through time takes
O(layers × T).
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .digits import N_CLASSES, N_PIXELS
from .lif import LIF
from .training import Training


# Largest singular value that the recurrent weights may have: below 1 there is one fixed point.
CONTRACTION = 0.8
TOLERANCE = 1e-6
MAX_ITERATIONS = 100


class AtEquilibrium(torch.autograd.Function):
    """The identity forward; backward v = g + Jᵀv solved for v, with J = ∂f/∂a at the fixed point.

    With a* = f(a*, p), ∂L/∂p = (∂f/∂p)ᵀ v: what autograd makes of v behind this node.
    """

    @staticmethod
    def forward(ctx: Any, rates: Tensor, weight: Tensor, slope: Tensor) -> Tensor:
        """`rates` (batch, n) as they are; J = slope·weight, slope (batch, n), weight (n, n)."""
        ctx.save_for_backward(weight, slope)
        return rates.view_as(rates)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        """The solution v, by iteration; it converges as f contracts."""
        weight, slope = ctx.saved_tensors
        g = v = grad_outputs[0]
        for _ in range(MAX_ITERATIONS):
            before, v = v, g + (v * slope) @ weight
            if (v - before).abs().max() <= TOLERANCE * v.abs().max():
                break
        return v, None, None


class EquilibriumNet(nn.Module):
    """Pixels → a recurrent population of LIF neurons at its equilibrium → class scores.

    The rate of a neuron is the average of its spikes with weights β^(T−t). For a soft reset, the
    average current equals θ·a, but for the rest of the membrane potential, of the order 1 − β; so

        a* = f(a*) = clamp((U·x + b + g·W·a*)/θ, 0, 1),    g = min(1, 0.8/‖W‖₂).

    `missed` is mean |f(a) − a| of the rates last simulated: how far they were from settling.

    Args:
        n_hidden: Neurons.
        n_steps: Time steps of the simulation.
        beta: Decay β.
    """

    def __init__(self, *, n_hidden: int = 64, n_steps: int = 30, beta: float = 0.9) -> None:
        super().__init__()
        self.n_steps = n_steps
        self.missed = float("nan")
        self.encoder = nn.Linear(N_PIXELS, n_hidden)
        self.recurrent = nn.Linear(n_hidden, n_hidden, bias=False)
        self.neurons = LIF(beta)
        self.readout = nn.Linear(n_hidden, N_CLASSES)
        nn.init.constant_(self.encoder.bias, 0.5)

    def forward(self, images: Tensor) -> Tensor:
        """Images of shape (batch, 64); class scores of shape (batch, 10)."""
        drive, gain = self.encoder(images), self.gain()
        with torch.no_grad():
            simulated = self.simulate(drive, gain)
        rates = self.settled(drive, gain, simulated)
        self.missed = (rates - simulated).detach().abs().mean().item()
        return self.readout(rates)

    def settled(self, drive: Tensor, gain: Tensor, rates: Tensor) -> Tensor:
        """f(a), with the gradient of the fixed point.

        Args:
            drive: U·x + b, shape (batch, n).
            gain: g, a scalar.
            rates: a, close to the fixed point, shape (batch, n); no gradient flows into them.

        Returns:
            Rates of the same shape.
        """
        theta = self.neurons.threshold
        wanted = (drive + gain * self.recurrent(rates.detach())) / theta
        slope = ((wanted > 0) & (wanted < 1)).detach() / theta
        weight = (gain * self.recurrent.weight).detach()
        return AtEquilibrium.apply(wanted.clamp(0, 1), weight, slope)

    def gain(self) -> Tensor:
        """The gain g = min(1, 0.8/‖W‖₂), with its gradient."""
        # A training that has gone wrong goes on with NaN, as others do; the norm would raise.
        norm = torch.linalg.matrix_norm(self.recurrent.weight.nan_to_num(), 2)
        return (CONTRACTION / norm).clamp(max=1)

    def simulate(self, drive: Tensor, gain: Tensor) -> Tensor:
        """Average rates, (batch, n), of a simulation with spikes, from rest."""
        beta = float(self.neurons.beta)
        spikes, total = torch.zeros_like(drive), torch.zeros_like(drive)
        mem, weight = None, 0.0
        for _ in range(self.n_steps):
            spikes, mem = self.neurons(drive + gain * self.recurrent(spikes), mem)
            total, weight = beta * total + spikes, beta * weight + 1
        return total / weight


@dataclass
class SettlingTraining(Training):
    """A training that tells how far the simulated rates were from their equilibrium."""

    def losses(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """The `loss`, and the `equilibrium_residual`."""
        loss = self.loss(self.net(inputs), targets)
        return {"loss": loss, "equilibrium_residual": torch.tensor(self.net.missed)}
