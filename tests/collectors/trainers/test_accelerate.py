"""`with attach(accelerator, model, …) as training:` around a loop of Accelerate."""

import warnings

import pytest
import torch
from torch import nn

from .conftest import Snn, loader


with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from accelerate import Accelerator

    from spikewatch.collectors.trainers.accelerate import attach


def prepared(**options):
    accelerator = Accelerator(cpu=True, **options)
    net = Snn()
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    return accelerator, *accelerator.prepare(net, optimizer, loader())


def train(accelerator, net, optimizer, batches):
    losses = []
    for x, y in batches:
        with accelerator.accumulate(net):
            loss = nn.functional.cross_entropy(net(x), y)
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
        accelerator.log({"loss": loss.item()})
        losses.append(loss.item())
    return losses


def test_one_line_watches_the_whole_training(asked, states):
    accelerator, net, optimizer, batches = prepared()
    with attach(accelerator, net, run="first", every=1):
        losses = train(accelerator, net, optimizer, batches)
    assert states() == [("first", "finished")]
    steps = asked("SELECT DISTINCT step FROM spikes WHERE phase = 'train' ORDER BY step")
    assert [s for (s,) in steps] == list(range(12))
    got = asked("SELECT step, value FROM scalars WHERE name = 'loss' ORDER BY step")
    assert got == [(i, pytest.approx(x)) for i, x in enumerate(losses)]
