"""A small language model of the kind of SpikeGPT (Zhu et al., arXiv 2302.13939).

RWKV-4 with spiking neurons behind each of its two mixings. The tokens are the neurons' time steps.
What is claimed of the original changed between versions of the paper: the first has models of 45,
125 and 260 million parameters and 5 times less energy; the last, of 46 and 216 million and 20 times
fewer *operations*. "22 times less energy" is in neither.
"""

import torch
from torch import Tensor, nn

from .lif import LIF, over_time
from .surrogates import ATan, Surrogate, spike
from .text import ALPHABET


class BinaryEmbedding(nn.Module):
    """Θ of an embedding, with a surrogate gradient. The token shift is another thing."""

    def __init__(self, n_tokens: int, n_channels: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(n_tokens, n_channels)
        self.surrogate: Surrogate = ATan()

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens of shape (batch,); spikes {0, 1} of shape (batch, channels)."""
        return spike(self.embedding(tokens), self.surrogate)


def shifted(x: Tensor) -> Tensor:
    """The token before: x[t−1], and 0 at the start; shape (batch, time, channels)."""
    return nn.functional.pad(x, (0, 0, 1, -1))


def wkv(keys: Tensor, values: Tensor, *, decay: Tensor, bonus: Tensor) -> Tensor:
    """RWKV's average of the values so far, weighted by their keys and by how long ago they were.

    o[t] = Σ_{i≤t} e^{z[t,i]}·v[i] / Σ_{i≤t} e^{z[t,i]}, with z[t,i] = k[i] − (t−1−i)·w for i < t
    and z[t,t] = k[t] + u. A softmax over i: nothing overflows.

    Args:
        keys: k, shape (batch, time, channels).
        values: v, same shape.
        decay: w > 0, shape (channels,).
        bonus: u, shape (channels,).
    """
    time = torch.arange(keys.shape[1], device=keys.device)
    ago = (time[:, None] - 1 - time[None, :])[..., None]
    weights = torch.where(ago >= 0, -ago * decay, bonus) + keys[:, None]
    weights = weights.masked_fill(ago < -1, -torch.inf)
    return (weights.softmax(2) * values[:, None]).sum(2)


class TimeMix(nn.Module):
    """RWKV's mixing over time, in place of attention: no softmax over pairs of tokens."""

    def __init__(self, n_channels: int) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.full((3, n_channels), 0.5))
        self.log_decay = nn.Parameter(torch.linspace(-3, 1, n_channels))
        self.bonus = nn.Parameter(torch.zeros(n_channels))
        self.receptance = nn.Linear(n_channels, n_channels, bias=False)
        self.key = nn.Linear(n_channels, n_channels, bias=False)
        self.value = nn.Linear(n_channels, n_channels, bias=False)
        self.output = nn.Linear(n_channels, n_channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (batch, time, channels), and the same out; output t depends on inputs ≤ t."""
        before = shifted(x)
        r, k, v = (torch.lerp(before, x, share) for share in self.mix)
        mixed = wkv(self.key(k), self.value(v), decay=self.log_decay.exp(), bonus=self.bonus)
        return self.output(torch.sigmoid(self.receptance(r)) * mixed)


class ChannelMix(nn.Module):
    """RWKV's feed-forward: squared ReLU, and a gate."""

    def __init__(self, n_channels: int) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.full((2, n_channels), 0.5))
        self.receptance = nn.Linear(n_channels, n_channels, bias=False)
        self.key = nn.Linear(n_channels, 2 * n_channels, bias=False)
        self.value = nn.Linear(2 * n_channels, n_channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (batch, time, channels), and the same out; output t depends on inputs ≤ t."""
        before = shifted(x)
        r, k = (torch.lerp(before, x, share) for share in self.mix)
        return torch.sigmoid(self.receptance(r)) * self.value(self.key(k).relu().square())


class Block(nn.Module):
    """x + spikes of the one mixing, + spikes of the other.

    The sums take the values 0, 1, 2 …: what the next layer multiplies with is no spike, and costs a
    multiplication. So it is in the original's code. Not in it is the BatchNorm in front of the
    neurons: with a LayerNorm, a fifth of them is dead after a hundred steps.
    """

    def __init__(self, n_channels: int) -> None:
        super().__init__()
        self.time_mix = TimeMix(n_channels)
        self.time_in, self.time_norm = nn.LayerNorm(n_channels), nn.BatchNorm1d(n_channels)
        self.time_lif = LIF(0.5, learn_threshold=True)
        self.channel_mix = ChannelMix(n_channels)
        self.channel_in, self.channel_norm = nn.LayerNorm(n_channels), nn.BatchNorm1d(n_channels)
        self.channel_lif = LIF(0.5, learn_beta=True)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (batch, time, channels), and the same out."""
        x = x + self._spikes(self.time_lif, self.time_norm, self.time_mix(self.time_in(x)))
        mixed = self.channel_mix(self.channel_in(x))
        return x + self._spikes(self.channel_lif, self.channel_norm, mixed)

    @staticmethod
    def _spikes(lif: LIF, norm: nn.Module, x: Tensor) -> Tensor:
        currents = norm(x.flatten(0, 1)).reshape(x.shape)
        return over_time(lif, currents.transpose(0, 1)).transpose(0, 1)


class SpikeGPT(nn.Module):
    """Foretells the next letter.

    Args:
        n_channels: Width.
        n_blocks: Depth.
        n_tokens: Size of the vocabulary.
    """

    def __init__(
        self, *, n_channels: int = 64, n_blocks: int = 2, n_tokens: int = len(ALPHABET)
    ) -> None:
        super().__init__()
        self.embedding = BinaryEmbedding(n_tokens, n_channels)
        self.blocks = nn.Sequential(*(Block(n_channels) for _ in range(n_blocks)))
        self.norm = nn.LayerNorm(n_channels)
        self.head = nn.Linear(n_channels, n_tokens)

    def forward(self, tokens: Tensor) -> Tensor:
        """Scores of the token after each, (batch, time, n_tokens); tokens (batch, time)."""
        x = torch.stack([self.embedding(token) for token in tokens.unbind(1)], 1)
        return self.head(self.norm(self.blocks(x)))
