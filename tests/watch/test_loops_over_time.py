"""A model that a loop calls at each time step, in steps that are not observed."""

import copy
import time

import pytest
import torch
from torch import nn

from .little_nets import OwnNeuron


N_TIMES = 5


class Cell(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.fc, self.act = nn.Linear(8, 6), OwnNeuron()

    def forward(self, x):
        return self.act(self.fc(x))


def sample(net):
    net.act.mem = None
    random = torch.Generator().manual_seed(1)
    spikes = sum(net(x) for x in torch.rand(N_TIMES, 3, 8, generator=random))
    net.act.mem = None  # or the network could not be copied
    return spikes


def train(net, *, n_steps, optimizer=None, each=lambda: None):
    optimizer = optimizer or torch.optim.SGD(net.parameters(), 0.1)
    for _ in range(n_steps):
        optimizer.zero_grad()
        sample(net).square().mean().backward()
        each()
        optimizer.step()
    return optimizer


def test_the_models_hook_is_called_once_a_step(watched, stored):
    net, on = Cell(), []
    watch = watched(net, every=10)
    train(net, n_steps=31, each=lambda: on.append(bool(net._forward_pre_hooks)))
    watch.close()
    # In the step after an observed one the hooks of the layers are taken off.
    assert on == [step % 10 in (0, 1) for step in range(31)]
    assert net._forward_pre_hooks == {}
    rows = stored("SELECT step, n_obs FROM spikes ORDER BY step").rows()
    assert rows == [(step, 3 * N_TIMES) for step in (0, 10, 20, 30)]


def test_an_evaluation_after_such_a_step_is_seen(watched, stored):
    net = Cell()
    watch = watched(net, every=10)
    optimizer = train(net, n_steps=5)
    with torch.no_grad():
        sample(net.eval())
    train(net.train(), n_steps=1, optimizer=optimizer)
    watch.close()
    assert stored("SELECT n_obs FROM spikes WHERE phase = 'eval'").rows() == [(3 * N_TIMES,)]


def test_forward_passes_are_seen_again_where_the_optimizer_is_skipped(watched):
    net = Cell()
    watched(net, every=10)
    train(net, n_steps=3)
    deadline = time.monotonic() + 20
    sample(net)
    assert net._forward_pre_hooks == {}
    while not net._forward_pre_hooks:
        sample(net)
        assert time.monotonic() < deadline


@pytest.mark.parametrize("attached", [True, False])
def test_what_is_copied_or_let_go_of_in_between_stays_without_hooks(watched, attached):
    net = Cell()
    watch = watched(net, every=10)
    train(net, n_steps=3)
    sample(net)
    if not attached:
        watch.close()
    twin = copy.deepcopy(net)
    train(twin, n_steps=2)
    assert twin._forward_pre_hooks == {}
    if attached:
        train(net, n_steps=1)
        assert len(net._forward_pre_hooks) == 1
        watch.close()
    assert net._forward_pre_hooks == {}
