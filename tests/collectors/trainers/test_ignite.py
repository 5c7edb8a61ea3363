"""`SpikewatchHandler(model, …).attach(trainer)` of Ignite."""

import warnings

import pytest
import torch
from torch import nn

from .conftest import Snn, loader


with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from ignite.engine import Engine

    from spikewatch.collectors.trainers.ignite import SpikewatchHandler


def make_trainer(net):
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    returned = []

    def update(engine, batch):
        x, y = batch
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        returned.append(loss.item())
        return loss.item()

    trainer = Engine(update)
    trainer.returned = returned
    return trainer


def test_one_line_watches_the_whole_training(asked, states):
    net = Snn()
    trainer = make_trainer(net)
    SpikewatchHandler(net, run="first", every=1).attach(trainer)
    trainer.run(loader(), max_epochs=1)
    assert states() == [("first", "finished")]
    steps = asked("SELECT DISTINCT step FROM spikes WHERE phase = 'train' ORDER BY step")
    assert [s for (s,) in steps] == list(range(12))
    got = asked("SELECT step, value FROM scalars WHERE name = 'loss' ORDER BY step")
    assert got == [(i, pytest.approx(x)) for i, x in enumerate(trainer.returned)]
