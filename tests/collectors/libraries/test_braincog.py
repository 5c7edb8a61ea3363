"""BrainCog: single steps, all steps folded into the batch, or into the channels."""

import sys
from types import ModuleType

import pytest
import torch
from torch import nn


@pytest.fixture(name="node", scope="module")
def _node():
    """Its neurons. Brain areas, encoders and learning rules want games, cameras and torchvision."""
    unused = ("brainarea", "connection", "conversion", "encoder", "learningrule", "utils")
    with pytest.MonkeyPatch.context() as patch:
        for part in unused:
            name = f"braincog.base.{part}"
            patch.setitem(sys.modules, name, ModuleType(name))
        from braincog.base.node import node

        yield node


def network(node, **settings):
    """A little convolutional network, as BrainCog's models are built."""
    return nn.Sequential(
        nn.Conv2d(2, 3, 3),
        node.LIFNode(threshold=0.3, act_fun=node.AtanGrad, step=4, **settings),
        nn.Flatten(),
        nn.Linear(48, 5),
        node.PLIFNode(threshold=0.2, step=4, **settings),
    )


def reset(net):
    for module in net.modules():
        if hasattr(module, "n_reset"):
            module.n_reset()


@pytest.mark.parametrize("folded", [False, True])
def test_a_training_gives_the_same_figures_step_by_step_and_layer_by_layer(
    node, listen, told, folded
):
    torch.manual_seed(0)
    net = network(node, layer_by_layer=folded)
    heard, seen = listen(net), told(net[1])
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    for _ in range(2):
        reset(net)
        x = 2 * torch.rand(4, 3, 2, 6, 6)
        if folded:
            out = net(x.flatten(0, 1)).unflatten(0, (4, 3))
        else:
            out = torch.stack([net(frame) for frame in x])
        optimizer.zero_grad()
        nn.functional.cross_entropy(out.mean(0), torch.tensor([0, 1, 4])).backward()
        optimizer.step()
    tables = heard.tables("1")
    spikes = torch.cat([s.unflatten(0, (-1, 3)) for s in seen.spikes])
    assert spikes.shape == (8, 3, 3, 4, 4)
    assert (tables["spikes"]["n_obs"], tables["spikes"]["n_neurons"]) == (24, 48)
    assert tables["spikes"]["n_spikes"] == spikes.sum() > 0
    slopes = 1 / (1 + (torch.pi * torch.stack(seen.saved)) ** 2)
    assert slopes.numel() == spikes.numel()
    assert tables["gradients"]["sum_sg"] == pytest.approx(slopes.sum().item(), rel=1e-5)
    assert seen.starts == ([True] * 2 if folded else [True, False, False, False] * 2)
    assert {m.pre_reset for m in seen.membranes} == {False}
    after = (torch.stack(seen.saved) + 0.3).unflatten(0, (-1, 4))
    after = (after * (1 - spikes.unflatten(0, (-1, 4)))).flatten(0, 1)
    torch.testing.assert_close(seen.potentials, after[3::4] if folded else after)


def test_time_folded_into_the_channels_is_unfolded(node, listen):
    torch.manual_seed(1)
    neuron = node.IFNode(threshold=0.5, step=4, n_groups=4)
    heard = listen(nn.Sequential(neuron))
    x = torch.rand(3, 2, 4, 5, 5, requires_grad=True)  # batch, channels, time
    out = neuron(x.flatten(1, 2))
    gradient = torch.rand_like(out)
    out.backward(gradient)
    tables = heard.tables("0")
    assert (tables["spikes"]["n_obs"], tables["spikes"]["n_neurons"]) == (12, 50)
    assert tables["spikes"]["n_spikes"] == out.sum() > 0
    assert tables["gradients"]["n_sg"] == x.numel()
    first = gradient.unflatten(1, (2, 4))[:, :, 0].square().sum()
    assert tables["gradients"]["sum_sq_grad_first"] == pytest.approx(first.item(), rel=1e-5)


def test_relus_are_left_out(node, listen):
    net = nn.Sequential(node.ReLUNode(), node.IFNode(), node.BiasReLUNode())
    assert list(listen(net).observers) == ["1"]


