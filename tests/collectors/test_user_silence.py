"""Neurons of a user's own that do not fire: the illness that must not hide the layer itself."""

import pytest
import torch
from torch import nn


class Neuron(nn.Module):
    """Only a threshold gives it away: a state under another name, spikes by a detach trick."""

    def __init__(self, threshold):
        super().__init__()
        self.threshold = nn.Parameter(torch.tensor(float(threshold)))
        self.potential = 0.0

    def forward(self, x):
        self.potential = self.potential + x
        over = self.potential - self.threshold
        spikes = (over >= 0).float()
        self.potential = self.potential * (1 - spikes)
        return spikes + over - over.detach()


class Scaled(Neuron):
    """Has an amplitude, which is a number or learns."""

    def __init__(self, threshold, amplitude=0.5):
        super().__init__(threshold)
        self.amplitude = amplitude

    def forward(self, x):
        return super().forward(x) * self.amplitude


class Masked(Neuron):
    """Of its graph a product with a mask is seen first, as of a gate."""

    def forward(self, x):
        return super().forward(x) * torch.ones(x.shape)


class Gate(nn.Module):
    def __init__(self, threshold):
        super().__init__()
        self.threshold = threshold

    def forward(self, x):
        return x * (x.abs() > self.threshold)


def net(*layers):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), *layers, nn.Linear(16, 2))


def run(model, *, n_calls=1, n_samples=8, scale=4):
    for layer in model:
        if isinstance(layer, Neuron):
            layer.potential = 0.0
    sum(model(x).sum() for x in scale * torch.rand(n_calls, n_samples, 6)).backward()


def test_a_neuron_that_never_fires_is_a_layer_all_the_same(listen):
    heard = listen(model := net(Neuron(50)))
    run(model)
    assert [(x.name, x.kind) for x in heard.confirmed] == [("1", "spiking")]
    assert "hardly fired" in heard.confirmed[0].note
    row = heard.flush("1", "spikes")
    assert (row["n_spikes"], row["n_obs"]) == (0, 8)


@pytest.mark.parametrize("learns", [False, True])
def test_an_amplitude_does_not_hide_that_a_neuron_never_fires(listen, learns):
    amplitude = nn.Parameter(torch.tensor(0.5)) if learns else 0.5
    heard = listen(model := net(Scaled(50, amplitude)))
    run(model)
    assert heard.flush("1", "spikes")["n_spikes"] == 0
    assert heard.spiking == ["1"]


def test_the_time_steps_before_the_first_spike_are_in_the_first_row(listen):
    heard = listen(model := net(Neuron(8)))
    run(model, n_calls=5)
    row = heard.flush("1", "spikes")
    assert row["n_obs"] == 5 * 8
    assert row["n_spikes"] > 0


def test_what_was_counted_as_silent_and_passes_many_values_is_no_layer_any_more(listen):
    class Rounds(Neuron):
        def forward(self, x):
            return x + (x * (x.abs() > self.threshold) - x).detach()

    heard = listen(model := net(Rounds(3)))
    run(model, scale=0.1)
    run(model, n_samples=64, scale=99)
    assert [x.kind for x in heard.confirmed] == ["spiking", "candidate"]


def test_a_silent_layer_behind_silent_ones_is_not_taken_for_one_called_with_spikes(listen):
    heard = listen(model := net(Neuron(50), nn.Linear(16, 16), Neuron(50)))
    run(model, n_samples=256)  # a bias is all that comes: few values for so many samples
    assert heard.spiking == ["1", "3"]


def test_a_silent_layer_is_known_by_another_one_of_its_class_that_fires(listen):
    heard = listen(model := net(Masked(0), nn.Linear(16, 16), Masked(500)))
    run(model, n_samples=32)
    assert heard.spiking == ["1", "3"]
    assert heard.flush("3", "spikes")["n_spikes"] == 0


@pytest.mark.parametrize("make", [Masked, Gate])
def test_of_a_silent_layer_that_may_be_none_it_is_told_what_settles_it(listen, make):
    heard = listen(model := net(make(500)))
    for n_steps in range(1, 18):
        run(model)
        assert heard.flush("1", "spikes") is None
        assert len(heard.notes) == (n_steps >= 16)
    name, message = heard.notes[0]
    assert name == "1"
    assert "attach(model, layers=" in message
    assert heard.spiking == []


def test_a_step_in_which_a_layer_shows_itself_late_has_no_row_of_a_part_of_it(listen):
    heard = listen(model := net(Masked(4)))
    run(model, n_calls=5, n_samples=64)
    assert heard.spiking == ["1"]
    assert heard.flush("1", "spikes") is None
    run(model, n_calls=5, n_samples=64)
    assert heard.flush("1", "spikes")["n_obs"] == 5 * 64


def test_of_a_layer_that_no_gradient_passes_it_is_stored_why_it_is_not_counted(listen):
    heard = listen(model := net(Neuron(1)))
    for _ in range(16):
        with torch.no_grad():
            model(torch.rand(8, 6))
        assert heard.flush("1", "spikes", "eval") is None
    assert "autograd graph" in heard.notes[0][1]
