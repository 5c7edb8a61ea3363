"""What Accelerate has that the others have not."""

import torch
from torch import nn

import spikewatch

from .little_net import loader, make_net, optimizer_of
from .with_accelerate import Accelerator, attach


def train(accelerator, net, n_steps=3):
    net, optimizer, batches = accelerator.prepare(net, optimizer_of(net), loader())
    for (x, y), _ in zip(batches, range(n_steps), strict=False):
        loss = nn.functional.cross_entropy(net(x), y)
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        accelerator.log({"train_loss": loss, "epoch": 0})


def test_without_a_context_the_end_of_the_training_closes_it(states, asked):
    accelerator, net = Accelerator(cpu=True), make_net()
    training = attach(accelerator, net, run="first")
    accelerator.init_trackers("other trackers come later")
    assert accelerator.get_tracker("spikewatch", unwrap=True) is training.watch
    train(accelerator, net)
    assert spikewatch.watch_of(net) is training.watch
    accelerator.end_training()
    assert training.watch is None
    assert states() == [("first", "finished")]
    assert asked("SELECT count(*) FROM scalars WHERE name = 'train_loss'") == [(3,)]


def test_what_is_logged_after_the_end_is_left_to_the_other_trackers():
    accelerator, net = Accelerator(cpu=True), make_net()
    with attach(accelerator, net) as training:
        train(accelerator, net)
    assert accelerator.trackers == []
    assert not training.should_stop()
    accelerator.log({"test_loss": 1.0})


def test_the_names_of_layers_are_those_of_the_model_as_it_was(asked):
    accelerator = Accelerator(cpu=True)
    wrapper = nn.DataParallel(make_net())
    with attach(accelerator, wrapper, run="first"), torch.no_grad():
        wrapper(torch.rand(2, 64))
    assert asked("SELECT DISTINCT layer FROM spikes ORDER BY layer") == [("lif1",), ("lif2",)]
