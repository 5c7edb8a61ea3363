"""Threshold, decay, and whether gradient reaches what is trainable."""

import math

import polars as pl
import pytest
import snntorch as snn
import torch
from spikingjelly.activation_based import neuron
from torch import nn

from spikewatch.collectors.instruments.dynamics import DynamicsReader
from spikewatch.metrics import TABLES
from spikewatch.zoo import LIF, SuperSpike, spike


def row_of(listen, lif, *, steps=1, loss=None):
    """The last row of `dynamics` of a neuron that is trained."""
    heard = listen(nn.Sequential(lif))
    row = {}
    for _ in range(steps):
        lif.zero_grad(set_to_none=True)
        out = lif(torch.rand(3, 4, requires_grad=True), torch.zeros(3, 4))[0]
        (out.sum() if loss is None else loss(out)).backward()
        row = heard.tables("0")["dynamics"]
    return row


def test_constants_are_read_as_they_stand(listen):
    row = row_of(listen, snn.Leaky(beta=0.9, threshold=0.5))
    assert row["sum_threshold"] == 0.5
    assert row["decay_min"] == row["decay_max"] == pytest.approx(0.9)
    assert row["n_thresholds_out"] == row["n_decays_out"] == row["n_decays_extreme"] == 0
    assert "n_learnable" not in row


def test_the_decay_of_a_time_constant_is_what_a_step_multiplies_with(listen):
    node = neuron.LIFNode(tau=4.0)
    heard = listen(nn.Sequential(node))
    node(torch.rand(2, 3))
    row = heard.tables("0")["dynamics"]
    assert row["sum_decay"] == 1 - 1 / 4
    assert row["sum_threshold"] == 1.0


@pytest.mark.parametrize(("beta", "out", "extreme"), [(0.0, 1, 1), (1.0, 1, 1), (0.9995, 0, 1)])
def test_decays_out_of_range_are_counted(listen, beta, out, extreme):
    row = row_of(listen, snn.Leaky(beta=beta))
    assert (row["n_decays_out"], row["n_decays_extreme"]) == (out, extreme)


class Handmade(nn.Module):
    """A neuron as one writes it, with what it calls its decay."""

    def __init__(self, **named):
        super().__init__()
        self.threshold = 1.0
        vars(self).update(named)

    def forward(self, current, mem):
        mem = 0.9 * mem + current
        return spike(mem - self.threshold, SuperSpike(10.0)), mem


@pytest.mark.parametrize(
    ("named", "decay"),
    [
        ({"decay": 0.25}, 0.25),
        ({"decay": torch.tensor([0.25, 0.5])}, 0.75),
        ({"decay": 1.1}, None),  # a name that was guessed is no ground for an alarm
        ({"mem_decay": -0.1}, None),
        ({"decay": torch.tensor([0.9, 3.0])}, None),
        ({"beta": torch.tensor(1.02)}, None),
        ({"decay": 20.0}, None),  # a time constant
        ({"decay": 20.0, "beta": 0.9}, 0.9),
        ({"beta": 5.0}, None),  # the sharpness of a surrogate
    ],
)
def test_what_a_handmade_neuron_calls_a_decay(listen, named, decay):
    row = row_of(listen, Handmade(**named))
    assert row.get("sum_decay") == decay


class Learned(nn.Module):
    """A neuron whose decay is made of what is learned."""

    def __init__(self, **named):
        super().__init__()
        self.threshold = 1.0
        for name, value in named.items():
            setattr(self, name, nn.Parameter(torch.tensor(value)))

    def forward(self, current, mem):
        mem = self.leak() * mem + current
        return spike(mem - self.threshold, SuperSpike(10.0)), mem

    def leak(self):
        return self.decay


class Squashed(Learned):
    def leak(self):
        return torch.sigmoid(self.decay)


class Adaptive(Learned):
    def leak(self):
        return self.alpha - 0.1 * self.beta


