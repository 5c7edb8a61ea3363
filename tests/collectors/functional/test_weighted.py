"""Spikes that a layer with weights makes of its input, before it multiplies with them."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from .hearing import row_of


class Ternary(torch.autograd.Function):
    """Ternary spikes of an amplitude (SpikeLM, Xing et al. 2024)."""

    @staticmethod
    def forward(ctx, u, amplitude):
        ctx.save_for_backward(u, amplitude)
        return (u / amplitude).round().clamp(-1, 1) * amplitude

    @staticmethod
    def backward(ctx, gradient):
        u, amplitude = ctx.saved_tensors
        return gradient * ((u / amplitude).abs() <= 1), None


class SpikeLinear(nn.Linear):
    """Loops over time, and multiplies ternary spikes of an amplitude for each time step."""

    def forward(self, x):
        spikes, potential = torch.zeros_like(x), 0.0
        for t, current in enumerate(x):
            before = spikes[t - 1].detach() if t else 0.0
            potential = 0.25 * (potential - before) + current
            spikes[t] = Ternary.apply(potential, torch.tensor(0.8 + 0.1 * t))
        self.spikes = spikes.detach()
        return functional.linear(spikes, self.weight, self.bias)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.f1, self.f2 = nn.Linear(8, 32), SpikeLinear(32, 16), SpikeLinear(16, 4)

    def forward(self, x):
        return self.f2(self.f1(self.first(x)))


def hear(listen, net):
    heard = listen(net)
    heard.n_forwards = 1
    return heard


def of_layer(heard, name):
    """Counters of what one layer with weights makes within; its observer is no listed one."""
    (observer,) = [o for o in heard.within if o.layer.name == name]
    counts = observer.flush("train")
    return {} if counts is None else {name + suffix: c for suffix, c in counts.sites.items()}


def test_a_layer_that_makes_spikes_of_its_input_multiplies_these(listen):
    torch.manual_seed(0)
    net = Net()
    heard = hear(listen, net)
    net(torch.randn(4, 12, 8)).sum().backward()
    for name, layer in (("f1", net.f1), ("f2", net.f2)):
        n_events, fan_out = int(layer.spikes.count_nonzero()), layer.out_features
        energy = heard.tables(name)["energy"]
        assert (energy["n_nonzero_inputs"], energy["n_inputs"]) == (n_events, layer.spikes.numel())
        assert (energy["n_sops"], energy["n_macs"]) == (n_events * fan_out, 0)
        ((inner_name, counts),) = of_layer(heard, name).items()
        row = row_of(heard, counts, "spikes")
        assert inner_name == f"{name}.Ternary"
        assert (row["n_neurons"], row["n_obs"]) == (layer.in_features, 48)
        assert row["n_spikes"] == n_events
    assert {"f1.Ternary", "f2.Ternary"} <= {layer.name for layer in heard.confirmed}


class Round(torch.autograd.Function):
    """Rounds to a number of levels, straight through."""

    @staticmethod
    def forward(ctx, x, n_levels):
        return (x.clamp(-1, 1) * n_levels).round() / n_levels

    @staticmethod
    def backward(ctx, gradient):
        return gradient, None


class Sign(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.sign()

    @staticmethod
    def backward(ctx, gradient):
        return gradient


class OfWeight(nn.Linear):
    def forward(self, x):
        return functional.linear(x, Round.apply(self.weight * 4, 1))


class OfGroups(nn.Linear):
    def forward(self, x):
        groups = Round.apply(self.weight.reshape(-1, 4) * 4, 1)
        return functional.linear(x, groups.view_as(self.weight))


class OfActivations(nn.Linear):
    def forward(self, x):
        return functional.linear(Round.apply(x, 3), self.weight)


class OfSigns(nn.Linear):
    def forward(self, x):
        return functional.linear(Sign.apply(x), self.weight)


@pytest.mark.parametrize("kind", [OfWeight, OfGroups, OfActivations, OfSigns])
def test_what_a_layer_quantizes_is_no_spikes(listen, kind):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 32), kind(32, 16))
    heard = hear(listen, net)
    for step in range(2):
        heard.step = step
        net(torch.randn(12, 8)).sum().backward()
        energy = heard.tables("1")["energy"]
        assert (energy["n_inputs"], energy["n_dense_macs"]) == (12 * 32, 12 * 32 * 16)
        assert not of_layer(heard, "1")
    assert not any("." in layer.name for layer in heard.confirmed)


class OwnKernel(nn.Linear):
    """Multiplies in a way that nothing but its own code knows."""

    def forward(self, x):
        spikes = Ternary.apply(x, torch.tensor(0.8))
        return (spikes.unsqueeze(-2) * self.weight).sum(-1)


def test_what_is_not_seen_to_be_multiplied_is_what_the_layer_was_called_with(listen):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 32), OwnKernel(32, 16))
    heard = hear(listen, net)
    net(torch.randn(12, 8)).sum().backward()
    assert heard.tables("1")["energy"]["n_macs"] == 12 * 32 * 16


def test_a_training_whose_weight_layers_are_listened_to_is_the_same(listen):
    def trained(*, watched):
        torch.manual_seed(0)
        net = Net()
        heard = hear(listen, net) if watched else None
        optimizer = torch.optim.SGD(net.parameters(), 0.1)
        for _ in range(3):
            optimizer.zero_grad()
            net(torch.randn(4, 12, 8)).square().mean().backward()
            optimizer.step()
        if heard is not None:
            heard.stop()
            assert "forward" in vars(Ternary)
            assert not hasattr(Ternary.forward, "__wrapped__")
        return [p.detach().clone() for p in net.parameters()]

    assert all(map(torch.equal, trained(watched=False), trained(watched=True)))
