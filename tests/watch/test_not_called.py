"""Layers that some steps do not call: experts, branches."""

import torch
from torch import nn

from .little_nets import OwnNeuron


class Experts(nn.Module):
    """Each step takes some of four ways."""

    def __init__(self):
        super().__init__()
        self.all, self.taken = nn.ModuleList(OwnNeuron() for _ in range(4)), (0,)

    def forward(self, x):
        for i in self.taken:
            self.all[i].mem = None
        return sum(self.all[i](x) for i in self.taken)


def test_an_expert_that_is_taken_now_and_then_is_told_of_once(watched, caplog):
    net = nn.Sequential(nn.Linear(4, 4), Experts())
    watched(net)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    for taken in [(0,), (1, 2), (3,), (0, 2), (1, 3), (0, 1, 2)]:
        net[1].taken = taken
        for _ in range(3):
            net(torch.rand(4, 4)).sum().backward()
            optimizer.step()
    told = " ".join(r.getMessage() for r in caplog.records if "not called" in r.getMessage())
    assert [told.count(f"'1.all.{i}'") for i in range(4)] == [1, 1, 1, 1]
    assert "an expert" in told


def test_a_layer_that_pauses_for_two_steps_is_not_told_of(watched, caplog):
    net = nn.Sequential(nn.Linear(4, 4), Experts())
    watched(net)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    for taken in [(0, 1, 2, 3), (0, 1), (0, 1)] * 3:  # an actor is trained at each third step
        net[1].taken = taken
        net(torch.rand(4, 4)).sum().backward()
        optimizer.step()
    assert "not called" not in caplog.text