@pytest.mark.parametrize(
    ("lif", "decay"),
    [
        (Learned(decay=0.5), 0.5),
        (Squashed(decay=0.5), None),  # sigmoid(0.5) acts
        (Adaptive(alpha=0.75, beta=0.5), None),  # β may be the adaptation's
    ],
)
def test_a_learned_number_is_a_decay_where_it_acts_as_it_stands(listen, lif, decay):
    row = row_of(listen, lif)
    assert row.get("sum_decay") == decay
    assert row["sum_threshold"] == 1.0


@pytest.mark.parametrize(("learned", "out"), [(False, 2), (True, 3)])
def test_each_neuron_may_have_a_threshold_of_its_own_and_nan_and_zero_are_out(listen, learned, out):
    thetas = torch.tensor([0.5, 0.0, -1.0, math.nan])
    row = row_of(listen, snn.Leaky(beta=0.9, threshold=thetas, learn_threshold=learned))
    assert (row["n_thresholds"], row["n_thresholds_out"]) == (4, out)


def test_a_threshold_of_infinity_is_none_unless_it_was_learned(listen):
    for node in (
        neuron.LIFNode(v_threshold=math.inf),
        snn.Leaky(beta=0.9, threshold=math.inf, init_hidden=True),
    ):
        heard = listen(nn.Sequential(node))
        node(torch.rand(3, 4, requires_grad=True))
        tables = heard.tables("0")
        assert "n_thresholds" not in tables["dynamics"]
        assert "membrane" not in tables
    lif = snn.Leaky(beta=0.9, threshold=math.inf, learn_threshold=True)
    assert row_of(listen, lif)["n_thresholds_out"] == 1
    some = row_of(listen, snn.Leaky(beta=0.9, threshold=torch.tensor([0.5, 1.0, 2.0, math.inf])))
    assert (some["n_thresholds"], some["n_thresholds_out"]) == (3, 0)
    assert (some["sum_threshold"], some["threshold_max"]) == (3.5, 2.0)


def test_a_learnable_threshold_at_its_clamp_is_pinned(listen):
    lif = snn.Leaky(beta=0.9, threshold=torch.tensor([0.01, 1.0, 10.0]), learn_threshold=True)
    heard = listen(nn.Sequential(lif))
    lif(torch.rand(2, 3), torch.zeros(2, 3))
    assert heard.tables("0")["dynamics"]["n_thresholds_pinned"] == 2


def test_a_small_threshold_that_learns_on_is_not_pinned(listen):
    lif = snn.Leaky(beta=0.9, threshold=torch.tensor([0.006, 0.01, 12.0]), learn_threshold=True)
    heard = listen(nn.Sequential(lif))
    pinned = []
    for _ in range(2):
        lif(torch.rand(2, 3), torch.zeros(2, 3))
        pinned.append(heard.tables("0")["dynamics"]["n_thresholds_pinned"])
        with torch.no_grad():
            lif.threshold += torch.tensor([0.001, 0.0, 0.5])
    assert pinned == [3, 1]


def test_a_parameter_with_gradient_is_told_from_one_without(listen):
    lif = snn.Leaky(beta=0.9, learn_beta=True, learn_threshold=True)
    # From a state of zeros β multiplies nothing: its gradient is exactly zero.
    row = row_of(listen, lif, steps=3)
    assert (row["n_learnable"], row["n_without_gradient"]) == (2, 1)
    assert row["without_gradient_rows"] == 3


def test_a_parameter_that_learns_nothing_is_called_by_its_name_once(listen):
    lif = snn.Leaky(beta=1.5, learn_beta=True, learn_threshold=True)  # β is clamped to 1
    heard = listen(nn.Sequential(lif))
    for _ in range(12):
        lif.zero_grad(set_to_none=True)
        lif(torch.rand(3, 4), torch.full((3, 4), 0.5))[0].sum().backward()
        heard.tables("0")
    ((layer, note),) = heard.notes
    assert layer == "0"
    assert note.startswith("its parameter 'beta' got no gradient, or one of exact zeros")


def test_a_gradient_that_comes_back_ends_the_count(listen):
    lif = snn.Leaky(beta=0.9, learn_beta=True)
    heard = listen(nn.Sequential(lif))
    rows = []
    for start in (0.0, 0.0, 0.5):
        lif.zero_grad(set_to_none=True)
        lif(torch.rand(3, 4), torch.full((3, 4), start))[0].sum().backward()
        rows.append(heard.tables("0")["dynamics"]["without_gradient_rows"])
    assert rows == [1, 2, 0]


