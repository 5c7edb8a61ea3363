"""The loop that trains every model of the zoo."""

import itertools

import torch
from torch import nn

from spikewatch.zoo import load_digits
from spikewatch.zoo.training import BATCH, Training


class Scheduled(nn.Linear):
    """A classifier that remembers what it was told of the training's progress."""

    def __init__(self):
        super().__init__(64, 10)
        self.told = []

    def advance(self, progress):
        self.told.append(progress)


def make():
    torch.manual_seed(0)
    net = Scheduled()
    return Training(net, torch.optim.SGD(net.parameters(), 0.1))


def test_it_ends_after_its_steps_and_spreads_schedules_over_them():
    training = make()
    results = list(training.fit(*load_digits(), seed=0, n_steps=4))
    assert len(results) == 4
    assert training.net.told == [0.25, 0.5, 0.75, 1.0]
    assert all(set(result) == {"loss"} for result in results)


def test_without_an_end_schedules_are_at_theirs():
    training = make()
    for _ in itertools.islice(training.fit(*load_digits(), seed=0), 3):
        pass
    assert training.net.told == [1.0] * 3


def test_accuracy_is_told_after_each_epoch_and_the_same_seed_repeats_it():
    train, test = load_digits()
    epoch = len(train) // BATCH
    runs = [list(make().fit(train, test, seed=3, n_steps=2 * epoch)) for _ in "ab"]
    assert runs[0] == runs[1]
    told = [n for n, result in enumerate(runs[0], start=1) if "accuracy" in result]
    assert told == [epoch, 2 * epoch]
    assert runs[0][-1]["accuracy"] > 0.5
