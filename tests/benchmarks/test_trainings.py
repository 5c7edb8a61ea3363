"""The trainings that are timed, and what watches them."""

import pytest
import torch

import spikewatch
from benchmarks.models import TRAININGS
from benchmarks.overhead.choice import ALL_WATCHERS


CPU = torch.device("cpu")
BY_NAME = {t.name: t for t in TRAININGS}


@pytest.mark.parametrize("name", BY_NAME)
def test_two_builds_of_a_training_are_alike_to_the_bit(name):
    one, other = BY_NAME[name].build(CPU), BY_NAME[name].build(CPU)
    for built in (one, other):
        built.step()
    for a, b in zip(one.net.parameters(), other.net.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", BY_NAME)
def test_spikewatch_watches_just_the_spiking_layers_of_a_training(name, tmp_path):
    built = BY_NAME[name].build(CPU)
    with spikewatch.attach(built.net, dir=tmp_path, every=1, quiet=True) as watch:
        built.step()
        names = {n for n, m in built.net.named_modules() if m in built.neurons}
        assert {layer.name for layer in watch.layers if layer.kind == "spiking"} == names
        assert names


@pytest.mark.parametrize("watcher", [w for w in ALL_WATCHERS if w.installed], ids=lambda w: w.name)
def test_a_watcher_watches_the_first_training_that_it_applies_to(watcher, tmp_path):
    built = next(t for t in TRAININGS if watcher.applies(t)).build(CPU)
    watching = watcher.attach(built, tmp_path)
    with watching.running():
        for _ in range(2):
            built.step()
            if watching.after_step is not None:
                watching.after_step()
    watching.relieve()
    watching.close()
    written = [f for f in tmp_path.rglob(watcher.files) if f.is_file()]
    assert bool(written) == (watcher.name in {"defaults", "every-step", "wandb", "tensorboard"})
