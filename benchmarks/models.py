"""Trainings to be timed: a model, and a step of its training."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn


Step = Callable[[], None]


@dataclass(frozen=True)
class Case:
    """A training that can be built twice, alike."""

    name: str
    build: Callable[[], tuple[nn.Module, Step]]


def _stepper(net: nn.Module, forward: Callable[[], torch.Tensor], n_classes: int) -> Step:
    optimizer = torch.optim.SGD(net.parameters(), 0.05)
    batch = forward().shape[0]
    target = torch.randint(0, n_classes, (batch,))

    def step() -> None:
        loss = nn.functional.cross_entropy(forward(), target)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step


def snntorch_mlp(n_hidden: int, batch: int, n_steps: int) -> tuple[nn.Module, Step]:
    """Two Leaky layers, a loop over time outside of the model's modules."""
    import snntorch as snn

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.lif1 = nn.Linear(64, n_hidden), snn.Leaky(beta=0.9)
            self.fc2, self.lif2 = nn.Linear(n_hidden, 10), snn.Leaky(beta=0.9)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            mem1, mem2, out = self.lif1.init_leaky(), self.lif2.init_leaky(), 0.0
            for _ in range(n_steps):
                spikes, mem1 = self.lif1(self.fc1(x), mem1)
                spikes, mem2 = self.lif2(self.fc2(spikes), mem2)
                out = out + spikes
            return torch.as_tensor(out)

    torch.manual_seed(0)
    net, x = Net(), 2 * torch.rand(batch, 64)
    return net, _stepper(net, lambda: net(x), 10)


def spikingjelly_conv(batch: int, n_steps: int) -> tuple[nn.Module, Step]:
    """Two convolutions and two Linear layers with LIF nodes, multi-step."""
    from spikingjelly.activation_based import functional, layer, neuron

    torch.manual_seed(0)
    net = nn.Sequential(
        layer.Conv2d(1, 16, 3, padding=1),
        neuron.LIFNode(),
        layer.MaxPool2d(2),
        layer.Conv2d(16, 32, 3, padding=1),
        neuron.LIFNode(),
        layer.MaxPool2d(2),
        layer.Flatten(),
        layer.Linear(32 * 16, 64),
        neuron.LIFNode(),
        layer.Linear(64, 10),
        neuron.LIFNode(),
    )
    functional.set_step_mode(net, "m")
    x = 2 * torch.rand(n_steps, batch, 1, 16, 16)

    def forward() -> torch.Tensor:
        functional.reset_net(net)
        return net(x).mean(0)

    return net, _stepper(net, forward, 10)


CASES = (
    Case("snntorch mlp, 2 × 64", lambda: snntorch_mlp(64, 16, 4)),
    Case("snntorch mlp, 2 × 1024", lambda: snntorch_mlp(1024, 64, 16)),
    Case("spikingjelly conv", lambda: spikingjelly_conv(16, 8)),
)
