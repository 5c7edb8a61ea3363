"""The healthy trainings that illnesses are planted in: real ones, of a second or two on one core.

Digits, or letters of the text that comes with Python; networks of the zoo, of snnTorch and of
SpikingJelly, with and without normalisation.
"""

import itertools
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from spikewatch.zoo import LIF, DigitsNet, TernaryLinear, TernarySpike, TTQLinear
from spikewatch.zoo.digits import N_CLASSES, N_PIXELS
from spikewatch.zoo.goose import Goose, accuracy as goose_accuracy
from spikewatch.zoo.models import MODELS, Model
from spikewatch.zoo.spike_gpt import SpikeGPT
from spikewatch.zoo.ternary_digits import TernaryDigitsNet
from spikewatch.zoo.text import letter_accuracy, letter_loss, load_text
from spikewatch.zoo.training import LEARNING_RATE, Training

from .distilled import distilled


N_STEPS = 8
_GAIN = 2.0  # pixels in [0, 1] drive few neurons over the threshold at first


class PlainNet(nn.Module):
    """Two layers without normalisation, whose thresholds learn."""

    def __init__(self, n_hidden: int = 96) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(N_PIXELS, n_hidden), nn.Linear(n_hidden, n_hidden)
        with torch.no_grad():
            self.fc1.bias.add_(0.2)  # or a few of the first neurons never fire
        self.lif1, self.lif2 = LIF(learn_threshold=True), LIF(learn_threshold=True)
        self.readout = nn.Linear(n_hidden, N_CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Images of shape (batch, 64); scores averaged over time."""
        mem1 = mem2 = None
        scores = []
        for _ in range(N_STEPS):
            spikes, mem1 = self.lif1(self.fc1(_GAIN * images), mem1)
            spikes, mem2 = self.lif2(self.fc2(spikes), mem2)
            scores.append(self.readout(spikes))
        return torch.stack(scores).mean(0)


class DeepNet(nn.Module):
    """Six normalised layers. The loss sees the last one's last time step, as a trace of its spikes.

    Args:
        n_layers: Depth.
        n_hidden: Width.
    """

    def __init__(self, n_layers: int = 6, n_hidden: int = 48) -> None:
        super().__init__()
        sizes = [N_PIXELS] + [n_hidden] * n_layers
        self.layers = nn.ModuleList(
            nn.Linear(n_in, n_out) for n_in, n_out in itertools.pairwise(sizes)
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(n_hidden) for _ in range(n_layers))
        self.lifs = nn.ModuleList(LIF() for _ in range(n_layers))
        self.trace_decay = 0.9
        self.readout = nn.Linear(n_hidden, N_CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Images of shape (batch, 64); scores of the last time step."""
        mems: list[Tensor | None] = [None] * len(self.layers)
        trace = torch.zeros(())
        for _ in range(N_STEPS):
            x = images
            for i, (layer, norm, lif) in enumerate(
                zip(self.layers, self.norms, self.lifs, strict=True)
            ):
                x, mems[i] = lif(norm(layer(x)), mems[i])
            trace = self.trace_decay * trace + x
        return self.readout(trace)


class KeyValueNet(nn.Module):
    """Ternary keys times ternary values, element by element; their amplitudes start apart."""

    def __init__(self, n_hidden: int = 96) -> None:
        super().__init__()
        self.key, self.value = nn.Linear(N_PIXELS, n_hidden), nn.Linear(N_PIXELS, n_hidden)
        self.key_norm, self.value_norm = nn.BatchNorm1d(n_hidden), nn.BatchNorm1d(n_hidden)
        self.key_spike, self.value_spike = TernarySpike(amplitude=0.6), TernarySpike()
        self.readout = nn.Linear(n_hidden, N_CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Images of shape (batch, 64); scores."""
        keys = self.key_spike(self.key_norm(self.key(images)))
        return self.readout(keys * self.value_spike(self.value_norm(self.value(images))))


class ChannelsNet(DigitsNet):
    """`DigitsNet` with an amplitude and an α for each channel."""

    def __init__(self) -> None:
        super().__init__()
        self.ternary_spike = TernarySpike(96)


def _snntorch_mlp() -> nn.Module:
    import snntorch as snn

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.lif1 = nn.Linear(N_PIXELS, 96), snn.Leaky(beta=0.9)
            self.norm = nn.BatchNorm1d(96)
            self.fc2, self.lif2 = nn.Linear(96, N_CLASSES), snn.Leaky(beta=0.9)

        def forward(self, images: Tensor) -> Tensor:
            mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
            current, outputs = self.norm(self.fc1(images)), []
            for _ in range(N_STEPS):
                spikes, mem1 = self.lif1(current, mem1)
                spikes, mem2 = self.lif2(self.fc2(spikes), mem2)
                outputs.append(spikes)
            return torch.stack(outputs).sum(0)

    return Net()


def _snntorch_conv() -> nn.Module:
    import snntorch as snn

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.lif1 = nn.Conv2d(1, 12, 3, padding=1), snn.Leaky(beta=0.9)
            self.conv2, self.lif2 = nn.Conv2d(12, 32, 3, padding=1), snn.Leaky(beta=0.9)
            self.fc, self.lif3 = nn.Linear(32 * 4, N_CLASSES), snn.Leaky(beta=0.9)
            self.pool = nn.MaxPool2d(2)

        def forward(self, images: Tensor) -> Tensor:
            mems = [lif.init_leaky() for lif in (self.lif1, self.lif2, self.lif3)]
            current, outputs = self.pool(self.conv1(2 * _GAIN * images.view(-1, 1, 8, 8))), []
            for _ in range(N_STEPS):
                x, mems[0] = self.lif1(current, mems[0])
                x, mems[1] = self.lif2(self.pool(self.conv2(x)), mems[1])
                x, mems[2] = self.lif3(self.fc(x.flatten(1)), mems[2])
                outputs.append(x)
            return torch.stack(outputs).sum(0)

    return Net()


def _spikingjelly_conv() -> nn.Module:
    from spikingjelly.activation_based import functional, layer, neuron

    class Net(nn.Sequential):
        def forward(self, input: Tensor) -> Tensor:
            functional.reset_net(self)
            x = (2 * _GAIN * input.view(-1, 1, 8, 8)).expand(N_STEPS, -1, -1, -1, -1)
            return super().forward(x).mean(0)

    net = Net(
        layer.Conv2d(1, 16, 3, padding=1, bias=False),
        layer.BatchNorm2d(16),
        neuron.LIFNode(),
        layer.MaxPool2d(2),
        layer.Conv2d(16, 32, 3, padding=1, bias=False),
        layer.BatchNorm2d(32),
        neuron.ParametricLIFNode(),
        layer.MaxPool2d(2),
        layer.Flatten(),
        layer.Linear(32 * 4, N_CLASSES),
    )
    functional.set_step_mode(net, "m")
    return net


def _adam(rate: float = LEARNING_RATE, **more: Any) -> Callable[[nn.Module, object], Training]:
    def train(net: nn.Module, data: object) -> Training:  # noqa: ARG001
        return Training(net, torch.optim.Adam(net.parameters(), rate), **more)

    return train


def _text() -> SpikeGPT:
    """A small one. A β that learns goes to 0 and past its clamp there, in 2000 steps."""
    net = SpikeGPT(n_channels=32, n_blocks=1)
    net.blocks[0].channel_lif = LIF(0.5)
    return net


def _ttq(n_in: int, n_out: int, *, bias: bool = True) -> TTQLinear:
    return TTQLinear(n_in, n_out, bias=bias, delta_share=0.3)


def _first_of_pair(outputs: tuple[Tensor, Tensor], labels: Tensor) -> Tensor:
    return cross_entropy(outputs[0], labels)


BEDS: dict[str, Model] = {
    "digits": MODELS["digits"],
    "channels": Model(ChannelsNet, _adam()),
    "plain": Model(PlainNet, _adam()),
    "deep": Model(DeepNet, _adam()),
    "key-value": Model(KeyValueNet, _adam()),
    "goose": Model(Goose, _adam(2 * LEARNING_RATE, loss=_first_of_pair, score=goose_accuracy)),
    "text": Model(
        _text,
        _adam(2 * LEARNING_RATE, loss=letter_loss, score=letter_accuracy),
        load_text,
    ),
    "twn": MODELS["twn"],
    # With a share of 0.05 nearly all zeros are gone after a thousand steps.
    "ttq": replace(MODELS["ttq"], build=lambda: TernaryDigitsNet(_ttq)),
    "tervit": MODELS["tervit"],
    "lsq": MODELS["lsq"],
    "progressive": MODELS["progressive"],
    "distilled": Model(lambda: DeepNet(2, 96), distilled),
    "distilled-twn": Model(lambda: TernaryDigitsNet(TernaryLinear), distilled),
    "snntorch": Model(_snntorch_mlp, _adam()),
    "snntorch-conv": Model(_snntorch_conv, _adam()),
    "spikingjelly-conv": Model(_spikingjelly_conv, _adam()),
}


@cache
def _data(load: Callable[..., tuple[Any, Any]], seed: int) -> tuple[Any, Any]:
    return load(seed=seed)


def make(bed: str, seed: int) -> tuple[Training, Any, Any]:
    """A healthy training, its training set and its test set, all drawn from `seed`."""
    model = BEDS[bed]
    train, test = _data(model.data, seed)
    torch.manual_seed(seed)
    return model.train(model.build(), train), train, test
