"""What every test wants: one thread for torch, and no runs folder of the person who tests."""

import pytest
import torch

import spikewatch
from spikewatch.ills import ILLS
from spikewatch.zoo.digits import load_digits
from spikewatch.zoo.training import Training


torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _no_outer_settings(monkeypatch):
    monkeypatch.delenv("SPIKEWATCH_DIR", raising=False)


@pytest.fixture(name="train_digits", scope="session")
def _train_digits():
    """Train on the digits for some watched steps, healthy or with a planted illness."""

    def train(folder, name, *, ill=None, n_steps):
        torch.manual_seed(0)
        training = Training.healthy()
        if ill:
            ILLS[ill].plant(training)
        results = training.fit(*load_digits(), seed=0)
        with spikewatch.attach(training.net, run=name, dir=folder, every=1, quiet=True) as watch:
            for result, _ in zip(results, range(n_steps), strict=False):
                watch.log(**result)

    return train
