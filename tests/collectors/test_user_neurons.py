"""Neurons that no library made: duck typing, the autograd graph, and what must not be taken."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import spikewatch
from spikewatch.errors import AttachError

from .own_neurons import Heaviside, Net, Spike


class DuckLIF(nn.Module):
    def __init__(self):
        super().__init__()
        self.threshold, self.mem = 1.0, None

    def forward(self, current):
        self.mem = current if self.mem is None else 0.9 * self.mem.detach() + current
        return Spike.apply(self.mem - self.threshold)


def test_a_threshold_and_a_state_make_a_neuron(listen):
    heard = listen(Net(DuckLIF()))
    assert [o.layer.kind for o in heard.observers.values()] == ["spiking"]


def test_the_graph_decides_about_a_candidate_and_pooling_is_not_taken(listen):
    torch.manual_seed(0)
    net = Net(Heaviside())
    heard = listen(net)
    assert [(o.layer.name, o.layer.kind) for o in heard.observers.values()] == [
        ("act", "candidate")
    ]
    net(torch.randn(32, 6)).sum().backward()
    assert [(x.name, x.kind) for x in heard.confirmed] == [("act", "spiking")]
    assert heard.flush("act", "spikes")["n_neurons"] == 8
    assert heard.flush("act", "spikes") is None


def test_spikes_made_in_a_block_belong_to_the_block_that_returns_them(listen):
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.fc = Heaviside(), nn.Linear(5, 5)

        def forward(self, x):
            return Spike.apply(self.fc(self.inner(x)))

    torch.manual_seed(0)
    block = Block()
    heard = listen(nn.Sequential(nn.Linear(5, 5), block))
    spikes = block(torch.randn(40, 5, requires_grad=True))
    inner, outer = heard.flush("1.inner", "spikes"), heard.flush("1", "spikes")
    assert outer["n_spikes"] == spikes.count_nonzero()
    assert inner["n_spikes"] != outer["n_spikes"]


def test_a_block_that_only_passes_spikes_on_is_not_a_second_layer(listen):
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.act, self.gate = Heaviside(), Spike.apply

        def forward(self, x):
            return self.act(x) * 2.0

    torch.manual_seed(0)
    net = Residual()
    heard = listen(net)
    net(torch.randn(40, 5, requires_grad=True))
    assert heard.flush("act", "spikes")["n_spikes"] > 0
    assert heard.flush("", "spikes") is None


def test_a_network_that_shares_a_threshold_and_a_state_is_not_one_neuron(listen):
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.thresh, self.mem = 0.5, []
            self.fc, self.lif, self.act = nn.Linear(6, 8), DuckLIF(), Heaviside()

        def forward(self, x):
            return self.act(self.lif(self.fc(x)) - self.thresh)

    torch.manual_seed(0)
    heard = listen(Shared())
    assert heard.spiking == ["lif"]
    assert {n: o.layer.kind for n, o in heard.observers.items()}["act"] == "candidate"


def test_a_tap_in_the_code_is_seen_before_it_was_ever_called(listen, monkeypatch):
    class Tapped(nn.Module):
        def forward(self, x):
            return spikewatch.tap("mine", x)

    monkeypatch.delitem(vars(spikewatch), "tap", raising=False)
    assert list(listen(Tapped()).observers) == [""]


def test_a_duck_with_real_valued_output_is_dropped_with_a_note(listen):
    class LeakyIntegrator(DuckLIF):
        def forward(self, current):
            return 0.9 * current

    torch.manual_seed(0)
    net = nn.Sequential(LeakyIntegrator())
    heard = listen(net)
    net(torch.randn(64, 9))
    assert heard.flush("0", "spikes") is None
    assert "many values" in heard.notes[0][1]


def test_a_plain_network_is_refused_with_what_was_seen_and_what_to_do():
    class Mlp(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(
                nn.Linear(4, 4), nn.ReLU(), nn.Threshold(0.1, 0), nn.GRU(4, 4)
            )

        def forward(self, x):
            return self.body(x)

    with pytest.raises(AttachError) as told:
        spikewatch.attach(Mlp())
    message = str(told.value)
    assert all(part in message for part in ("Linear × 1", "ReLU × 1", "layers=", "tap("))


def test_a_misspelt_layer_is_answered_with_a_suggestion():
    with pytest.raises(AttachError, match=r"Did you mean 'act'"):
        spikewatch.attach(Net(Heaviside()), layers=["acct"])


def test_a_candidate_inside_a_checkpoint_is_still_recognised(listen):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.act = Heaviside()

        def forward(self, x):
            return checkpoint(self.act, x, use_reentrant=False)

    torch.manual_seed(0)
    net = Net()
    heard = listen(net)
    net(torch.randn(40, 5, requires_grad=True)).sum().backward()
    assert [(x.name, x.kind) for x in heard.confirmed] == [("act", "spiking")]
    assert heard.flush("act", "gradients")["n_grad"] == 200
