"""A sample begins where a user's neuron does not go on with the state that was left behind."""

import pytest
import snntorch as snn
import torch
from norse import torch as norse
from norse.torch.functional.lif import LIFFeedForwardState
from torch import nn

from ..own_neurons import Spike


T, BATCH, N = 4, 3, 5


class Keeps(nn.Module):
    """A neuron with a threshold and a state."""

    def __init__(self, rest):
        super().__init__()
        self.rest, self.threshold, self.v = rest, rest + 1.0, torch.full((BATCH, N), rest)

    def step(self, x, v):
        v = v + 0.3 * (self.rest - v) + x
        s = Spike.apply(v - self.threshold)
        return s, torch.where(s.bool(), torch.full_like(v, self.rest), v)

    def forward(self, x):
        s, self.v = self.step(x, self.v)
        return s


class Passes(Keeps):
    """The same; the loop hands the state on."""

    def forward(self, x, v):
        return self.step(x, v)


class Net(nn.Module):
    def __init__(self, neuron=Keeps, rest=0.0):
        super().__init__()
        torch.manual_seed(0)
        self.fc, self.act = nn.Linear(8, N), neuron(rest)

    def forward(self, x):
        if not isinstance(self.act, Passes):
            return self.act(self.fc(x))
        s, self.act.v = self.act(self.fc(x), self.act.v)
        return s

    def detach(self, how=torch.detach):
        self.act.v = how(self.act.v)

    def start(self, noise=0.0):
        self.act.v = torch.full((BATCH, N), self.act.rest) + noise * torch.rand(BATCH, N)


def run(net, listener, *, n=T, per_pass=1, trains=True, begin=lambda: None):
    """One observed step; what is known of when the first spikes came, in samples and time steps."""
    begin()
    with torch.set_grad_enabled(trains):
        spikes = []
        for t in range(n):
            listener.n_forwards += t % per_pass == 0
            spikes.append(net(4 * torch.rand(BATCH, 8)))
    if trains:
        sum(spikes).sum().backward()
    timing = listener.flush("act", "timing", "train" if trains else "eval")
    listener.step += 1
    if timing is None:
        return None
    n_pairs = timing["n_ttfs_pairs"]
    return n_pairs / (BATCH * N), timing["sum_ttfs_length_steps"] / n_pairs


@pytest.mark.parametrize("trains", [True, False], ids=["trains", "evaluates"])
@pytest.mark.parametrize("per_pass", [1, T], ids=["loop outside", "loop within"])
@pytest.mark.parametrize("neuron", [Keeps, Passes])
@pytest.mark.parametrize(
    ("rest", "noise"), [(-65.0, 0.0), (0.5, 0.0), (0.0, 0.5)], ids=["-65", "half", "random"]
)
def test_a_sample_begins_at_any_potential(listen, rest, noise, neuron, per_pass, trains):
    net = Net(neuron, rest)
    listener = listen(net)
    for _ in range(3):
        how = {"per_pass": per_pass, "trains": trains, "begin": lambda: net.start(noise)}
        assert run(net, listener, **how) == (1, T)


@pytest.mark.parametrize("how", [torch.detach, lambda v: v.detach().clone()])
@pytest.mark.parametrize("neuron", [Keeps, Passes])
def test_a_state_that_is_detached_goes_on_until_it_is_replaced(listen, neuron, how):
    net = Net(neuron)
    listener = listen(net)
    for _ in range(2):
        assert run(net, listener, begin=lambda: net.start(0.5)) == (1, T)
        for _ in range(2):
            assert run(net, listener, begin=lambda: net.detach(how)) is None


def test_where_a_part_of_the_batch_begins_anew_nothing_is_said(listen):
    net = Net()
    listener = listen(net)
    assert run(net, listener, begin=lambda: net.start(0.5)) == (1, T)
    keep = torch.tensor([[1.0], [0.0], [1.0]])
    assert run(net, listener, begin=lambda: net.detach(lambda v: v.detach() * keep)) is None


def test_between_steps_that_are_not_observed_it_is_as_it_was_in_those_that_are(listen):
    net = Net()
    listener = listen(net)
    run(net, listener, begin=lambda: net.start(0.5))
    listener.step += 9
    assert run(net, listener, begin=lambda: net.start(0.5)) is None
    assert "one after the other" in listener.notes[-1][1]
    assert run(net, listener, begin=lambda: net.start(0.5)) == (1, T)
    listener.step += 9
    assert run(net, listener, begin=lambda: net.start(0.5)) == (1, T)
    assert run(net, listener, begin=net.detach) is None
    listener.step += 9
    assert run(net, listener, begin=lambda: net.start(0.5)) is None
    assert len(listener.notes) == 1


class OfNorse(Net):
    """A cell that is given its state."""

    def __init__(self):
        super().__init__()
        self.act = norse.LIFCell()

    def forward(self, x):
        s, self.state = self.act(8 * self.fc(x), self.state)
        return s

    def start(self, noise=0.5):
        self.state = LIFFeedForwardState(noise * torch.rand(BATCH, N), torch.zeros(BATCH, N))

    def detach(self, how=torch.detach):
        self.state = LIFFeedForwardState(*map(how, self.state))


class OfSnntorch(OfNorse):
    def __init__(self):
        super().__init__()
        self.act = snn.Leaky(beta=0.9)

    def forward(self, x):
        s, self.mem = self.act(self.fc(x), self.mem)
        return s

    def start(self, noise=0.5):
        self.mem = noise * torch.rand(BATCH, N)

    def detach(self, how=torch.detach):
        self.mem = how(self.mem)


@pytest.mark.parametrize("per_pass", [1, T], ids=["loop outside", "loop within"])
@pytest.mark.parametrize("make", [OfNorse, OfSnntorch])
def test_of_a_librarys_neuron_it_shows_once_it_has_happened(listen, make, per_pass):
    heard = listen(net := make())
    assert run(net, heard, per_pass=per_pass, begin=net.start) is None
    for _ in range(3):
        assert run(net, heard, per_pass=per_pass, begin=net.start) == (1, T)
    for _ in range(2):
        assert run(net, heard, per_pass=per_pass, begin=net.detach) is None
