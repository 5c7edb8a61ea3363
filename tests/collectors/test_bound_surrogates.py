"""A neuron without a name that tells: its surrogate may be bound anywhere, or be a detach trick."""

import functools
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from .own_neurons import Spike


class Holds:
    def __init__(self):
        self.fn = Spike.apply

    def __call__(self, u):
        return self.fn(u)


class Fires:
    def fire(self, u):
        return Spike.apply(u)


@dataclass
class Settings:
    surrogate: Any


def steep(width):
    def fire(u):
        return Spike.apply(u / width)

    return fire


@functools.lru_cache
def chosen(name):
    return {"fast sigmoid": Spike.apply}[name]


SURROGATES = {"fast sigmoid": Spike.apply}
BY_CLASS = [Spike]
bound = functools.partial(Spike.apply)


class Neuron(nn.Module):
    """The threshold is a literal, the potential a local name."""

    def fire(self, u):
        raise NotImplementedError

    def forward(self, x):
        v, spikes = torch.zeros_like(x[0]), []
        for current in x:
            v = 0.5 * v + current
            spikes.append(self.fire(v - 1.0))
            v = v * (1 - spikes[-1].detach())
        return torch.stack(spikes)


OF_MODULE = {  # what it holds, and how it calls that
    "private": ({"_spike": Spike.apply}, lambda self, u: self._spike(u)),
    "mangled": ({"_LIF__spike": Spike.apply}, lambda self, u: self._LIF__spike(u)),
    "by a word": ({"_spike": Spike.apply}, lambda self, u: getattr(self, "_spike")(u)),  # noqa: B009
    "function": ({"_spike": Spike}, lambda self, u: self._spike.apply(u)),
    "lambda": ({"_spike": lambda u: Spike.apply(u)}, lambda self, u: self._spike(u)),
    "closure": ({"_spike": steep(2.0)}, lambda self, u: self._spike(u)),
    "partial": ({"spike": functools.partial(Spike.apply)}, lambda self, u: self.spike(u)),
    "partial closure": ({"spike": functools.partial(steep(2.0))}, lambda self, u: self.spike(u)),
    "object": ({"_spike": Holds()}, lambda self, u: self._spike(u)),
    "method of an object": ({"spike": Fires()}, lambda self, u: self.spike.fire(u)),
    "dictionary": ({"spike": {"a": Spike.apply}}, lambda self, u: self.spike["a"](u)),
    "tuple": ({"spike": (Spike,)}, lambda self, u: self.spike[0].apply(u)),
    "settings": ({"cfg": Settings(Spike.apply)}, lambda self, u: self.cfg.surrogate(u)),
    "space": ({"cfg": SimpleNamespace(spike=Spike.apply)}, lambda self, u: self.cfg.spike(u)),
}
OF_CLASS = {
    "apply": ({"_spike": Spike.apply}, lambda self, u: self._spike(u)),
    "static": ({"_spike": staticmethod(Spike.apply)}, lambda self, u: self._spike(u)),
    "partial": ({"spike": functools.partial(Spike.apply)}, lambda self, u: self.spike(u)),
    "property": ({"spike": property(lambda _: Spike.apply)}, lambda self, u: self.spike(u)),
}
GLOBAL = {
    "partial": lambda _, u: bound(u),
    "dictionary": lambda _, u: SURROGATES["fast sigmoid"](u),
    "list": lambda _, u: BY_CLASS[0].apply(u),
    "cached": lambda _, u: chosen("fast sigmoid")(u),
}


def train(listen, net, x):
    heard = listen(net)
    for step in range(2):
        heard.step, heard.n_forwards = step, step + 1
        net(x).sum().backward()
    return heard


def counts_alone(listen, neuron, x):
    """Whether the neuron alone is counted, with 40 observations a step of 16 neurons."""
    torch.manual_seed(0)
    heard = train(listen, nn.Sequential(nn.Linear(6, 16), neuron), x)
    row = heard.flush("1", "spikes")
    return (row["n_obs"] / 2, row["n_neurons"]) == (40, 16)


@pytest.mark.parametrize("how", OF_MODULE)
def test_a_surrogate_is_found_wherever_a_module_holds_it(listen, how):
    held, fire = OF_MODULE[how]
    neuron = type("Own", (Neuron,), {"fire": fire})()
    vars(neuron).update(held)
    assert counts_alone(listen, neuron, 3 * torch.randn(5, 8, 6))


@pytest.mark.parametrize("how", OF_CLASS)
def test_a_surrogate_is_found_wherever_a_class_holds_it(listen, how):
    held, fire = OF_CLASS[how]
    neuron = type("Own", (Neuron,), {"fire": fire, **held})()
    assert counts_alone(listen, neuron, 3 * torch.randn(5, 8, 6))


