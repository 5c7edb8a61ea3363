"""Time steps whose number changes while a network is trained, and sequences of a single one."""

import pytest
import torch
from torch import nn

from ..own_neurons import Spike


class Folds(nn.Module):
    """Takes time out of the batch, and puts it back; how many time steps, it is told."""

    def __init__(self, n_steps):
        super().__init__()
        self.threshold, self.T = 0.5, n_steps

    def forward(self, x):
        potential, spikes = 0.0, []
        for current in x.unflatten(0, (self.T, -1)):
            potential = 0.5 * potential + current
            s = Spike.apply(potential - self.threshold)
            potential = potential * (1 - s)
            spikes.append(s)
        return torch.stack(spikes).flatten(0, 1)


class HoldsNone(Folds):
    """The same, whose class has the number of time steps."""

    T = 4

    def __init__(self):
        super().__init__(4)
        del self.T


def sequence(n_steps, batch):
    return 2 * torch.rand(n_steps * batch, 8) - 0.5


def train_step(heard, net, x, step):
    heard.step, heard.n_forwards = step, step + 1
    spikes = net(x.requires_grad_())
    spikes.pow(2).sum().backward()
    return spikes.detach()


def check(tables, spikes, n_steps):
    times = spikes.unflatten(0, (n_steps, -1)).ne(0)
    timing = tables["timing"]
    assert tables["spikes"]["n_obs"] == len(spikes)
    assert timing["n_ttfs_pairs"] == times[0].numel()
    assert timing["sum_ttfs_length_steps"] == n_steps * times[0].numel()
    assert timing["n_ttfs_fired"] == times.any(0).sum() > 0
    assert timing["sum_ttfs_steps"] == times.int().argmax(0)[times.any(0)].sum()


@pytest.mark.parametrize("lengths", [(2, 4, 1, 6, 3), (1, 4, 2), (4, 1, 4)])
def test_a_neuron_that_folds_time_may_be_given_another_number_of_steps(listen, lengths):
    torch.manual_seed(0)
    net = nn.Sequential(Folds(lengths[0]))
    heard = listen(net)
    for step, n_steps in enumerate(lengths):
        net[0].T = n_steps
        spikes = train_step(heard, net, sequence(n_steps, 12), step)
        tables = heard.tables("0")
        assert (tables["spikes"]["n_neurons"], tables["spikes"]["n_obs"]) == (8, 12 * n_steps)
        if n_steps > 1:
            check(tables, spikes, n_steps)
        else:
            assert tables["gradients"].get("sum_sq_grad_first") is None


def test_as_many_steps_and_samples_in_all_may_be_divided_otherwise(listen):
    torch.manual_seed(0)
    net = nn.Sequential(Folds(2))
    heard = listen(net)
    for step, n_steps in enumerate((2, 4, 8)):
        net[0].T = n_steps
        spikes = train_step(heard, net, sequence(n_steps, 24 // n_steps), step)
        check(heard.tables("0"), spikes, n_steps)


def test_an_evaluation_has_the_number_of_steps_that_the_neuron_holds(listen):
    torch.manual_seed(0)
    net = nn.Sequential(Folds(2))
    heard = listen(net)
    train_step(heard, net, sequence(2, 12), 0)
    for n_steps in (8, 1, 2):
        net[0].T = n_steps
        heard.n_forwards += 1
        with torch.no_grad():
            spikes = net(sequence(n_steps, 6))
        check(heard.tables("0", "eval"), spikes, n_steps)


def test_an_evaluation_of_a_neuron_that_holds_none_has_those_of_the_training(listen):
    torch.manual_seed(0)
    net = nn.Sequential(HoldsNone())
    heard = listen(net)
    train_step(heard, net, sequence(4, 12), 0)
    heard.n_forwards += 1
    with torch.no_grad():
        spikes = net(sequence(4, 6))
    check(heard.tables("0", "eval"), spikes, 4)


class InPlace(nn.Module):
    """Writes each time step into a sequence (EMS-YOLO, Su et al. 2023)."""

    def __init__(self, time):
        super().__init__()
        self.time = time

    def forward(self, x):
        potential, spikes = 0.0, torch.zeros_like(x)
        for t in range(x.shape[self.time]):
            current = x.select(self.time, t)
            potential = 0.25 * potential + current
            s = Spike.apply(potential - 0.5)
            potential = potential * (1 - s.detach())
            spikes.select(self.time, t).copy_(s)
        return spikes


@pytest.mark.parametrize("time", [0, 1])
def test_a_single_time_step_that_is_written_into_a_sequence_leaves_the_batch_a_batch(listen, time):
    torch.manual_seed(0)
    net = nn.Sequential(InPlace(time))
    heard = listen(net)
    for step, (n_steps, batch) in enumerate(((1, 12), (1, 5), (4, 12))):
        x = torch.randn((n_steps, batch, 8) if time == 0 else (batch, n_steps, 8))
        train_step(heard, net, x, step)
        row = heard.flush("0", "spikes")
        assert (row["n_neurons"], row["n_obs"]) == (8, n_steps * batch)
    assert not heard.notes
