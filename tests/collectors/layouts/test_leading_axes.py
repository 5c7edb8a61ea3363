"""Time and batch of spikes that a function makes of a whole sequence at once."""

import pytest
import torch
from torch import nn

from ..own_neurons import Levels


class IntegerSpikes(nn.Module):
    """Integer spikes of all time steps at once, and no loop (Luo et al. 2024)."""

    def forward(self, u):
        return Levels.apply(2 * u)


class Images(nn.Module):
    """Convolutions on [T·B, C, H, W], spikes in [T, B, C, H, W] or [B, T, C, H, W], then tokens."""

    def __init__(self, *, batch_first=False, n_steps=None):
        super().__init__()
        self.batch_first = batch_first
        if n_steps is not None:
            self.T = n_steps
        self.conv, self.norm, self.first = (
            nn.Conv2d(1, 8, 3, 1, 1),
            nn.BatchNorm2d(8),
            IntegerSpikes(),
        )
        self.mix, self.second = nn.Linear(36, 6), IntegerSpikes()

    def forward(self, x):  # [T, B, 1, H, W]
        leading = x.shape[:2]
        u = self.norm(self.conv(x.flatten(0, 1))).view(*leading, 8, *x.shape[3:])
        tokens = self.mix(self.first(u + 0.1).flatten(3))
        return self.second(tokens @ tokens.mT)


def train(heard, net, shape):
    heard.n_forwards += 1
    net(torch.randn(shape)).pow(2).sum().backward()


def length_of_samples(tables):
    return tables["timing"]["sum_ttfs_length_steps"] / tables["timing"]["n_ttfs_pairs"]


def test_a_batch_that_was_taken_apart_has_two_leading_axes(listen):
    torch.manual_seed(0)
    net = Images(n_steps=4)
    heard = listen(net)
    for batch in (16, 5, 1):
        train(heard, net, (4, batch, 1, 6, 6))
        tables = heard.tables("first")
        assert (tables["spikes"]["n_neurons"], tables["spikes"]["n_obs"]) == (8 * 36, 4 * batch)
        assert length_of_samples(tables) == 4
        row = heard.flush("second", "spikes")
        assert (row["n_neurons"], row["n_obs"]) == (8 * 8, 4 * batch)
    assert not heard.notes


def test_the_number_of_steps_that_the_model_holds_tells_which_one_is_time(listen):
    torch.manual_seed(0)
    net = Images(n_steps=4, batch_first=True)
    heard = listen(net)
    train(heard, net, (16, 4, 1, 6, 6))
    assert length_of_samples(heard.tables("first")) == 4
    assert not heard.notes


def test_what_nothing_tells_is_read_as_time_first_and_told_of(listen):
    torch.manual_seed(0)
    net = Images()
    heard = listen(net)
    train(heard, net, (4, 16, 1, 6, 6))
    assert length_of_samples(heard.tables("first")) == 4
    (note, *_) = [message for layer, message in heard.notes if layer == "first"]
    assert "[4, 16, 8, 6, 6] at once, which is read as 'TB*'" in note


class Stepwise(nn.Module):
    """A convolution that is called for each time step: no batch is taken apart."""

    def __init__(self, n_groups):
        super().__init__()
        self.conv, self.act = nn.Conv2d(1, 8, 3, 1, 1), IntegerSpikes()
        self.n_groups = n_groups

    def forward(self, x):
        u = torch.stack([self.conv(current) for current in x])
        return self.act(u.unflatten(2, (self.n_groups, -1)).flatten(3, 4))


@pytest.mark.parametrize(("n_groups", "shape"), [(8, (8, 6, 6)), (4, None)])
def test_one_axis_more_than_convolutions_make_is_that_of_time_and_told_of(listen, n_groups, shape):
    torch.manual_seed(0)
    net = Stepwise(n_groups)
    heard = listen(net)
    train(heard, net, (4, 12, 1, 6, 6))
    row = heard.flush("act", "spikes")
    if shape is not None:  # its channels are where two leading axes leave them
        assert (row["n_neurons"], row["n_obs"]) == (8 * 36, 48)
    assert ("B*" if shape is None else "TB*") in heard.notes[-1][1]


def test_a_batch_of_volumes_has_no_axis_of_time(listen):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv3d(1, 8, 3, 1, 1), nn.BatchNorm3d(8), IntegerSpikes())
    heard = listen(net)
    train(heard, net, (5, 1, 4, 8, 8))
    row = heard.flush("2", "spikes")
    assert (row["n_neurons"], row["n_obs"]) == (8 * 4 * 64, 5)
    assert not heard.notes
