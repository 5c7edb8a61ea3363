"""lava-dl's slayer: time is the last axis, and blocks hold the neurons."""

import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

import spikewatch


@pytest.fixture(name="slayer", scope="module")
def _slayer():
    """The package, of which object detection alone wants OpenCV and torchvision."""
    folder = Path(sys.prefix) / "lava-dl-0.6.0"
    assert folder.is_dir(), "python3 dev.py test installs it there"
    unused = "lava.lib.dl.slayer.object_detection"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setitem(sys.modules, unused, ModuleType(unused))
        import lava.lib.dl.slayer as slayer

        yield slayer


CUBA = {"threshold": 1.25, "current_decay": 0.25, "voltage_decay": 0.1, "requires_grad": True}


def network(slayer):
    """Two dense layers, as in slayer's tutorials."""

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList(
                [
                    slayer.block.cuba.Dense(CUBA, 20, 12, weight_norm=False, delay=True),
                    slayer.block.cuba.Dense(CUBA, 12, 4, weight_norm=False),
                ]
            )

        def forward(self, spike):
            for block in self.blocks:
                spike = block(spike)
            return spike

    return Network()


def test_a_training_in_the_tutorials_style_is_counted_along_the_last_axis(slayer, listen, told):
    torch.manual_seed(0)
    net = network(slayer)
    heard, seen = listen(net), told(net.blocks[0].neuron)
    spiking = [o.layer.name for o in heard.observers.values() if o.layer.kind == "spiking"]
    assert spiking == ["blocks.0.neuron", "blocks.1.neuron"]
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    error = slayer.loss.SpikeRate(true_rate=0.5, false_rate=0.05, reduction="sum")
    for _ in range(2):
        x = (torch.rand(3, 20, 30) < 0.6).float()
        loss = error(net(x), torch.tensor([0, 1, 3]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    tables, spikes = heard.tables("blocks.0.neuron"), torch.cat(seen.spikes)
    # Neither blocks nor delays are taken for neurons.
    assert "spiking" not in [x.kind for x in heard.confirmed]
    assert spikes.shape == (6, 12, 30)
    assert (tables["spikes"]["n_obs"], tables["spikes"]["n_neurons"]) == (6 * 30, 12)
    assert tables["spikes"]["n_spikes"] == spikes.sum() > 0
    # slayer's exponential surrogate: its scales are 100 τ and 0.1 ρ for this neuron.
    u, theta, width = torch.cat(seen.saved), 1.25 + 0.01 / 4096, 125.0
    slopes = 0.1 / 2 / width * torch.exp(-(u - theta).abs() / width)
    assert tables["gradients"]["sum_sg"] == pytest.approx(slopes.sum().item(), rel=1e-4)
    assert tables["gradients"]["n_grad"] == slopes.numel()


def test_parameters_are_the_neurons_own(slayer, dynamics):
    neuron = slayer.neuron.cuba.Neuron(**CUBA)
    found = dynamics(neuron)
    assert (found.threshold, found.reset) == (1.25, "zero")
    assert found.decay == pytest.approx(1 - neuron.cx_voltage_decay / 4096)
    assert set(found.learnable) == {"current_decay", "voltage_decay"}
    pulse = torch.zeros(1, 1, 40)
    pulse[..., 0] = 1.0
    still = slayer.neuron.cuba.Neuron(threshold=10, current_decay=1.0, voltage_decay=0.1)
    _, voltage = still.dynamics(pulse)
    assert (voltage[0, 0, 3] / voltage[0, 0, 2]).item() == pytest.approx(
        dynamics(still).decay.item(), rel=1e-3
    )


def test_a_neuron_that_keeps_its_state_shows_it_after_the_reset(slayer, told):
    torch.manual_seed(1)
    neuron = slayer.neuron.cuba.Neuron(**CUBA, persistent_state=True)
    seen = told(neuron)
    neuron(torch.rand(2, 5, 20, requires_grad=True))
    (membrane,), (u,), (spikes,) = seen.membranes, seen.saved, seen.spikes
    assert not membrane.pre_reset
    torch.testing.assert_close(membrane.potential, u[..., -1] * (1 - spikes[..., -1]))


def test_inside_a_recurrent_block_each_call_is_a_time_step(slayer, listen, told):
    torch.manual_seed(2)
    block = slayer.block.cuba.Recurrent(CUBA, 8, 6, delay_shift=False)
    heard, seen = listen(nn.Sequential(block)), told(block.neuron)
    out = block((torch.rand(3, 8, 10) < 0.5).float())
    row = heard.flush("0.neuron", "spikes")
    assert (row["n_obs"], row["n_neurons"]) == (30, 6)
    assert row["n_spikes"] == out.sum() == torch.cat(seen.spikes).sum() > 0


@pytest.mark.parametrize("kind", ["alif", "rf", "rf_iz", "adrf", "sigma_delta"])
def test_the_other_neurons_are_counted_too(slayer, listen, dynamics, kind):
    torch.manual_seed(3)
    adapts = {"threshold_step": 0.1, "threshold_decay": 0.1, "refractory_decay": 0.1}
    settings = {
        "alif": {"current_decay": 0.2, "voltage_decay": 0.1, **adapts},
        "rf": {"period": 10, "decay": 0.1},
        "rf_iz": {"period": 10, "decay": 0.1},
        "adrf": {"period": 10, "decay": 0.1, **adapts},
        "sigma_delta": {"activation": torch.relu},
    }[kind]
    neuron = getattr(slayer.neuron, kind).Neuron(threshold=0.3, **settings)
    heard = listen(nn.Sequential(neuron))
    x = torch.rand(2, 5, 15)
    out = neuron((x, torch.rand_like(x)) if "rf" in kind else x)
    row = heard.flush("0", "spikes")
    assert (row["n_obs"], row["n_neurons"]) == (30, 5)
    assert row["n_spikes"] == out.count_nonzero() > 0
    assert dynamics(neuron).threshold == pytest.approx(0.3, abs=0.02)


def test_a_sigma_delta_network_is_healthy_and_has_layers_where_it_calls_neurons(slayer, tmp_path):
    torch.manual_seed(0)
    block, own = slayer.block, {"threshold": 0.1, "activation": torch.relu, "requires_grad": True}
    net = nn.Sequential(
        block.sigma_delta.Input(own),
        block.sigma_delta.Dense(own, 20, 12),
        block.sigma_delta.Output(own, 12, 4),
        block.cuba.Affine(CUBA, 4, 3),
    )
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    with spikewatch.attach(net, dir=tmp_path, every=1, quiet=True) as watch:
        assert [x.name for x in watch.layers if x.kind == "spiking"] == ["1.neuron"]
        x = torch.rand(3, 20, 1) * torch.linspace(0.5, 1, 12)
        for _ in range(40):
            optimizer.zero_grad()
            net(x).square().mean().backward()
            optimizer.step()
    with spikewatch.open_store(tmp_path) as store:
        fired = store.sql("SELECT DISTINCT rule FROM alerts WHERE state = 'firing'")["rule"]
        amplitude = store.sql("SELECT avg(spike_amplitude) FROM spikes").item()
        told = " ".join(store.sql("SELECT message FROM events WHERE kind = 'note'")["message"])
    assert not {"spikes-out-of-range", "one-sided-spikes"} & {*fired}
    assert 0 < amplitude < 0.3  # and yet nothing to tell
    assert "not called" not in told


def test_a_block_of_ones_own_that_calls_its_neuron_has_a_layer(slayer, listen):
    class Input(slayer.block.sigma_delta.Input):
        def forward(self, x):
            return self.neuron(x)

    net = nn.Sequential(Input({"threshold": 0.1, "activation": torch.relu}))
    assert listen(net).spiking == ["0.neuron"]


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")
@pytest.mark.parametrize("normed", [True, False])
def test_dense_synapses_have_their_operations_counted(slayer, listen, normed):
    torch.manual_seed(0)
    net = nn.Sequential(
        slayer.block.cuba.Dense(CUBA, 20, 12, weight_norm=normed, delay_shift=False)
    )
    heard = listen(net)
    x = (torch.rand(3, 20, 30) < 0.6).float()
    net(x)
    row = heard.tables("0.synapse")["energy"]
    assert row["n_sops"] == x.count_nonzero() * 12
    assert row["n_dense_macs"] == x.numel() * 12
    assert (row["n_inputs"], row["n_outputs"], row["n_macs"]) == (3 * 20 * 30, 3 * 12 * 30, 0)


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")
def test_a_normalised_weight_that_is_quantized_is_one_layer(slayer, listen):
    net = nn.Sequential(slayer.block.cuba.Dense(CUBA, 40, 20, weight_norm=True, delay_shift=False))
    heard = listen(net)
    net((torch.rand(3, 40, 10) < 0.6).float()).sum().backward()
    assert set(heard.observers) == {"0.neuron", "0.synapse"}
    heard.flush("0.synapse", "weights")
    assert [(x.name, x.note) for x in heard.confirmed] == [("0.synapse", "4 bit, one scale")]
