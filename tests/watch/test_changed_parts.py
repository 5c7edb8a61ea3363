"""Parameters, parts and ways to be called that change after `attach()`, and evaluations amid it."""

import pytest
import snntorch as snn
import torch
from spikingjelly.activation_based import functional, neuron
from torch import nn
from torch.nn.utils import parametrize, prune

from .growing import Blocks, MeanOverTime, fit, steps_of
from .little_nets import Spike


@pytest.fixture(name="net")
def _net():
    torch.manual_seed(0)
    return Blocks()


def test_what_a_ternary_parametrization_makes_of_a_plain_layer_is_seen(watched, stored):
    class Ternary(nn.Module):
        def forward(self, w):
            t = w.sign() * (w.abs() > 0.05)
            return w + (t - w).detach()

    torch.manual_seed(0)
    net = Blocks()

    def quantize(net):
        parametrize.register_parametrization(net.blocks[0][0], "weight", Ternary())

    watch = watched(net)
    fit(net, 12, change=quantize)
    watch.close()
    assert steps_of(stored, "weights") == {"blocks.0.0": list(range(4, 12))}
    assert steps_of(stored)["blocks.0.1"] == list(range(12))
    removed = stored("SELECT count(*) AS n FROM events WHERE kind = 'removed'")["n"].item()
    assert removed == 0  # the layer is still the same, and was in no table of weights


def test_weights_that_are_replaced_or_pruned_are_followed(watched, stored):
    class TernaryLinear(nn.Linear):
        def forward(self, x):
            w = self.weight
            t = w.sign() * (w.abs() > 0.5 * w.abs().mean())
            return nn.functional.linear(x, w + (t - w).detach(), self.bias)

    torch.manual_seed(0)
    net = nn.Sequential(TernaryLinear(16, 12), neuron.LIFNode(step_mode="m"), MeanOverTime())
    net.append(nn.Linear(12, 4))

    def renew(net):
        few = torch.where(torch.rand(12, 16) < 0.9, 1e-3, 1.0)
        net[0].weight = nn.Parameter(few * torch.randn(12, 16).sign())

    def cut(net):
        prune.random_unstructured(net[3], "weight", 0.5)
        prune.l1_unstructured(net[0], "weight", 0.25)

    watch = watched(net)
    fit(net, 4, change=renew, at=2)
    fit(net, 6, change=cut, at=2)
    watch.close()
    rows = stored("SELECT step, n_weight_zero FROM weights WHERE layer = '0' ORDER BY step")
    assert rows["step"].to_list() == list(range(10))
    zeros = rows["n_weight_zero"].to_list()
    assert zeros[1] < 96 < 150 < zeros[2]
    assert {2, 6, 7} <= set(steps_of(stored, "estimator")["0"])
    assert {2, 6, 7} <= set(steps_of(stored, "latent")["0"])
    flips = stored("SELECT step FROM transitions WHERE layer = '0' ORDER BY step")["step"]
    assert flips.to_list() == [1, 3, 4, 5, 6, 7, 8, 9]  # what another parameter was is no flip
    updates = stored("SELECT update_ratio FROM latent WHERE layer = '0' AND step >= 6")
    assert all(r > 0 for r in updates["update_ratio"])


def test_a_group_that_an_optimizer_is_given_later_ends_steps(net, watched, stored):
    watch = watched(net)
    other = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([other], 0.1)
    other.grad = torch.ones(1)
    optimizer.step()  # it has none of the model's parameters yet
    optimizer.add_param_group({"params": list(net.parameters())})
    for _ in range(5):
        for _ in range(2):
            net(torch.rand(4, 8, 16)).sum().backward()
            functional.reset_net(net)
        optimizer.step()
    assert watch.step == 5


def test_parts_that_a_loop_calls_by_themselves_may_change_as_well(watched, stored):
    torch.manual_seed(0)
    net = nn.ModuleDict({"fc": nn.Linear(16, 8), "act": snn.Leaky(beta=0.9, init_hidden=True)})
    watch = watched(net)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    for step in range(10):
        if step == 4:
            net["act2"] = snn.Leaky(beta=0.8, init_hidden=True)
        functional_reset(net)
        for _ in range(3):
            x = net["act"](net["fc"](torch.rand(8, 16)))
            if "act2" in net:
                x = net["act2"](x)
        x.sum().backward()
        optimizer.step()
    watch.close()
    steps = steps_of(stored)
    assert steps["act"] == list(range(10))
    assert steps["act2"][0] in (4, 5)


