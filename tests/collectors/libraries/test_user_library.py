"""Neurons of users, by the names that they give their attributes."""

import pytest
import torch
from torch import nn

from ..own_neurons import Spike


class Keeps(nn.Module):
    """Keeps its state; the user resets it."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))
        self.v_th, self.decay = nn.Parameter(torch.tensor(0.5)), 0.8
        self.mem, self.reset = None, "soft"

    def forward(self, x):
        u = self.weight * x if self.mem is None else self.decay * self.mem + x
        s = Spike.apply(u - self.v_th)
        self.mem = u - s * self.v_th
        return s


class Passes(nn.Module):
    """Is given its state, and returns it."""

    def __init__(self):
        super().__init__()
        self.beta = 0.8
        self.register_buffer("threshold", torch.tensor(0.5))

    def forward(self, x, mem=None):
        u = x if mem is None else self.beta * mem + x
        s = Spike.apply(u - self.threshold)
        return s, u * (1 - s)


def run(neuron, *, by_keyword=False):
    """Two samples of four steps."""
    for _ in range(2):
        mem = neuron.mem = None
        for x in torch.rand(4, 3, 4, requires_grad=True):
            if isinstance(neuron, Keeps):
                neuron(x)
            elif by_keyword:
                _, mem = neuron(x, mem=mem)
            else:
                _, mem = neuron(x, mem)


@pytest.mark.parametrize("trains", [True, False])
@pytest.mark.parametrize(("make", "by_keyword"), [(Keeps, False), (Passes, False), (Passes, True)])
def test_a_sample_starts_where_the_state_is_fresh(told, trains, make, by_keyword):
    torch.manual_seed(0)
    neuron = make()
    seen = told(neuron)
    with torch.set_grad_enabled(trains):
        run(neuron, by_keyword=by_keyword)
    assert seen.starts == [True, False, False, False] * 2


def test_zeros_are_a_fresh_state_too(told):
    neuron = Passes()
    seen, mem = told(neuron), torch.zeros(3, 4)
    for x in torch.rand(3, 3, 4):
        _, mem = neuron(x, mem)
        mem = mem.detach()  # truncated backpropagation starts no sample
    assert seen.starts == [True, False, False]


class Replaces(nn.Module):
    """Keeps its state beyond a sample, and replaces it when it is called for the next one."""

    def __init__(self):
        super().__init__()
        self.threshold, self.mem = 0.5, 0.0

    def forward(self, x, t):
        self.mem = x if t == 0 else 0.8 * self.mem + x
        s = Spike.apply(self.mem - self.threshold)
        self.mem = self.mem * (1 - s)
        return s


class Chunks(Replaces):
    """Cuts the graph of its state itself, and goes on with it."""

    def forward(self, x, t):
        if t == 0:
            self.mem = self.mem.detach()
        return super().forward(x, 1)


@pytest.mark.parametrize("trains", [True, False])
def test_a_sample_starts_where_a_state_is_replaced_whose_graph_is_freed(told, trains):
    torch.manual_seed(0)
    neuron = Replaces()
    seen = told(neuron)
    for sample in range(2):
        with torch.set_grad_enabled(trains or sample == 0):
            spikes = [neuron(x, t) for t, x in enumerate(torch.rand(3, 2, 4, requires_grad=True))]
        if spikes[-1].requires_grad:
            sum(spikes).sum().backward()
    assert seen.starts[3:] == [True, False, False]


def test_a_state_that_forward_cuts_itself_runs_on(told):
    torch.manual_seed(0)
    neuron = Chunks()
    neuron.mem = torch.rand(2, 4)
    seen = told(neuron)
    for _ in range(2):
        x = torch.rand(3, 2, 4, requires_grad=True)
        sum(neuron(x[t], t) for t in range(3)).sum().backward()
    assert not any(seen.starts[1:])


def test_a_candidate_without_a_state_tells_nothing():
    from spikewatch.collectors.libraries.user import LIBRARY

    class Heaviside(nn.Module):
        def forward(self, u):
            return Spike.apply(u)

    assert LIBRARY.starts_sample(Heaviside(), (torch.rand(2),), {}) is None
    assert LIBRARY.membrane(Heaviside(), torch.ones(2)) is None


def test_parameters_are_read_off_the_attributes(dynamics):
    keeps = Keeps()
    found = dynamics(keeps)
    assert (found.threshold, found.decay, found.reset) == (0.5, 0.8, "subtract")
    assert found.learnable == {"v_th": keeps.v_th}
    passes = Passes()
    assert (dynamics(passes).threshold, dynamics(passes).decay) == (0.5, 0.8)
    passes.beta = 25.0  # the sharpness of a surrogate, by the same name
    assert dynamics(passes).decay is None


@pytest.mark.parametrize("make", [Keeps, Passes])
def test_the_state_is_the_potential_and_not_said_to_be_before_the_reset(told, make):
    torch.manual_seed(1)
    neuron = make()
    seen = told(neuron)
    run(neuron)
    spikes = torch.stack(seen.spikes)
    assert spikes.any()
    assert {m.pre_reset for m in seen.membranes} == {False}
    before = torch.stack(seen.saved) + 0.5
    after = before - 0.5 * spikes if make is Keeps else before * (1 - spikes)
    torch.testing.assert_close(seen.potentials, after.detach())


def test_a_property_is_never_read(dynamics):
    class Guarded(Keeps):
        @property
        def threshold(self):
            raise RuntimeError("not now")

    assert dynamics(Guarded()).threshold == 0.5
