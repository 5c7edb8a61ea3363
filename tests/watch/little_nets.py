"""One small network for each way in which libraries are called, and one training for all of them.

Every network takes x [batch, 8] and returns scores [batch, 3]; each layer that is to be watched
has 6 neurons and gets 4 time steps.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn


N_STEPS = 4


class SnntorchLoop(nn.Module):
    """States passed by hand, as in snnTorch's tutorials."""

    def __init__(self) -> None:
        import snntorch

        super().__init__()
        self.fc1, self.act1 = nn.Linear(8, 6), snntorch.Leaky(beta=0.9)
        self.drop = nn.Dropout(0.3)
        self.fc2, self.act2 = nn.Linear(6, 6), snntorch.Synaptic(alpha=0.8, beta=0.9)
        self.readout = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        mem1, (syn2, mem2), scores = self.act1.init_leaky(), self.act2.init_synaptic(), []
        for _ in range(N_STEPS):
            s, mem1 = self.act1(self.fc1(x), mem1)
            s, syn2, mem2 = self.act2(self.fc2(self.drop(s)), syn2, mem2)
            scores.append(self.readout(s))
        return torch.stack(scores).mean(0)


class SnntorchHidden(nn.Module):
    """States kept by the neurons, and reset in each forward pass."""

    def __init__(self) -> None:
        import snntorch

        super().__init__()
        self.act1 = snntorch.Leaky(beta=0.9, init_hidden=True)
        self.act2 = snntorch.Leaky(beta=0.9, init_hidden=True, learn_beta=True)
        self.body = nn.Sequential(nn.Linear(8, 6), self.act1, nn.Linear(6, 6), self.act2)
        self.readout = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        self.act1.reset_mem()
        self.act2.reset_mem()
        return torch.stack([self.readout(self.body(x)) for _ in range(N_STEPS)]).mean(0)


class Spikingjelly(nn.Module):
    """A step at a time, or the whole sequence at once."""

    def __init__(self, step_mode: str) -> None:
        from spikingjelly.activation_based import functional, layer, neuron

        super().__init__()
        self.reset = functional.reset_net
        self.act1, self.act2 = neuron.LIFNode(), neuron.ParametricLIFNode()
        self.body = nn.Sequential(
            layer.Linear(8, 6), self.act1, layer.Dropout(0.3), layer.Linear(6, 6), self.act2
        )
        self.readout = nn.Linear(6, 3)
        self.step_mode = step_mode
        functional.set_step_mode(self.body, step_mode)

    def forward(self, x: Tensor) -> Tensor:
        self.reset(self.body)
        x = 3 * x
        if self.step_mode == "m":
            spikes = self.body(x.expand(N_STEPS, *x.shape))
        else:
            spikes = torch.stack([self.body(x) for _ in range(N_STEPS)])
        return self.readout(spikes).mean(0)


class Norse(nn.Module):
    """A cell in a loop, and a layer that gets the sequence."""

    def __init__(self) -> None:
        import norse.torch as norse

        super().__init__()
        self.fc1, self.act1, self.fc2, self.act2 = (
            nn.Linear(8, 6), norse.LIFCell(), nn.Linear(6, 6), norse.LIF()
        )  # fmt: skip
        self.readout = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        state, spikes = None, []
        for _ in range(N_STEPS):
            s, state = self.act1(20 * self.fc1(x), state)
            spikes.append(s)
        s, _ = self.act2(20 * self.fc2(torch.stack(spikes)))
        return self.readout(s).mean(0)


class Sinabs(nn.Module):
    """Batch first, several spikes a step."""

    def __init__(self) -> None:
        import sinabs.layers as sl

        super().__init__()
        self.fc1, self.act1 = nn.Linear(8, 6), sl.LIF(tau_mem=5.0)
        self.fc2, self.act2 = nn.Linear(6, 6), sl.IAF()
        self.readout = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        self.act1.reset_states()
        self.act2.reset_states()
        s = self.act1(5 * self.fc1(x.unsqueeze(1).expand(-1, N_STEPS, -1)))
        return self.readout(self.act2(2 * self.fc2(s))).mean(1)


class Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u):
        ctx.save_for_backward(u)
        return (u > 0).to(u.dtype)

    @staticmethod
    def backward(ctx, gradient):
        (u,) = ctx.saved_tensors
        return gradient / (1 + u.abs()).square()


class OwnNeuron(nn.Module):
    """A neuron that only its threshold and its state give away."""

    def __init__(self) -> None:
        super().__init__()
        self.threshold, self.mem = 1.0, None

    def forward(self, x: Tensor) -> Tensor:
        u = x if self.mem is None else x + 0.8 * self.mem
        s = Spike.apply(u - self.threshold)
        self.mem = u - s.detach() * self.threshold
        return s


class TernaryLinear(nn.Linear):
    """Weights in {−α, 0, +α}, straight-through gradient (Li et al. 2016, TWN)."""

    def forward(self, x: Tensor) -> Tensor:
        w = self.weight
        kept = w.abs() > 0.7 * w.abs().mean()
        ternary = w.sign() * kept * w.abs()[kept].mean()
        return nn.functional.linear(x, w + (ternary - w).detach(), self.bias)


class Own(nn.Module):
    """Neurons and ternary layers of the user's own, without any library."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.act1 = TernaryLinear(8, 6), OwnNeuron()
        self.drop = nn.Dropout(0.3)
        self.fc2, self.act2 = TernaryLinear(6, 6), OwnNeuron()
        self.readout = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        self.act1.mem = self.act2.mem = None
        scores = []
        for _ in range(N_STEPS):
            s = self.drop(self.act1(3 * self.fc1(x)))
            scores.append(self.readout(self.act2(3 * self.fc2(s))))
        return torch.stack(scores).mean(0)


NETS: dict[str, Callable[[], nn.Module]] = {
    "snntorch-loop": SnntorchLoop,
    "snntorch-hidden": SnntorchHidden,
    "spikingjelly-s": lambda: Spikingjelly("s"),
    "spikingjelly-m": lambda: Spikingjelly("m"),
    "norse": Norse,
    "sinabs": Sinabs,
    "own": Own,
}


def build(name: str) -> nn.Module:
    """A network, the same each time."""
    torch.manual_seed(3)
    return NETS[name]()


def fit(net: nn.Module, *, n_steps: int, batch: int = 5) -> list[Tensor]:
    """Train it, the same way each time; scores of each step and gradients of the input."""
    torch.manual_seed(4)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    told = []
    for _ in range(n_steps):
        x = (2 * torch.rand(batch, 8)).requires_grad_()
        scores = net(x)
        optimizer.zero_grad()
        nn.functional.cross_entropy(scores, torch.randint(0, 3, (batch,))).backward()
        optimizer.step()
        told += [scores.detach(), x.grad]
    return told
