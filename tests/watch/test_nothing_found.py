"""Trainings of which nothing is seen: silence must not be taken for health."""

import pytest
import torch
from torch import nn


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
