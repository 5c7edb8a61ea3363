"""Neurons whose numbers are gates, or what a function makes of what they learn (GLIF)."""

import math

import pytest
import torch
from torch import nn

from .own_neurons import Spike


BATCH, CHANNELS, N_STEPS = 2, 6, 4


class Gate(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.gt(0.5).float()

    @staticmethod
    def backward(ctx, gradient):
        return gradient.clone()


def logit(p):
    return nn.Parameter(torch.full((CHANNELS,), math.log(p / (1 - p))))


class GatedLIF(nn.Module):
    """As in Yao et al. 2022, channel-wise: gates α, β, γ between two kinds of each mechanism."""

    def __init__(self, gate):
        super().__init__()
        self.gate = gate
        self.alpha, self.beta, self.gamma = logit(0.7), logit(0.6), logit(0.7)
        self.tau, self.Vth, self.leak, self.reVth = (logit(p) for p in (0.25, 0.5, 0.06, 0.5))
        self.conduct = logit(0.5)

    def forward(self, x):
        u, out = torch.zeros(x.shape[1:]), torch.zeros(x.shape)
        for step in range(N_STEPS):
            numbers = (p.sigmoid() for p in (self.tau, self.leak, self.reVth, self.conduct))
            u, out[step] = self.update(
                u, out[max(step - 1, 0)].clone(), x[step], *numbers, theta=self.Vth.sigmoid()
            )
        return out

    def update(self, u, o, x, tau, leak, reset, conduct, theta):
        al, be, ga = (self.gate(p.view(1, -1, 1, 1).sigmoid()) for p in self.gates())
        tau, leak, reset, conduct, theta = (
            p[None, :, None, None] for p in (tau, leak, reset, conduct, theta)
        )
        current = x * (1 - be * (1 - conduct)) - (1 - ga) * reset * o
        u = (1 - al * (1 - tau)) * u * (1 - ga * o) - (1 - al) * leak + current
        return u, Spike.apply(u - theta)

    def gates(self):
        return self.alpha, self.beta, self.gamma


def hard(gate):
    return Gate.apply(gate)


def steep(gate):
    return Gate.apply((2 * gate).clamp(0, 1))


def soft(gate):
    return gate


@pytest.mark.parametrize("gate", [soft, hard, steep])
def test_a_neuron_with_gates_is_one_layer_and_its_logits_are_no_numbers_of_it(listen, gate):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, CHANNELS, 3), neuron := GatedLIF(gate))
    heard = listen(net)
    current = net[0](torch.rand(N_STEPS * BATCH, 1, 8, 8)).unflatten(0, (N_STEPS, BATCH))
    spikes = neuron(4 * current)
    spikes.sum().backward()
    assert heard.spiking == ["1"]
    assert heard.observers["1"].inner_layers == []
    rows = heard.tables("1")
    assert rows["spikes"]["n_spikes"] == spikes.count_nonzero() > 0
    assert rows["spikes"]["n_obs"] == N_STEPS * BATCH
    assert "sum_threshold" not in rows["dynamics"]
    assert rows["dynamics"]["n_learnable"] == 8
    assert rows.keys().isdisjoint({"membrane", "amplitudes"})
    (told,) = {text for name, text in heard.notes if name == "1"}
    assert "parameter 'Vth'" in told
    assert "attribute `threshold`" in told


class Told(GatedLIF):
    """Does what the note says."""

    def forward(self, x):
        self.threshold = self.Vth.detach().sigmoid()
        return super().forward(x)


def test_what_a_function_makes_of_a_threshold_may_be_told(listen):
    torch.manual_seed(0)
    heard = listen(net := nn.Sequential(Told(soft)))
    spikes = net(2 * torch.rand(N_STEPS, BATCH, CHANNELS, 5, 7).requires_grad_())
    rows = heard.tables("0")
    assert rows["dynamics"]["sum_threshold"] == pytest.approx(CHANNELS * 0.5)
    assert rows["membrane"]["n_membrane"] == rows["membrane"]["n_membrane_pre_reset"] > 0
    assert rows["membrane"]["n_above_threshold"] == spikes.sum() > 0


class Learned(nn.Module):
    """A neuron with a threshold that is learned, and a forward to be written."""

    def __init__(self):
        super().__init__()
        self.threshold, self.w = nn.Parameter(torch.tensor(0.7)), nn.Parameter(torch.tensor(0.0))

    def forward(self, x):
        u, out = torch.zeros_like(x[0]), []
        for current in x:
            u = self.w.sigmoid() * u + current
            out.append(self.fire(u))
            u = u - out[-1]
        return torch.stack(out)


class WithDecay(Learned):
    def fire(self, u):
        return Spike.apply(u - self.threshold)


class WithSurrogate(Learned):
    def fire(self, u):
        theta = self.threshold.view(1, -1)
        soft = torch.sigmoid(4 * (u - theta))
        return soft + (u.ge(theta).float() - soft).detach()


class WithBound(Learned):
    def fire(self, u):
        return Spike.apply(u / torch.clamp(self.threshold, min=0.1) - 1)


class Exponential(Learned):
    def fire(self, u):
        return Spike.apply(u - torch.exp(self.threshold))


class Softplus(Learned):
    def fire(self, u):
        theta = 0.1 + self.threshold
        return Spike.apply(u - nn.functional.softplus(theta))


class PassedOn(Learned):
    def fire(self, u):
        return Spike.apply(u - self.positive(self.threshold))

    def positive(self, x):
        return x.exp()


@pytest.mark.parametrize("make", [WithDecay, WithSurrogate, WithBound])
def test_a_threshold_that_is_learned_stands_as_it_is_beside_what_is_squashed(listen, make):
    assert thresholds_of(listen, make()) == pytest.approx(0.7)


@pytest.mark.parametrize("make", [Exponential, Softplus, PassedOn])
def test_a_threshold_that_a_function_makes_is_not_taken_for_what_it_is_made_of(listen, make):
    assert thresholds_of(listen, make()) is None


def thresholds_of(listen, neuron):
    torch.manual_seed(0)
    heard = listen(net := nn.Sequential(nn.Linear(6, 16), neuron))
    net(4 * torch.rand(5, 8, 6)).sum().backward()
    return heard.tables("1").get("dynamics", {}).get("sum_threshold")
