"""Spiking self-attention, as in Spikformer (Zhou et al., ICLR 2023) and SpikeBERT (Lv et al. 2023).

Queries, keys and values are spikes. Nothing stands in for the softmax, no "spike normalisation"
either: it is left out, since QKᵀ of spikes is not negative, and (QKᵀV)·scale goes into a spiking
neuron.
"""

import torch
from torch import Tensor, nn

from .digits import N_CLASSES
from .lif import LIF, over_time
from .steepness import AnnealedATan, LearnableATan


SIDE, PATCH, STRIDE = 8, 4, 2
N_TOKENS = ((SIDE - PATCH) // STRIDE + 1) ** 2


class SpikingLinear(nn.Module):
    """Linear, BatchNorm, LIF. Shapes (T, batch, tokens, channels).

    The surrogate goes from wide to narrow while it trains, if `advance` is called on it.
    """

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(n_in, n_out, bias=False)
        self.norm = nn.BatchNorm1d(n_out)
        self.lif = LIF(0.5, threshold=0.5, surrogate=AnnealedATan(1.0, 4.0))

    def forward(self, x: Tensor) -> Tensor:
        """Spikes, from spikes or other input."""
        currents = self.linear(x)
        return over_time(self.lif, self.norm(currents.flatten(0, -2)).reshape(currents.shape))


class SpikingSelfAttention(nn.Module):
    """LIF((Q Kᵀ) V · scale), with Q, K, V spikes. Softmax-free, and linear if K ᵀV comes first.

    Args:
        n_channels: Width.
        n_heads: Heads, which share it.
        scale: Keeps the current into the neuron within reach of its threshold.
    """

    def __init__(self, n_channels: int, *, n_heads: int = 2, scale: float = 0.06) -> None:
        super().__init__()
        self.n_heads, self.scale = n_heads, scale
        self.query = SpikingLinear(n_channels, n_channels)
        self.key = SpikingLinear(n_channels, n_channels)
        self.value = SpikingLinear(n_channels, n_channels)
        self.attention_lif = LIF(0.5, threshold=0.5, surrogate=LearnableATan())
        self.output = SpikingLinear(n_channels, n_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (T, batch, tokens, channels), and the same out."""
        q, k, v = (self._heads(make(x)) for make in (self.query, self.key, self.value))
        currents = self.scale * (q @ k.transpose(-1, -2)) @ v
        together = currents.transpose(-3, -2).flatten(-2)
        return self.output(over_time(self.attention_lif, together))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.n_heads, -1)).transpose(-3, -2)


class SpikingBlock(nn.Module):
    """x + attention, + two layers for each token by itself.

    The sums take the values 0, 1, 2 …, so the layers behind them multiply; SpikeBERT's do too.
    """

    def __init__(self, n_channels: int) -> None:
        super().__init__()
        self.attention = SpikingSelfAttention(n_channels)
        self.wide = SpikingLinear(n_channels, 2 * n_channels)
        self.narrow = SpikingLinear(2 * n_channels, n_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (T, batch, tokens, channels), and the same out."""
        x = x + self.attention(x)
        return x + self.narrow(self.wide(x))


class Spikformer(nn.Module):
    """Classifies 8 × 8 digits, as nine overlapping patches of 4 × 4.

    Args:
        n_channels: Width.
        n_steps: Time steps T; the image is a constant input current.
    """

    def __init__(self, *, n_channels: int = 48, n_steps: int = 4) -> None:
        super().__init__()
        self.n_steps = n_steps
        self.patches = nn.Conv2d(1, n_channels, PATCH, STRIDE)
        self.place = nn.Parameter(0.02 * torch.randn(N_TOKENS, n_channels))
        self.embedding = SpikingLinear(n_channels, n_channels)
        self.block = SpikingBlock(n_channels)
        self.readout = nn.Linear(n_channels, N_CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Images of shape (batch, 64); class scores of shape (batch, 10)."""
        patches = self.patches(images.reshape(-1, 1, SIDE, SIDE))
        tokens = patches.flatten(2).transpose(1, 2) + self.place
        spikes = self.block(self.embedding(tokens.expand(self.n_steps, *tokens.shape)))
        return self.readout(spikes.mean((0, 2)))
