"""A neuron with one state that has its turn at two places in each time step."""

import pytest
import snntorch as snn
import torch
from spikingjelly.activation_based import neuron
from torch import nn

from .test_primed import IF


T, BATCH, N = 5, 16, 8


class Leaky(snn.Leaky):
    def __init__(self):
        super().__init__(beta=0.9, init_hidden=True)

    def begin(self):
        self.reset_mem()


class LIFNode(neuron.LIFNode):
    def begin(self):
        self.reset()


class Net(nn.Module):
    def __init__(self, act):
        super().__init__()
        self.fc1, self.fc2, self.act = nn.Linear(4, N), nn.Linear(N, N), act


class Twice(Net):
    def forward(self, x):
        return self.act(self.fc2(self.act(self.fc1(x))))


class FirstApart(Net):
    """Has a place for the first time step, and one for the others."""

    def forward(self, xs):
        out = self.act(self.fc1(xs[0]))
        for x in xs[1:]:
            out = out + self.act(self.fc1(x))
        return out


@pytest.mark.parametrize("act", [IF, Leaky, LIFNode])
def test_two_places_in_each_time_step_are_no_sample_of_twice_as_many_steps(listen, act):
    torch.manual_seed(0)
    net = Twice(act())
    heard = listen(net)
    for step in range(2):
        heard.step = step
        net.act.begin()
        out = 0.0
        for x in 3 * torch.rand(T, BATCH, 4):
            heard.n_forwards += 1
            out = out + net(x)
        out.sum().backward()
        tables = heard.tables("act")
        assert tables["spikes"]["n_obs"] == 2 * T * BATCH
        assert "timing" not in tables
    assert [m for name, m in heard.notes if name == "act" and "twice in each time step" in m]


@pytest.mark.parametrize("act", [IF, Leaky, LIFNode])
@pytest.mark.parametrize("trains", [True, False])
def test_a_first_time_step_at_a_place_of_its_own_belongs_to_its_sample(listen, act, trains):
    torch.manual_seed(0)
    net = FirstApart(act())
    heard = listen(net)
    for step in range(2):
        heard.step = heard.n_forwards = step
        net.act.begin()
        with torch.set_grad_enabled(trains):
            net(3 * torch.rand(T, BATCH, 4))
        timing = heard.tables("act", "train" if trains else "eval")["timing"]
        assert timing["sum_ttfs_length_steps"] == T * BATCH * N
    assert not [m for _, m in heard.notes if "several places" in m]
