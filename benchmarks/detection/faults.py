"""Parts with the errors that are made in practice."""

from typing import Any

import torch
from torch import Tensor, nn

from spikewatch.zoo import LIF, LSQLinear, TernarySpike, TTQLinear, spike
from spikewatch.zoo.lsq import RoundToStep
from spikewatch.zoo.quantized_linear import a_tensor
from spikewatch.zoo.ternary_spike import TernarySign
from spikewatch.zoo.training import Training


class Detach(nn.Module):
    """Cuts the graph: `x.detach()` where it was left over from debugging."""

    def forward(self, x: Tensor) -> Tensor:
        """The same values without a past."""
        return x.detach()


class FrozenAlpha(TernarySpike):
    """α is used under `no_grad`: it is called learnable, and has no gradient."""

    def forward(self, x: Tensor) -> Tensor:
        """Spikes {−a, 0, +a}."""
        with torch.no_grad():
            theta = self.threshold()
            self._follow(x)
        return self.amplitude * TernarySign.apply(x, theta, self.surrogate)


class ScaledLIF(LIF):
    """Multiplies its spikes by a constant, which the layer behind multiplies by once more."""

    gain = 5.0

    def forward(self, current: Tensor, mem: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Spikes in {0, 5} and v."""
        spikes, mem = super().forward(current, mem)
        return self.gain * spikes, mem


class RateNormalisedLIF(LIF):
    """Divides its spikes by their mean rate, also where there are none."""

    def forward(self, current: Tensor, mem: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Spikes in {0, 1/rate} and v."""
        spikes, mem = super().forward(current, mem)
        return spikes / spikes.mean(), mem


class UnboundedLIF(nn.Module):
    """A neuron as one writes it: a β that learns, and nothing that keeps it within [0, 1]."""

    def __init__(self, beta: float = 0.9) -> None:
        super().__init__()
        self.beta = nn.Parameter(torch.tensor(beta))
        self.threshold = 1.0
        self.surrogate = LIF().surrogate

    def forward(self, current: Tensor, mem: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Spikes in {0, 1} and v."""
        potential = current if mem is None else self.beta * mem + current
        spikes = spike(potential - self.threshold, self.surrogate)
        return spikes, potential - self.threshold * spikes.detach()


class _WrongSign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, latent: Tensor, w_p: Tensor, w_n: Tensor, delta: Tensor) -> Tensor:
        positive, negative = latent > delta, latent < -delta
        ctx.save_for_backward(positive, negative, w_p, w_n)
        return w_p * positive - w_n * negative

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        positive, negative, w_p, w_n = ctx.saved_tensors
        g = grad_outputs[0]
        scale = torch.where(positive, w_p, torch.where(negative, w_n, 1.0))
        return g * scale, (g * positive).sum(), (g * negative).sum(), None


class WrongSignTTQ(TTQLinear):
    """The gradient of W_n as the paper's equation has it: without the minus."""

    def quantized_weight(self) -> Tensor:
        """What the layer multiplies with."""
        delta = self.delta_share * self.weight.detach().abs().max()
        return a_tensor(_WrongSign.apply(self.weight, self.w_p, self.w_n, delta))


class FrozenStepLSQ(LSQLinear):
    """The step size takes part as a number: it is called learnable, and has no gradient."""

    def quantized_weight(self) -> Tensor:
        """What the layer multiplies with."""
        return a_tensor(RoundToStep.apply(self.weight, self.step.detach(), -1, 1))


def own_rate(training: Training, *parameters: nn.Parameter, times: float) -> None:
    """Give parameters a learning rate of their own."""
    for group in training.optimizer.param_groups:
        group["params"] = [p for p in group["params"] if all(p is not q for q in parameters)]
    rate = training.optimizer.param_groups[0]["lr"]
    training.optimizer.add_param_group({"params": list(parameters), "lr": times * rate})


def faster(training: Training, times: float) -> None:
    """Multiply every learning rate."""
    for group in training.optimizer.param_groups:
        group["lr"] *= times


def penalise(training: Training, penalty: Any) -> None:
    """Add something to the loss."""
    loss = training.loss
    training.loss = lambda scores, targets: loss(scores, targets) + penalty()


def after_each_step(training: Training, change: Any) -> None:
    """Change parameters after each optimizer step, as loops that clamp do."""

    def hook(*_: object) -> None:
        with torch.no_grad():
            change()

    training.optimizer.register_step_post_hook(hook)


def feed(training: Training, change: Any) -> None:
    """Change the inputs before the network gets them."""
    training.net.register_forward_pre_hook(lambda _, inputs: (change(inputs[0]), *inputs[1:]))


def skip_nonfinite_steps(training: Training) -> None:
    """Leave out steps with non-finite gradients, as AMP's loss scaling does."""
    step = training.optimizer.step

    def guarded(*args: Any, **kwargs: Any) -> Any:
        grads = [p.grad for p in training.net.parameters() if p.grad is not None]
        if all(bool(g.isfinite().all()) for g in grads):
            return step(*args, **kwargs)
        return None

    training.optimizer.step = guarded  # type: ignore[method-assign]
