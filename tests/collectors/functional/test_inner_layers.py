"""Neurons that are functions: found, told apart, and read as if they were modules."""

import pytest
import snntorch as snn
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import spikewatch

from ..own_neurons import Spike
from .hearing import check, hear, inner, row_of
from .published import ActFun, Cells, DroppedOut, Looped, Written, mem_update, thresh


def test_a_call_for_each_layer_is_told_by_the_weights_behind_it(listen, made):
    torch.manual_seed(0)
    net = Written()
    heard = hear(listen, net)
    net(3 * torch.rand(16, 6)).square().sum().backward()
    found = inner(heard, "")
    assert list(found) == ["fc1.spikes", "fc2.spikes"]
    for layer, counts in enumerate(found.values()):
        entries = made[layer::2]
        potentials = check(heard, counts, entries, n_neurons=(9, 4)[layer])
        slope = torch.stack(potentials).abs() < 0.5
        gradients = row_of(heard, counts, "gradients")
        assert (gradients["n_sg"], gradients["sum_sg"]) == (slope.numel(), slope.sum())
    assert [(x.name, x.kind, x.type) for x in heard.confirmed] == [
        ("fc1.spikes", "spiking", "Written"),
        ("fc2.spikes", "spiking", "Written"),
    ]


def test_threshold_and_decay_are_the_numbers_that_the_code_names(listen, made):
    torch.manual_seed(0)
    net = Written()
    heard = hear(listen, net)
    net(3 * torch.rand(16, 6)).sum().backward()
    counts = inner(heard, "")["fc1.spikes"]
    dynamics = row_of(heard, counts, "dynamics")
    assert (dynamics["sum_threshold"], dynamics["sum_decay"]) == (0.3, 0.5)
    membrane = row_of(heard, counts, "membrane")
    z = torch.stack([p for p, _, _ in made[::2]]) / thresh
    assert membrane["n_membrane"] == membrane["n_membrane_pre_reset"] == z.numel()
    assert membrane["sum_z"] == pytest.approx(z.sum().item(), rel=1e-4)


def test_rates_that_a_network_returns_are_not_taken_for_its_spikes(listen):
    torch.manual_seed(0)
    net = Written()
    heard = hear(listen, net)
    net(3 * torch.rand(16, 6)).sum().backward()
    assert not heard.observers[""].flush("train").tables
    assert "not the spikes themselves" in heard.notes[0][1]


def test_in_a_loop_over_layers_of_one_size_each_is_told_apart(listen, made):
    torch.manual_seed(0)
    net = Looped()
    heard = hear(listen, net)
    x = 4 * torch.rand(16, 8)
    net(x).square().sum().backward()
    assert not inner(heard, "")  # their first calls have no weights behind them
    made.clear()
    net(x).square().sum().backward()
    found = inner(heard, "")
    assert list(found) == ["layers.0.spikes", "layers.1.spikes", "layers.2.spikes"]
    for layer, counts in enumerate(found.values()):
        check(heard, counts, made[layer::3], n_neurons=8)


def test_an_evaluation_is_told_apart_by_the_order_of_the_training(listen, made):
    torch.manual_seed(0)
    net = Looped()
    heard = hear(listen, net)
    net(4 * torch.rand(16, 8)).sum().backward()
    net(4 * torch.rand(16, 8)).sum().backward()
    inner(heard, "")
    made.clear()
    net.eval()
    with torch.no_grad():
        net(4 * torch.rand(32, 8))
    found = inner(heard, "", "eval")
    for layer, counts in enumerate(found.values()):
        spikes = [s for _, s, _ in made[layer::3]]
        assert row_of(heard, counts, "spikes")["n_spikes"] == sum(s.sum() for s in spikes) > 0


def test_a_cell_that_returns_its_potential_first_is_read_by_its_function(listen, made):
    torch.manual_seed(0)
    net = Cells()
    heard = hear(listen, net)
    net(3 * torch.rand(16, 6)).square().sum().backward()
    for layer, name in enumerate(("a", "b")):
        (key, counts), *others = inner(heard, name).items()
        assert (key, others) == (name, [])
        check(heard, counts, made[layer::2], n_neurons=(9, 4)[layer])


def test_spikes_are_counted_before_a_dropout(listen, made):
    torch.manual_seed(0)
    net = nn.Sequential(DroppedOut(6, 9))
    heard = hear(listen, net)
    net(3 * torch.rand(16, 5, 6)).square().sum().backward()
    counts = inner(heard, "0")["0"]
    check(heard, counts, made, n_neurons=9)
    row = row_of(heard, counts, "spikes")
    assert row["sum_abs_spike"] == row["n_spikes"]
    assert row_of(heard, counts, "dynamics")["sum_threshold"] == thresh


class Ternary(nn.Module):
    """Two functions make one spike: the module is the layer, as before."""

    def forward(self, x):
        return ActFun.apply(x - 1) - ActFun.apply(-x - 1)


def test_the_two_halves_of_a_ternary_spike_are_one_layer(listen):
    torch.manual_seed(0)
    net = nn.Sequential(Ternary())
    heard = hear(listen, net)
    spikes = net(3 * torch.randn(64, 6, requires_grad=True))
    row = heard.flush("0", "spikes")
    assert (row["n_spikes"], row["n_positive"]) == (spikes.count_nonzero(), (spikes > 0).sum())
    assert heard.observers["0"].inner_layers == []


