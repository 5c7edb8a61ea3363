"""The channel-wise ternary spike learns its threshold, and leaks neither batch nor future."""

import copy

import pytest
import torch
from torch import nn

from spikewatch.zoo import ATan, ChannelTernarySpike, TernarySpike, Triangle, absorb_amplitude


@pytest.mark.parametrize("surrogate", [ATan(2.0), Triangle(1.0, 0.8)])
def test_gradients_are_those_of_the_formulas(surrogate):
    torch.manual_seed(0)
    neuron = ChannelTernarySpike(3, surrogate=surrogate).double()
    with torch.no_grad():
        neuron.amplitude.copy_(torch.tensor([0.5, 1.0, 2.0]))
        neuron.threshold.copy_(torch.tensor([0.2, 0.6, 1.1]))
    x = torch.randn(4, 5, 3, dtype=torch.float64, requires_grad=True)
    up = torch.randn_like(x)
    y = neuron(x)
    y.backward(up)
    a, theta, plain = neuron.amplitude.detach(), neuron.threshold.detach(), x.detach()
    fired = plain.sign() * (plain.abs() > theta)
    slope = surrogate.derivative(plain.abs() - theta)
    assert torch.equal(y, a * fired)
    torch.testing.assert_close(x.grad, up * a * slope)
    torch.testing.assert_close(neuron.amplitude.grad, (up * fired).sum((0, 1)))
    torch.testing.assert_close(neuron.threshold.grad, (-up * a * plain.sign() * slope).sum((0, 1)))


def test_the_threshold_moves_to_where_the_loss_is_smaller():
    torch.manual_seed(0)
    neuron = ChannelTernarySpike(2, threshold=2.0)
    optimizer = torch.optim.Adam(neuron.parameters(), 0.05)
    for _ in range(60):
        x = torch.randn(256, 2) * torch.tensor([1.0, 0.5])
        optimizer.zero_grad()
        (neuron(x) - x).square().mean().backward()
        optimizer.step()
    wide, narrow = neuron.threshold.tolist()
    assert narrow < wide < 1.5  # the best for N(0, 1) is 0.61, with an amplitude of 1.22


def test_a_token_s_spikes_depend_on_no_other_sample_and_on_no_later_token():
    torch.manual_seed(0)
    neuron, x = ChannelTernarySpike(8), torch.randn(4, 6, 8)
    whole = neuron(x)
    alone = torch.stack([neuron(x[:, t]) for t in range(6)], 1)
    assert torch.equal(alone, whole)
    changed = x.clone()
    changed[1:] *= 100
    changed[:, 3:] = 0
    assert torch.equal(neuron(changed)[0, :3], whole[0, :3])


def test_a_single_value_can_fire():
    assert ChannelTernarySpike(1)(torch.tensor([[-0.9]])).item() == -1


def test_low_precision_stays_low_precision():
    x = torch.randn(4, 3, dtype=torch.bfloat16, requires_grad=True)
    y = ChannelTernarySpike(3)(x)
    y.sum().backward()
    assert y.dtype == x.grad.dtype == torch.bfloat16


@pytest.mark.parametrize(
    "make", [TernarySpike, lambda: TernarySpike(8), lambda: ChannelTernarySpike(8)]
)
def test_absorbing_the_amplitude_changes_no_output_and_leaves_unit_spikes(make):
    torch.manual_seed(0)
    neuron, following = make().eval(), nn.Linear(8, 5)
    with torch.no_grad():
        neuron.amplitude.uniform_(0.3, 3.0)
    x = torch.randn(32, 8)
    before, kept = following(neuron(x)), copy.deepcopy(following)
    absorb_amplitude(neuron.amplitude, following)
    torch.testing.assert_close(following(neuron(x)), before)
    assert set(neuron(x).unique().tolist()) == {-1, 0, 1}
    assert not torch.equal(following.weight, kept.weight)


def test_amplitudes_of_another_layer_are_refused():
    with pytest.raises(ValueError, match="8 amplitudes meet a layer with 4 inputs"):
        absorb_amplitude(TernarySpike(8).amplitude, nn.Linear(4, 2))
