"""The libraries' own models, as they are published, against counts by plain hooks."""

import warnings
from collections import defaultdict
from functools import partial

import pytest
import torch
from norse.torch import LIFCell
from norse.torch.models.conv import ConvNet
from rockpool.nn.modules import LIFTorch
from sinabs.from_torch import from_model
from sinabs.layers import StatefulLayer
from spikingjelly.activation_based import functional, neuron
from spikingjelly.activation_based.model.masnn import MASNN
from spikingjelly.activation_based.model.maxformer import MaxFormer
from spikingjelly.activation_based.model.ms_resnet import MSResNet
from spikingjelly.activation_based.model.parametric_lif_net import MNISTNet
from spikingjelly.activation_based.model.qkformer import QKFormer
from spikingjelly.activation_based.model.spike_driven_transformer import SpikeDrivenTransformer
from spikingjelly.activation_based.model.spikformer import Spikformer
from spikingjelly.activation_based.model.spiking_vggws_ottt import OTTTSpikingVGG
from torch import nn
from torch.utils.hooks import unserializable_hook

import spikewatch


BATCH, CLASSES, T = 2, 10, 4
SMALL = {"T": T, "num_classes": CLASSES}


class PlainHooks:
    """Events, elements and Σ(∂L/∂s)² of every neuron module, by hooks that compute just that."""

    def __init__(self, net, classes):
        self.step = 0
        self.counts = defaultdict(lambda: [0, 0, None])
        for name, module in net.named_modules():
            if isinstance(module, classes):
                module.register_forward_hook(partial(self._count, name))

    def _count(self, name, _module, _inputs, output):
        spikes = output[0] if isinstance(output, (tuple, list)) else output
        count = self.counts[self.step, name]
        count[0] += int((spikes != 0).sum())
        count[1] += spikes.numel()
        if spikes.requires_grad:
            # Marked for rockpool, which copies tensors.
            spikes.register_hook(unserializable_hook(partial(self._add_gradient, count)))

    @staticmethod
    def _add_gradient(count, gradient):
        count[2] = (count[2] or 0.0) + float(gradient.double().square().sum())


def compare(net, classes, step, folder, *, parameters=None):
    """Train two steps, watched; what is stored has to be what plain hooks count."""
    with spikewatch.attach(net, every=1, dir=folder, run="published", quiet=True):
        hooks = PlainHooks(net, classes)
        optimizer = torch.optim.SGD(net.parameters() if parameters is None else parameters, 1e-2)
        for hooks.step in range(2):
            optimizer.zero_grad()
            step(net)
            optimizer.step()
    rows = spikewatch.open_store(folder).sql(
        "SELECT step, layer, n_spikes, n_obs * n_neurons, sum_sq_grad FROM wide "
        "WHERE n_spikes IS NOT NULL"
    )
    stored = {(step, layer): counts for step, layer, *counts in rows.iter_rows()}
    assert stored.keys() == hooks.counts.keys()
    for key, (n_spikes, n_seen, sum_sq_grad) in hooks.counts.items():
        assert stored[key][:2] == [n_spikes, n_seen], key
        expected = None if sum_sq_grad is None else pytest.approx(sum_sq_grad, rel=1e-4)
        assert stored[key][2] == expected, key
    assert sum(n_spikes for n_spikes, *_ in stored.values()) > 0


def loss_of(logits):
    return nn.functional.cross_entropy(logits, torch.arange(len(logits)) % CLASSES)


SPIKINGJELLY = {
    "MNISTNet": (lambda: MNISTNet(4, neuron.ParametricLIFNode), (1, 28)),
    "MASNN": (lambda: MASNN(T, channels=(8, 8, 8), fc_hidden=16, reduction_t=2), (2, 32)),
    "MSResNet": (lambda: MSResNet(**SMALL, layers=(1, 1, 1, 1), base_channels=8), (3, 32)),
    "MaxFormer": (lambda: MaxFormer(**SMALL, embed_dims=48, depths=(1, 1, 1), cifar=True), (3, 32)),
    "QKFormer": (
        lambda: QKFormer(**SMALL, embed_dims=48, num_heads=(2, 2, 2), depths=(1, 1, 1)),
        (3, 64),
    ),
    "SpikeDrivenTransformer": (
        lambda: SpikeDrivenTransformer(**SMALL, embed_dims=32, num_heads=4, depths=1),
        (3, 64),
    ),
    "Spikformer": (
        lambda: Spikformer(
            **SMALL, img_size_h=64, img_size_w=64, embed_dims=32, num_heads=4, depths=1
        ),
        (3, 64),
    ),
}


@pytest.mark.parametrize("name", SPIKINGJELLY)
def test_models_of_spikingjelly(name, tmp_path):
    make, (n_channels, side) = SPIKINGJELLY[name]
    net = make()
    functional.set_step_mode(net, "m")

    def step(net):
        outputs = net(torch.rand(T, BATCH, n_channels, side, side))
        logits = outputs[0] if isinstance(outputs, tuple) else outputs
        loss_of((logits.mean(0) if logits.dim() == 3 else logits)[:, :CLASSES]).backward()
        functional.reset_net(net)

    compare(net, neuron.BaseNode, step, tmp_path)


def test_training_through_time_online_of_spikingjelly(tmp_path):
    """OTTT: a backward pass for each time step, and neurons that return a trace beside spikes."""
    net = OTTTSpikingVGG(
        [8, "M", 16, "M", 512], num_classes=CLASSES, spiking_neuron=neuron.OTTTLIFNode
    )

    def step(net):
        for x in torch.rand(T, BATCH, 3, 32, 32):
            loss_of(net(x)).backward()
        functional.reset_net(net)

    compare(net, neuron.BaseNode, step, tmp_path)


def test_a_model_of_norse(tmp_path):
    def step(net):
        loss_of(net(50 * torch.rand(8, BATCH, 1, 28, 28)).amax(0)).backward()

    compare(ConvNet(), LIFCell, step, tmp_path)


def synnet():
    from rockpool.nn.networks.synnet import SynNet

    return SynNet(CLASSES, 16, size_hidden_layers=[24, 24], time_constants_per_layer=[2, 4])


def wavesense():
    from rockpool.nn.networks.wavesense import WaveSenseNet

    return WaveSenseNet(dilations=[1, 2, 4], n_classes=CLASSES, n_channels_in=16)


@pytest.mark.parametrize("make", [synnet, wavesense])
def test_models_of_rockpool(make, tmp_path):
    def step(net):
        outputs, *_ = net(8 * torch.bernoulli(torch.full((BATCH, 30, 16), 0.3)))
        loss_of(outputs.sum(1)).backward()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its networks some are not ported yet
        net = make()
    compare(net, LIFTorch, step, tmp_path, parameters=list(net.parameters().astorch()))


def test_a_network_that_sinabs_converted(tmp_path):
    cnn = nn.Sequential(
        *(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(8, 8, 3), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(128, CLASSES), nn.ReLU()),
    )

    def step(net):
        net.reset_states()
        outputs = net(2 * torch.bernoulli(torch.full((BATCH * T, 1, 14, 14), 0.4)))
        loss_of(outputs.view(BATCH, T, CLASSES).sum(1)).backward()

    compare(from_model(cnn, batch_size=BATCH), StatefulLayer, step, tmp_path)