class Normalised(nn.Module):
    """Divides its spikes by their mean rate, also where there are none."""

    def forward(self, x):
        spikes = ActFun.apply(x)
        return spikes / spikes.mean()


def test_a_layer_whose_first_spikes_are_nan_is_told_of_and_not_left_out(listen):
    net = nn.Sequential(Normalised())
    heard = hear(listen, net)
    net(torch.zeros(4, 6, requires_grad=True) - 9)
    assert heard.flush("0", "spikes")["n_nonfinite_spikes"] == 1


class Reset(nn.Module):
    """The surrogate is called once more for the reset, as in snnTorch."""

    def forward(self, x):
        reset = ActFun.apply(x - 2).detach()
        return ActFun.apply(x - reset - 1)


def test_a_function_that_is_called_for_the_reset_as_well_makes_no_second_layer(listen):
    torch.manual_seed(0)
    net = nn.Sequential(Reset())
    heard = hear(listen, net)
    spikes = net(3 * torch.randn(64, 6, requires_grad=True))
    assert heard.flush("0", "spikes")["n_spikes"] == spikes.count_nonzero()


class Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return -gradient


class Ternarise(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight):
        return weight.sign() * (weight.abs() > 0.7 * weight.abs().mean())

    @staticmethod
    def backward(ctx, gradient):
        return gradient


class Others(nn.Module):
    """Functions that make no spikes: a reversed gradient, ternary weights."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(16, 16)

    def forward(self, x):
        return Reversal.apply(x) @ Ternarise.apply(self.fc.weight)


def test_functions_that_make_no_spikes_are_not_counted_and_not_listened_to_any_more(listen):
    torch.manual_seed(0)
    own = {f: vars(f)["forward"] for f in (Reversal, Ternarise)}
    net = nn.Sequential(Others())
    heard = hear(listen, net)
    net(torch.randn(16, 16)).sum().backward()
    assert not inner(heard, "0")
    heard.stop()
    heard.observers["0"].start(heard)
    assert {f: vars(f)["forward"] for f in own} == own


class Block(nn.Module):
    def __init__(self, again):
        super().__init__()
        self.fc, self.again = nn.Linear(6, 9), again

    def step(self, x, spike, mem):
        return mem_update(self.fc, x, spike, mem)

    def forward(self, x):
        mem = spike = torch.zeros(len(x), 9)
        out = 0
        for _ in range(4):
            if self.again is None:
                spike, mem = self.step(x, spike, mem)
            else:
                spike, mem = checkpoint(self.step, x, spike, mem, use_reentrant=self.again)
            out = out + spike
        return out


@pytest.mark.parametrize("again", [True, False])
def test_inside_checkpoints_events_are_counted_once_and_gradients_as_without(listen, again):
    rows = []
    for how in (None, again):
        torch.manual_seed(0)
        net = Block(how)
        heard = hear(listen, net)
        net(3 * torch.rand(16, 6, requires_grad=True)).square().sum().backward()
        (counts,) = inner(heard, "").values()
        rows.append([row_of(heard, counts, t) for t in ("spikes", "gradients", "timing")])
    without, within = rows
    assert within[0] == without[0]
    assert within[2] == without[2]
    assert within[1]["n_grad"] == without[1]["n_grad"]
    assert within[1]["sum_sq_grad"] == pytest.approx(without[1]["sum_sq_grad"])


def test_a_module_whose_forward_is_called_by_hand_is_heard_all_the_same(listen, made):
    torch.manual_seed(0)
    net = Written()
    heard = hear(listen, net)
    net.forward(3 * torch.rand(16, 6)).square().sum().backward()
    found = inner(heard, "")
    assert list(found) == ["fc1.spikes", "fc2.spikes"]
    assert row_of(heard, found["fc1.spikes"], "spikes")["n_spikes"] == sum(
        s.sum() for _, s, _ in made[::2]
    )


class Tapped(Written):
    def forward(self, x):
        mem = spike = torch.zeros(len(x), 9)
        for _ in range(3):
            spike, mem = mem_update(self.fc1, x, spike, mem)
            spike = spikewatch.tap("mine", spike)
        return self.fc2(spike)


def test_what_is_tapped_by_hand_is_not_counted_twice(listen):
    torch.manual_seed(0)
    net = Tapped()
    heard = hear(listen, net)
    net(3 * torch.rand(16, 6)).sum().backward()
    assert not inner(heard, "")


class GatedCell(nn.Module):
    """Spiking gates before a library's neuron that is called T times (SNN-GRU of SeqSNN)."""

    def __init__(self):
        super().__init__()
        self.spike_grad = snn.surrogate.atan()
        self.ih = nn.Linear(8, 32)
        self.lif = snn.Leaky(beta=0.9, spike_grad=self.spike_grad, init_hidden=True)

    def forward(self, x):
        z, n = self.ih(x).chunk(2, 1)
        current = 2 * (1 - Spike.apply(z)) * Spike.apply(n)
        return torch.stack([self.lif(current) for _ in range(4)], -1)


def test_what_a_librarys_neuron_makes_is_not_the_cells_around_it_as_well(listen):
    torch.manual_seed(0)
    net = nn.Sequential(GatedCell())
    heard = hear(listen, net)
    net(torch.randn(64, 8)).sum().backward()
    assert list(inner(heard, "0")) == ["0.ih.spikes", "0.ih.spikes@2"]
    assert not [x for x in heard.confirmed if x.name == "0" and x.kind == "spiking"]