def test_a_surrogate_may_be_a_property_that_is_kept(listen):
    class Cached(Neuron):
        @functools.cached_property
        def spike(self):
            return Spike.apply

        def fire(self, u):
            return self.spike(u)

    assert counts_alone(listen, Cached(), 3 * torch.randn(5, 8, 6))


@pytest.mark.parametrize("how", GLOBAL)
def test_a_surrogate_is_found_wherever_a_script_holds_it(listen, how):
    neuron = type("Own", (Neuron,), {"fire": GLOBAL[how]})()
    assert counts_alone(listen, neuron, 3 * torch.randn(5, 8, 6))


class Keeper(nn.Module):
    """Has surrogates in what it holds, and does not call them."""

    def __init__(self):
        super().__init__()
        self._surrogate, self.settings = Spike.apply, Settings(Spike.apply)

    def forward(self, x):
        return torch.relu(x)


def test_what_a_layer_holds_and_does_not_call_makes_it_no_neuron(listen):
    neuron = type("Own", (Neuron,), {"fire": lambda _, u: Spike.apply(u)})()
    net = nn.Sequential(Keeper(), nn.Linear(6, 16), neuron)
    assert [*listen(net).observers] == ["2"]


def trick(u):
    soft = torch.sigmoid(4 * u)
    return (u > 0).float() + soft - soft.detach()


class Straight(nn.Module):
    def forward(self, u):
        soft = torch.sigmoid(4 * u)
        return ((u > 0).float() - soft).detach() + soft


@torch.jit.script
def scripted(u):
    soft = torch.sigmoid(4 * u)
    return ((u > 0).float() - soft).detach() + soft


class WithWeights(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 16)

    def forward(self, x):
        v, spikes = 0.0, []
        for current in x:
            v = 0.5 * v + self.fc(current)
            spikes.append(trick(v - 1.0))
            v = v * (1 - spikes[-1].detach())
        return torch.stack(spikes)


class Keeps(nn.Module):
    """Is called for each time step, and keeps its potential under a name that tells nothing."""

    def __init__(self):
        super().__init__()
        self.charge, self.spike = 0.0, Straight()

    def forward(self, x):
        self.charge = 0.5 * self.charge + x
        spikes = self.spike(self.charge - 1.0)
        self.charge = self.charge * (1 - spikes.detach())
        return spikes


@pytest.mark.parametrize("fire", [trick, scripted])
def test_a_state_and_a_detach_trick_make_a_neuron(listen, fire):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 16), type("Own", (Neuron,), {"fire": staticmethod(fire)})())
    heard = train(listen, net, 3 * torch.randn(5, 8, 6))
    row = heard.flush("1", "spikes")
    assert (row["n_obs"] / 2, row["n_neurons"]) == (40, 16)
    assert heard.confirmed[-1].note == "has a state, and makes spikes by a detach trick"


def test_it_may_have_weights_of_its_own(listen):
    torch.manual_seed(0)
    heard = train(listen, nn.Sequential(WithWeights()), 6 * torch.randn(5, 8, 6))
    row = heard.flush("0", "spikes")
    assert (row["n_obs"] / 2, row["n_neurons"]) == (40, 16)


def test_the_trick_may_be_that_of_a_part_and_the_state_one_that_is_kept(listen):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 16), Keeps())
    heard = listen(net)
    sum(net(3 * torch.randn(8, 6)) for _ in range(5)).sum().backward()
    row = heard.flush("1", "spikes")
    assert (row["n_obs"], row["n_neurons"]) == (40, 16)


class Whole(nn.Module):
    """A network that is one module, and whose neurons no hook sees."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(6, 16), nn.Linear(16, 3)

    def forward(self, x):
        v, out = 0.0, 0.0
        for current in x:
            v = 0.5 * v + self.fc1(current)
            spikes = trick(v - 1.0)
            v = v * (1 - spikes.detach())
            out = out + self.fc2(spikes)
        return out


def test_of_a_trick_within_a_network_it_is_told_that_no_hook_sees_it(listen):
    heard = train(listen, nn.Sequential(Whole()), torch.randn(5, 8, 6))
    assert heard.flush("0", "spikes") is None
    (note,) = [m for name, m in heard.notes if name == "0"]
    assert "within its forward, pass them through spikewatch.tap" in note


class VectorQuantized(nn.Module):
    """Has the trick and a state, and makes no spikes."""

    def __init__(self):
        super().__init__()
        self.mean = 0.0

    def forward(self, x):
        self.mean = 0.9 * self.mean + x.detach().mean()
        return x + ((x / 0.01).round() * 0.01 - x).detach()


def test_codes_that_a_trick_rounds_are_no_spikes(listen):
    heard = train(listen, nn.Sequential(nn.Linear(6, 16), VectorQuantized()), torch.randn(8, 6))
    assert heard.flush("1", "spikes") is None
    assert [m for name, m in heard.notes if name == "1" and "many values" in m]
