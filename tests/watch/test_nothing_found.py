"""Trainings of which nothing is seen: silence must not be taken for health."""

import pytest
import torch
from torch import nn

import spikewatch


TOLD = "no layer made spikes"


class Heaviside(nn.Module):
    """Spikes for a training that needs no derivative of them."""

    def __init__(self, threshold):
        super().__init__()
        self.threshold = threshold

    def forward(self, x):
        return (x > self.threshold).to(x.dtype)


class ByHand(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.act, self.readout = nn.Linear(6, 16), Heaviside(0.1), nn.Linear(16, 2)

    def forward(self, x):
        return self.readout(self.act(self.fc(x)))


def train_by_hand(net, *, n_steps):
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with torch.no_grad():
        for _ in range(n_steps):
            net(torch.rand(8, 6))
            for p in net.parameters():
                p.grad = torch.ones_like(p)
            optimizer.step()


@pytest.mark.parametrize(("n_steps", "n_told"), [(12, 0), (40, 1)])
def test_a_training_without_autograd_is_told_that_nothing_is_watched(
    watched, caplog, n_steps, n_told
):
    watched(net := ByHand())
    train_by_hand(net, n_steps=n_steps)
    told = [r.getMessage() for r in caplog.records if TOLD in r.getMessage()]
    assert len(told) == n_told
    assert all("no_grad" in message for message in told)


class Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u):
        return (u > 0).to(u.dtype)

    @staticmethod
    def backward(ctx, gradient):
        return gradient


class ActorCritic(nn.Module):
    """Has no forward: the training calls a method of its own."""

    def __init__(self, then):
        super().__init__()
        self.fc, self.readout, self.then = nn.Linear(6, 16), nn.Linear(16, 2), then
        self.own = nn.Parameter(torch.randn(16, 16))

    def act(self, x):
        return self.readout(self.then(Spike.apply(self.fc(x) @ self.own)))


def train_actor(net, *, n_steps):
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    for _ in range(n_steps):
        net.act(torch.rand(8, 6)).sum().backward()
        optimizer.step()


def test_spikes_of_a_method_that_forward_never_calls_are_counted_where_one_is_told_to_tap_them(
    watched, stored, caplog
):
    watched(net := ActorCritic(nn.Identity()))
    train_actor(net, n_steps=3)
    assert "in forward or in another method" in " ".join(r.getMessage() for r in caplog.records)
    watch = watched(net := ActorCritic(lambda spikes: spikewatch.tap("act", spikes)))
    train_actor(net, n_steps=3)
    watch.close()
    assert stored("SELECT layer, count(*), sum(n_obs) FROM spikes GROUP BY layer").rows() == [
        ("act", 3, 3 * 8)
    ]
