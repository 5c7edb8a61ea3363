"""The checkpoint before a non-finite step."""

import math

import pytest
import torch
from torch import nn

import spikewatch
from spikewatch.alerts.guard import StepGuard


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1))


def train(net, optimizer, *, factor=1.0):
    optimizer.zero_grad()
    (net(torch.ones(2, 4)).sum() * factor).backward()
    optimizer.step()


def test_it_is_called_while_the_weights_are_still_good_and_once_for_an_illness(net):
    saved = []

    def save(alert):
        saved.append((alert["layer"], all(p.isfinite().all() for p in net.parameters())))

    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    guard = StepGuard(net, step=lambda: 7, checkpoint=save, run="r", rank=0)
    train(net, optimizer)
    train(net, optimizer, factor=math.nan)
    train(net, optimizer)
    guard.close()
    assert saved == [("0", True)]


def test_the_optimizer_of_another_model_is_left_alone(net):
    saved = []
    other = nn.Linear(4, 1)
    guard = StepGuard(net, step=lambda: 0, checkpoint=saved.append, run="r", rank=0)
    train(other, torch.optim.SGD(other.parameters(), lr=0.1), factor=math.inf)
    guard.close()
    assert not saved


def test_attach_calls_it_and_detach_takes_it_off(tmp_path):
    from spikewatch.ills import ILLS
    from spikewatch.zoo.digits import load_digits
    from spikewatch.zoo.training import Training

    torch.manual_seed(0)  # when log 0 comes depends on the weights
    training = Training.healthy()
    ILLS["nan"].plant(training)
    saved = []
    with spikewatch.attach(
        training.net, dir=tmp_path, every=1, quiet=True, on_checkpoint=saved.append
    ) as watch:
        for result, _ in zip(training.fit(*load_digits(), seed=0), range(4), strict=False):
            watch.log(**result)
    assert [alert["rule"] for alert in saved] == ["non-finite-gradient"]
    assert saved[0]["step"] == 0


@pytest.mark.parametrize("by_name", [True, False])
def test_gradients_that_a_closure_makes_are_looked_at_before_they_are_applied(net, by_name):
    saved = []
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    guard = StepGuard(
        net,
        step=lambda: 0,
        checkpoint=lambda _: saved.append(all(p.isfinite().all() for p in net.parameters())),
        run="r",
        rank=0,
    )

    def closure():
        loss = net(torch.ones(2, 4)).sum() * math.nan
        loss.backward()
        return loss

    loss = optimizer.step(closure=closure) if by_name else optimizer.step(closure)
    guard.close()
    assert saved == [True]
    assert loss.isnan()
    assert not all(p.isfinite().all() for p in net.parameters())