def functional_reset(net):
    for module in net.values():
        if isinstance(module, snn.Leaky):
            module.reset_mem()


def test_a_step_mode_that_is_switched_is_followed(net, watched, stored):
    watch = watched(net)
    fit(net, 3)
    functional.set_step_mode(net, "s")
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    for _ in range(3):
        x = 3 * torch.rand(4, 8, 16)
        torch.stack([net.head(net.blocks[0](v)) for v in x]).sum().backward()
        optimizer.step()
        functional.reset_net(net)
    watch.close()
    rows = stored("SELECT n_neurons, n_obs FROM spikes ORDER BY step").rows()
    assert set(rows) == {(12, 32)}
    assert len(rows) == 6


class OwnBlock(nn.Module):
    """A block of a user's, whose neuron is a function within its forward."""

    def __init__(self, n_in, n_out):
        super().__init__()
        self.fc = nn.Linear(n_in, n_out)

    def forward(self, x):
        return Spike.apply(self.fc(x) - 0.1)


class OwnNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([OwnBlock(16, 12), OwnBlock(12, 12)])
        self.head = nn.Linear(12, 4)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.head(x).mean(0)


def test_neurons_that_are_functions_in_blocks_that_come_later_are_told_apart(watched, stored):
    def swap(net):
        net.blocks[0] = OwnBlock(16, 12)
        net.blocks.append(OwnBlock(12, 12))

    torch.manual_seed(0)
    net = OwnNet()
    watch = watched(net)
    fit(net, 14, change=swap, at=6)
    watch.close()
    steps = steps_of(stored)
    assert steps["blocks.1"] == list(range(14))
    assert steps["blocks.2"][-1] == steps["blocks.0"][-1] == 13
    assert steps["blocks.2"][0] in (6, 7)
    assert set(steps) == {"blocks.0", "blocks.1", "blocks.2"}


def test_an_evaluation_sees_the_layers_that_have_come_before_it(net, watched, stored):
    watch = watched(net)
    fit(net, 3)
    net.grow(10)
    functional.invalidate_reset_cache(net)
    net.eval()
    with torch.no_grad():
        net(3 * torch.rand(4, 8, 16))
    functional.reset_net(net)
    net.train()
    fit(net, 2)
    watch.close()
    rows = stored("SELECT phase, step, layer FROM spikes WHERE step >= 3 ORDER BY ALL").rows()
    names = ["blocks.0.1", "blocks.1.1"]
    assert rows == [
        *(("eval", 3, name) for name in names),
        *(("train", step, name) for step in (3, 4) for name in names),
    ]


def test_what_was_evaluated_before_a_layer_went_is_kept(watched, stored):
    torch.manual_seed(0)
    net = Blocks((12, 12))
    watch = watched(net)
    fit(net, 3)
    net.eval()
    with torch.no_grad():
        net(3 * torch.rand(4, 8, 16))
    net.train()
    del net.blocks[1]
    functional.invalidate_reset_cache(net)
    functional.reset_net(net)
    fit(net, 2)
    watch.close()
    rows = stored("SELECT step, layer FROM spikes WHERE phase = 'eval' ORDER BY ALL").rows()
    assert rows == [(3, "blocks.0.1"), (3, "blocks.1.1")]
    assert steps_of(stored)["blocks.0.1"] == [0, 1, 2, 3, 4]


def test_a_model_that_is_another_one_in_each_step_is_asked_about_ever_more_rarely(
    net, watched, stored
):
    watch = watched(net)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    for _ in range(40):
        net.blocks[0][1] = neuron.LIFNode(step_mode="m")
        net(3 * torch.rand(4, 8, 16)).sum().backward()
        optimizer.step()
    watch.close()
    n = stored("SELECT count(*) AS n FROM events WHERE kind = 'removed'")["n"].item()
    assert 3 <= n <= 7


def test_a_checkpoint_is_called_for_by_the_names_of_parameters_that_came_later(net, watched):
    calls = []
    watched(net, on_checkpoint=calls.append)

    def grow(net):
        net.grow(10)
        net.blocks[1][0].weight.register_hook(lambda grad: grad * float("nan"))

    fit(net, 6, change=grow)
    assert [c["layer"] for c in calls if c["rule"] == "non-finite-gradient"] == ["blocks.1.0"]
