"""A spiking transformer: self-attention without softmax between queries, keys and values of spikes.

After Zhou et al. 2023, "Spikformer: When Spiking Neural Network Meets Transformer", eqs. 4-8.
"""

import torch
from torch import Tensor, nn

from .training import N_CLASSES, Built, digit_batches, trained


def spiking_transformer(
    device: torch.device, *, batch: int, n_steps: int, dim: int = 128, n_blocks: int = 2
) -> Built:
    """Digits as 16 patches of 2 × 2, multi-step LIF nodes of SpikingJelly throughout."""
    from spikingjelly.activation_based import functional, neuron

    torch.manual_seed(0)
    blocks = [_Block(dim, n_heads=4) for _ in range(n_blocks)]
    net = nn.Sequential(_Spiking(4, dim), *blocks).append(_Head(dim)).to(device)
    functional.set_step_mode(net, "m")

    def logits(x: Tensor) -> Tensor:
        functional.reset_net(net)
        patches = nn.functional.unfold(4 * x, 2, stride=2).transpose(1, 2)
        return net(patches.expand(n_steps, *patches.shape))

    batches = digit_batches(device, batch=batch)
    return trained(net, logits, batches, neurons=neuron.LIFNode)


class _Spiking(nn.Module):
    """Linear, BatchNorm over all tokens, LIF; shape (T, B, tokens, features)."""

    def __init__(self, n_in: int, n_out: int) -> None:
        from spikingjelly.activation_based import neuron, surrogate

        super().__init__()
        self.linear = nn.Linear(n_in, n_out, bias=False)
        self.norm = nn.BatchNorm1d(n_out)
        self.lif = neuron.LIFNode(surrogate_function=surrogate.ATan(), detach_reset=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(x)
        return self.lif(self.norm(x.flatten(0, -2)).view(x.shape))


class _Attention(nn.Module):
    """Spiking self-attention: LIF(Q Kᵀ V · scale), no softmax, for spikes are never negative."""

    def __init__(self, dim: int, n_heads: int) -> None:
        from spikingjelly.activation_based import neuron

        super().__init__()
        self.n_heads = n_heads
        self.q, self.k, self.v = (_Spiking(dim, dim) for _ in range(3))
        self.lif = neuron.LIFNode(v_threshold=0.5, detach_reset=True)
        self.out = _Spiking(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            part(x).unflatten(-1, (self.n_heads, -1)).transpose(-3, -2)
            for part in (self.q, self.k, self.v)
        )
        mixed = (q @ k.transpose(-2, -1)) @ v * 0.125
        return self.out(self.lif(mixed.transpose(-3, -2).flatten(-2)))


class _Block(nn.Module):
    def __init__(self, dim: int, n_heads: int) -> None:
        super().__init__()
        self.attention = _Attention(dim, n_heads)
        self.mlp = nn.Sequential(_Spiking(dim, 2 * dim), _Spiking(2 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(x)
        return x + self.mlp(x)


class _Head(nn.Module):
    """Rates over time and tokens, to logits."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, N_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.mean((0, 2)))
