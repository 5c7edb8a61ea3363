"""Neurons without a surrogate gradient are told of, and what is meant to have none is not."""

import pytest
import torch
from torch import nn


class Fire(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u):
        ctx.save_for_backward(u)
        return (u >= 0).float()

    @staticmethod
    def backward(ctx, gradient):
        (u,) = ctx.saved_tensors
        return gradient / (1 + u.square())


class Neuron(nn.Module):
    def __init__(self, *, surrogate=False):
        super().__init__()
        self.threshold, self.mem, self.surrogate = 0.5, 0.0, surrogate

    def forward(self, x):
        self.mem = 0.9 * self.mem + x
        u = self.mem - self.threshold
        return Fire.apply(u) if self.surrogate else (u >= 0).float()


class Delayed(Neuron):
    """Fires by what came until then: its first spikes have no graph."""

    def forward(self, x):
        fired = torch.zeros_like(x) if isinstance(self.mem, float) else Fire.apply(self.mem - 0.5)
        self.mem = 0.9 * self.mem + x
        return fired


class WithWeights(Neuron):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 16)

    def forward(self, x):
        return super().forward(self.fc(x))


def step(listen, net, *, optimized=None, learn=None):
    """`is_cut` of the first neuron, after a step of 3 time steps and a backward pass."""
    torch.manual_seed(0)
    heard = listen(net)
    heard.optimized = list(net.parameters() if optimized is None else optimized)
    out = sum(net(x) for x in torch.rand(3, 4, 8))
    if out.requires_grad:
        out.square().sum().backward()
    if learn is not None:
        learn(net[0].weight)
    name = next(iter(heard.spiking))
    return (heard.flush(name, "gradients") or {}).get("is_cut")


def net_of(neuron):
    return nn.Sequential(nn.Linear(8, 16), neuron, nn.Linear(16, 4))


def test_spikes_of_a_comparison_are_cut_off_from_the_weights_before_them(listen):
    assert step(listen, net_of(Neuron())) == 1
    assert step(listen, nn.Sequential(WithWeights(), nn.Linear(16, 4))) == 1


def test_spikes_of_a_surrogate_are_not_nor_where_the_first_ones_alone_have_no_graph(listen):
    assert step(listen, net_of(Neuron(surrogate=True))) == 0
    assert step(listen, net_of(Delayed())) == 0


def test_weights_that_are_not_to_learn_are_no_loss(listen):
    frozen, left_out, judged = (net_of(Neuron()) for _ in range(3))
    frozen[0].requires_grad_(requires_grad=False)
    assert step(listen, frozen) is None
    assert step(listen, left_out, optimized=left_out[2].parameters()) is None
    assert step(listen, judged.eval()) is None
    with torch.no_grad():
        assert step(listen, net_of(Neuron())) is None


def by_hand(weight):
    weight.grad = torch.ones_like(weight)


def in_place(weight):
    with torch.no_grad():
        weight.add_(0.01)


def behind_autograd(weight):
    weight.data += 0.01


@pytest.mark.parametrize("learn", [by_hand, in_place, behind_autograd])
def test_weights_that_learn_by_a_rule_of_their_own_are_no_loss(listen, learn):
    assert step(listen, net_of(Neuron()), learn=learn) == 0


def test_a_readout_by_its_potential_needs_no_spikes_to_learn_from(listen):
    class Readout(nn.Sequential):
        def forward(self, x):
            super().forward(x)
            return self[1].mem

    assert step(listen, Readout(nn.Linear(8, 16), Neuron())) == 0