def test_threshold_and_decay_are_those_that_the_step_was_made_with(listen):
    lif = snn.Leaky(beta=0.9, threshold=1.0, learn_beta=True, learn_threshold=True)
    heard = listen(nn.Sequential(lif))
    lif(torch.rand(3, 4), torch.rand(3, 4))[0].sum().backward()
    torch.optim.SGD(lif.parameters(), 0.5).step()
    row = heard.tables("0")["dynamics"]
    assert (row["sum_threshold"], row["sum_decay"]) == (1.0, pytest.approx(0.9))
    assert lif.threshold.item() != 1.0


def test_nothing_is_said_of_gradients_in_an_evaluation(listen):
    lif = snn.Leaky(beta=0.9, learn_beta=True)
    heard = listen(nn.Sequential(lif))
    with torch.no_grad():
        lif(torch.rand(3, 4), torch.zeros(3, 4))
    assert "n_learnable" not in heard.tables("0", "eval")["dynamics"]


def test_every_counter_is_declared():
    assert DynamicsReader.__name__
    names = {c.name for c in TABLES["dynamics"].counters}
    assert {"n_learnable", "n_without_gradient", "without_gradient_rows"} <= names


@pytest.mark.parametrize(("learned", "pinned"), [("learn_beta", 0), ("learn_threshold", 1)])
def test_only_a_threshold_that_learns_sits_at_a_clamp(listen, learned, pinned):
    row = row_of(listen, LIF(0.5, threshold=40.0, **{learned: True}))
    assert row["n_thresholds_pinned"] == pinned


def test_no_width_is_measured_in_infinite_thresholds():
    rows = TABLES["dynamics"].compute(
        pl.DataFrame({"fwhm": [0.6, 0.6], "sum_threshold": [2.0, math.inf], "n_thresholds": [1, 1]})
    )
    assert rows["surrogate_width_ratio"].to_list() == [0.3, None]


vth, mem_decay = 0.75, 0.25  # as many programs write them


class Fires(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u):
        ctx.save_for_backward(u)
        return (u > vth).float()

    @staticmethod
    def backward(ctx, g):
        (u,) = ctx.saved_tensors
        return g * ((u - vth).abs() < 0.5)


class OfGlobals(nn.Module):
    """Its code names its numbers; it holds none."""

    def forward(self, x):
        mem, spikes = torch.zeros_like(x[0]), []
        for current in x:
            mem = mem * mem_decay + current
            spikes.append(Fires.apply(mem))
            mem = mem * (1 - spikes[-1])
        return torch.stack(spikes)


def test_numbers_that_only_the_code_names_are_read(listen):
    torch.manual_seed(0)
    net = nn.Sequential(OfGlobals())
    heard = listen(net)
    net(2 * torch.rand(4, 3, 8, requires_grad=True))
    tables = heard.tables("0")
    assert (tables["dynamics"]["sum_threshold"], tables["dynamics"]["sum_decay"]) == (0.75, 0.25)


def test_a_number_that_the_module_holds_comes_before_one_that_the_code_names(listen):
    net = nn.Sequential(OfGlobals())
    net[0].thresh = 0.5
    heard = listen(net)
    net(2 * torch.rand(4, 3, 8, requires_grad=True))
    assert heard.tables("0")["dynamics"]["sum_threshold"] == 0.5


@pytest.mark.parametrize(("began", "told"), [(0.9, 1.1), (1.0, None), (1.05, None)])
def test_a_decay_that_learns_to_leave_its_range_is_told_and_what_never_was_in_it_is_none(
    listen, began, told
):
    net = nn.Sequential(Handmade(decay=torch.tensor([began])))
    heard = listen(net)
    for decay in (began, 1.1):
        net[0].decay.fill_(decay)
        net[0](torch.rand(3, 4, requires_grad=True), torch.zeros(3, 4))
        row = heard.tables("0")["dynamics"]
    assert row["decay_max"] == (None if told is None else pytest.approx(told))