def test_neurons_of_several_compartments_are_counted(node, listen, told):
    neuron = node.ThreeCompNode(threshold=0.1)
    neuron.n_reset()
    heard, seen = listen(nn.Sequential(neuron)), told(neuron)
    for _ in range(3):
        neuron({"basal_inputs": torch.rand(2, 5), "apical_inputs": torch.rand(2, 5)})
    row = heard.flush("0", "spikes")
    assert (row["n_obs"], row["n_neurons"]) == (6, 5)
    assert row["n_spikes"] == torch.stack(seen.spikes).sum() > 0
    assert seen.starts == [True, False, False]
    assert seen.potentials.shape == (3, 2, 5)


@pytest.mark.parametrize(
    ("name", "settings", "decay"),
    [
        ("LIFNode", {"tau": 4.0}, 0.75),
        ("BurstLIFNode", {"tau": 4.0}, 0.75),
        ("BiasLIFNode", {"tau": 4.0, "dt": 2.0}, 0.5),
        ("PLIFNode", {"tau": 4.0}, 0.75),
        ("LIFSTDPNode", {"tau": 0.6}, 0.6),
        ("OnlineLIFNode", {"tau": 4.0}, 0.75),
        ("IFNode", {}, None),
        ("IzhNode", {}, None),
    ],
)
def test_the_decay_is_what_a_charge_decays_by(node, dynamics, name, settings, decay):
    neuron = getattr(node, name)(threshold=50.0, **settings)
    found = dynamics(neuron)
    assert found.decay == (None if decay is None else pytest.approx(decay))
    assert (found.threshold, found.reset) == (50.0, "zero")
    if decay is not None:
        after = []
        for charge in (0.4, 0.0):  # the difference leaves out a bias
            neuron.n_reset()
            neuron.mem = torch.full((1, 2), charge)
            neuron.init = False
            neuron(torch.zeros(1, 2))
            after.append(neuron.mem[0, 0].item())
        assert (after[0] - after[1]) / 0.4 == pytest.approx(decay)


def test_surrogate_and_trainable_parameters_are_the_nodes_own(node, dynamics):
    neuron = node.PLIFNode(threshold=0.5, requires_thres_grad=True, sigmoid_thres=True)
    found = dynamics(neuron)
    assert found.surrogate == "AtanGrad(alpha=2)"
    assert set(found.learnable) == {"threshold", "w"}
    assert found.threshold == pytest.approx(torch.tensor(0.5).sigmoid().item())


@pytest.mark.parametrize("surrogate", ["QGateGrad", "GateGrad", "STDPGrad", "AtanGrad"])
@pytest.mark.parametrize("current", [-0.3, 0.95])
def test_of_a_silent_layer_no_slope_is_taken_for_the_potential(node, listen, surrogate, current):
    neuron = node.LIFNode(threshold=0.5, act_fun=surrogate)
    heard = listen(nn.Sequential(neuron))
    neuron(torch.full((16, 8), current, requires_grad=True))
    row = heard.tables("0")["membrane"]
    assert row["n_above_threshold"] == 0
    assert row["sum_z"] / row["n_membrane"] == pytest.approx(current / 2 / 0.5 - 1)


def test_neurons_that_pass_their_potential_on_are_left_out_but_for_graded_spikes(node, listen):
    net = nn.Sequential(
        node.LIAFNode(), node.LIAFNode(act_fun="ReLU"), node.LIAFNode(threshold_related=False)
    )
    assert list(listen(net).observers) == ["1"]


@pytest.mark.parametrize("folded", [False, True])
def test_the_rate_that_an_online_neuron_appends_is_no_spike(node, listen, told, folded):
    torch.manual_seed(2)
    neuron = node.OnlineLIFNode(act_fun=node.AtanGrad, layer_by_layer=folded, step=4)
    heard, seen = listen(nn.Sequential(neuron)), told(neuron)
    x, spikes = 2 * torch.rand(4, 3, 5, requires_grad=True), 0
    for _ in range(2):
        neuron.init, neuron.rate_tracking = True, torch.ones(3, 5)
        for part in [x.flatten(0, 1)] if folded else x:
            out = neuron(part).unflatten(0, (-1, 6))
            spikes += out[:, :3].sum()
    spikes.backward()
    tables = heard.tables("0")
    assert (tables["spikes"]["n_obs"], tables["spikes"]["n_neurons"]) == (24, 5)
    assert tables["spikes"]["n_spikes"] == spikes > 0
    assert tables["gradients"]["n_sg"] == 120
    assert tables["gradients"]["n_grad"] == 120
    assert tables["membrane"]["n_membrane_pre_reset"] == tables["membrane"]["n_membrane"] > 0
    assert seen.starts == ([True] * 2 if folded else [True, False, False, False] * 2)
