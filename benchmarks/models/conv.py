"""Convolutional networks: few calls with all time steps in them, where reading tensors counts."""

import torch
from torch import Tensor, nn

from .training import N_CLASSES, Built, digit_batches, trained


def spikingjelly_conv(device: torch.device, *, batch: int, n_steps: int) -> Built:
    """LIF nodes in multi-step mode: one call for each batch, shape (T, B, …)."""
    from spikingjelly.activation_based import functional, layer, neuron

    torch.manual_seed(0)
    net = nn.Sequential(
        layer.Conv2d(1, 16, 3, padding=1),
        layer.BatchNorm2d(16),
        neuron.LIFNode(),
        layer.MaxPool2d(2),
        layer.Conv2d(16, 32, 3, padding=1),
        layer.BatchNorm2d(32),
        neuron.LIFNode(),
        layer.MaxPool2d(2),
        layer.Flatten(),
        layer.Linear(32 * 16, 64),
        layer.BatchNorm1d(64),
        neuron.LIFNode(),
        layer.Linear(64, N_CLASSES),
        layer.BatchNorm1d(N_CLASSES),
        neuron.LIFNode(),
    ).to(device)
    functional.set_step_mode(net, "m")

    def logits(x: Tensor) -> Tensor:
        functional.reset_net(net)
        return net((4 * x).expand(n_steps, *x.shape)).sum(0)

    batches = digit_batches(device, batch=batch, side=16)
    return trained(net, logits, batches, neurons=neuron.LIFNode)


def sinabs_conv(device: torch.device, *, batch: int, n_steps: int) -> Built:
    """LIF layers with batch and time in one axis, several spikes to a time step."""
    import sinabs
    from sinabs import layers

    def lif() -> nn.Module:
        return layers.LIFSqueeze(tau_mem=4.0, batch_size=batch)

    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        lif(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        lif(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 16, 64),
        nn.BatchNorm1d(64),
        lif(),
        nn.Linear(64, N_CLASSES),
        nn.BatchNorm1d(N_CLASSES),
        lif(),
    ).to(device)

    def logits(x: Tensor) -> Tensor:
        sinabs.reset_states(net)
        rows = (4 * x).repeat_interleave(n_steps, 0)
        return net(rows).unflatten(0, (batch, n_steps)).sum(1)

    batches = digit_batches(device, batch=batch)
    return trained(net, logits, batches, neurons=layers.LIFSqueeze)
