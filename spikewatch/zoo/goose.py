"""A linear-attention network with ternary keys and values, and the teacher that it learns from.

After ASNN-Goose: RWKV-7 ("Goose", Peng et al. 2025), a matrix-valued state with a generalised
delta rule, whose keys and values are ternary spikes. Its adaptive threshold α·mean|x| gives a rate
of 0.37 to 0.43 by construction: a "spike density of 0.38" says nothing about its health. Its α,
said to be learnable, has no gradient. And where k and v have amplitudes that start alike, they stay
alike: only their product matters. Here thresholds learn, and amplitudes start apart.
"""

import itertools
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from .channel_ternary_spike import ChannelTernarySpike
from .digits import N_CLASSES, Digits
from .distillation import agreement, distillation_loss, feature_loss
from .training import BATCH, LEARNING_RATE, DataSet, Training


SIDE = 8
N_TEACHER_STEPS = 220
DISTILLED_SHARE = 0.5
FEATURE_WEIGHT = 0.5


class GooseLayer(nn.Module):
    """S[t] = S[t−1]·diag(w) − (S[t−1]κ)(a∘κ)ᵀ + v kᵀ, with κ = k/‖k‖; o[t] = S[t]·r.

    What S holds under the key κ is removed by the share a, before v is stored under k. The products
    v kᵀ carry both amplitudes: they cannot be absorbed into a weight. One head, and a decay w that
    is learned but, unlike RWKV-7's, does not depend on the input.

    Args:
        n_channels: Width.
        ternary: Whether k and v are ternary spikes, or real numbers.
    """

    def __init__(self, n_channels: int, *, ternary: bool) -> None:
        super().__init__()
        self.projections = nn.Linear(n_channels, 4 * n_channels, bias=False)
        self.decay = nn.Parameter(torch.linspace(0, 4, n_channels))
        self.key_norm = nn.LayerNorm(n_channels)
        self.value_norm = nn.LayerNorm(n_channels)
        ternary_spike = ChannelTernarySpike
        self.key_spike = ternary_spike(n_channels, amplitude=0.6) if ternary else nn.Identity()
        self.value_spike = ternary_spike(n_channels, amplitude=1.0) if ternary else nn.Identity()
        self.output_norm = nn.LayerNorm(n_channels)
        self.output = nn.Linear(n_channels, n_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (batch, time, channels), and the same out; output t depends on inputs ≤ t."""
        w, outputs = torch.sigmoid(self.decay), []
        state = x.new_zeros(len(x), x.shape[-1], x.shape[-1])
        for token in x.unbind(1):
            r, k, v, a = self.projections(token).chunk(4, -1)
            k, v = self.key_spike(self.key_norm(k)), self.value_spike(self.value_norm(v))
            kappa = normalize(k, dim=-1)
            held = state @ kappa[..., None]
            forgotten = held * (torch.sigmoid(a) * kappa)[:, None]
            state = state * w - forgotten + v[..., None] * k[:, None]
            outputs.append((state @ r[..., None]).squeeze(-1))
        return self.output(self.output_norm(torch.stack(outputs, 1)))


class Goose(nn.Module):
    """Reads a digit row by row, top to bottom, and classifies it at the end.

    Each row comes with its place: a sum over rows would hardly know their order.

    Args:
        n_channels: Width.
        ternary: Whether keys and values are ternary spikes: the student's are, the teacher's not.
    """

    def __init__(self, *, n_channels: int = 32, ternary: bool = True) -> None:
        super().__init__()
        self.embedding = nn.Linear(SIDE, n_channels)
        self.place = nn.Parameter(0.5 * torch.randn(SIDE, n_channels))
        self.norm = nn.LayerNorm(n_channels)
        self.layer = GooseLayer(n_channels, ternary=ternary)
        self.channel_mix = nn.Sequential(
            nn.LayerNorm(n_channels),
            nn.Linear(n_channels, 4 * n_channels),
            nn.ReLU(),
            nn.Linear(4 * n_channels, n_channels),
        )
        self.readout = nn.Linear(n_channels, N_CLASSES)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images of shape (batch, 64); class scores (batch, 10), and features (batch, channels)."""
        x = self.embedding(images.reshape(-1, SIDE, SIDE)) + self.place
        x = x + self.layer(self.norm(x))
        x = x + self.channel_mix(x)
        return self.readout(x[:, -1]), x[:, -1]


@torch.no_grad()
def accuracy(net: nn.Module, digits: Digits) -> float:
    """Share of images that the network classifies rightly."""
    return (net(digits.images)[0].argmax(1) == digits.labels).float().mean().item()


@dataclass
class Distillation(Training):
    """Half from the labels, half from the teacher's outputs, and from its features.

    Attributes:
        teacher: Not trained any more.
    """

    teacher: nn.Module = field(kw_only=True)

    def losses(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """The `loss`, its parts, and how often student and teacher agree."""
        scores, features = self.net(inputs)
        with torch.no_grad():
            wanted, its_features = self.teacher(inputs)
        ce, kd = self.loss(scores, targets), distillation_loss(scores, wanted)
        feature = feature_loss(features, its_features)
        loss = (1 - DISTILLED_SHARE) * ce + DISTILLED_SHARE * kd + FEATURE_WEIGHT * feature
        agreed = agreement(scores, wanted)
        return {"loss": loss, "ce": ce, "kd": kd, "feature_loss": feature, "agreement": agreed}

    def scores(self, test: DataSet) -> dict[str, float]:
        """Accuracy of the student, and of the teacher: the gap is what distillation left."""
        its, mine = self.score(self.teacher, test), self.score(self.net, test)
        return {"accuracy": mine, "teacher_accuracy": its, "accuracy_gap": its - mine}


def train_teacher(train: Digits, *, seed: int = 0) -> Goose:
    """A teacher that has learned, in evaluation mode."""
    teacher, shuffle = Goose(ternary=False), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(teacher.parameters(), 2 * LEARNING_RATE)
    batches = (train.batches(BATCH, generator=shuffle) for _ in itertools.count())
    endless = itertools.chain.from_iterable(batches)
    for images, labels in itertools.islice(endless, N_TEACHER_STEPS):
        loss = cross_entropy(teacher(images)[0], labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return teacher.eval().requires_grad_(False)
