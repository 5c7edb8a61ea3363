"""A neuron that is called with zeros before the input comes has not begun two samples."""

import pytest
import snntorch as snn
import torch
from torch import nn

from ..own_neurons import Spike


T, BATCH, N = 6, 16, 8


class IF(nn.Module):
    """Has a threshold and a state; the first of its time steps has no input (burst-ann2snn)."""

    def __init__(self):
        super().__init__()
        self.threshold, self.mem = 1.0, 0.0

    def begin(self):
        self.mem = 0.0

    def forward(self, x):
        self.mem = self.mem + x
        spikes = Spike.apply(self.mem - self.threshold)
        self.mem = self.mem - spikes * self.threshold
        return spikes


class Leaky(snn.Leaky):
    def __init__(self):
        super().__init__(beta=0.9, init_hidden=True)

    def begin(self):
        self.reset_mem()


@pytest.mark.parametrize("neuron", [IF, Leaky])
@pytest.mark.parametrize("trains", [True, False])
def test_a_time_step_of_zeros_belongs_to_the_sample_that_it_begins(listen, neuron, trains):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, N), neuron())
    heard = listen(net)
    for step in range(3):
        heard.step = step
        net[1].begin()
        with torch.set_grad_enabled(trains):
            net[1](torch.zeros(BATCH, N))
            for x in torch.rand(T, BATCH, 4):
                heard.n_forwards += 1
                net(3 * x)
        timing = heard.flush("1", "timing", "train" if trains else "eval")
        assert timing["n_ttfs_pairs"] == BATCH * N
        assert timing["sum_ttfs_length_steps"] == (T + 1) * BATCH * N
    assert not [m for _, m in heard.notes if "several sites" in m]


def test_samples_of_a_neuron_that_leaves_its_state_as_it_is_do_not_go_on(listen):
    class Gate(IF):
        def __init__(self):
            super().__init__()
            self.mem = torch.zeros(BATCH, N)

        def forward(self, x):
            return Spike.apply(self.mem + x - self.threshold)

    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, N), Gate())
    heard = listen(net)
    for step in range(2):
        heard.step, heard.n_forwards = step, step + 1
        net(3 * torch.rand(BATCH, 4))
        assert heard.flush("1", "timing")["sum_ttfs_length_steps"] == BATCH * N
