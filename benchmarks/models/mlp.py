"""Networks of Linear layers: a loop over time, many small calls, where each hook counts most."""

import torch
from torch import Tensor, nn

from .training import N_CLASSES, Built, digit_batches, trained


# Digits in [0, 1] drive few neurons over the threshold at first; this makes all of them take part.
_GAIN = 2.0


def snntorch_mlp(device: torch.device, *, n_hidden: int, batch: int, n_steps: int) -> Built:
    """Two Leaky layers with the loop over time in `forward`."""
    import snntorch as snn

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.lif1 = nn.Linear(64, n_hidden), snn.Leaky(beta=0.9)
            self.fc2, self.lif2 = nn.Linear(n_hidden, N_CLASSES), snn.Leaky(beta=0.9)

        def forward(self, x: Tensor) -> Tensor:
            mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
            outputs = []
            for _ in range(n_steps):
                spikes, mem1 = self.lif1(self.fc1(x), mem1)
                spikes, mem2 = self.lif2(self.fc2(spikes), mem2)
                outputs.append(spikes)
            return torch.stack(outputs).sum(0)

    torch.manual_seed(0)
    net = Net().to(device)
    batches = digit_batches(device, batch=batch)
    return trained(net, lambda x: net(_GAIN * x.flatten(1)), batches, neurons=snn.Leaky)


def norse_mlp(device: torch.device, *, n_hidden: int, batch: int, n_steps: int) -> Built:
    """Two LIF cells in a SequentialState, which hands their states on from call to call."""
    import norse.torch as norse

    torch.manual_seed(0)
    net = norse.SequentialState(
        nn.Linear(64, n_hidden), norse.LIFCell(), nn.Linear(n_hidden, N_CLASSES), norse.LIFCell()
    ).to(device)

    def logits(x: Tensor) -> Tensor:
        x, state, outputs = 4 * _GAIN * x.flatten(1), None, []
        for _ in range(n_steps):
            spikes, state = net(x, state)
            outputs.append(spikes)
        return torch.stack(outputs).sum(0)

    return trained(net, logits, digit_batches(device, batch=batch), neurons=norse.LIFCell)
