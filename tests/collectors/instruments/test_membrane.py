"""The membrane potential: against the library's own, by hand, and over windows."""

import math

import numpy as np
import polars as pl
import pytest
import snntorch as snn
import torch
from hypothesis import given, settings, strategies as st
from spikingjelly.activation_based import functional, neuron, surrogate
from torch import nn

from spikewatch.metrics import TABLES
from spikewatch.metrics.membrane import REFERENCE_BINS, Z_BINS, Z_EDGES


KEYS = {"run": "r", "rank": 0, "phase": "train", "step": 0, "layer": "l", "at": None}


def metrics(*rows):
    table = TABLES["membrane"]
    return table.merge(table.compute(pl.DataFrame([KEYS | r for r in rows])), by=["layer"])


def by_numpy(z, row):
    """What the row should hold of these z."""
    z = np.asarray(z, dtype=np.float64).ravel()
    assert row["n_membrane"] == z.size
    assert row["sum_z"] == pytest.approx(z.sum(), rel=1e-4, abs=1e-3)
    assert row["sum_sq_z"] == pytest.approx((z**2).sum(), rel=1e-4)
    assert row["n_above_threshold"] == (z >= 0).sum()
    edges = [-np.inf, *Z_EDGES, np.inf]
    assert [row[name] for name in Z_BINS] == np.histogram(z, edges)[0].tolist()


@pytest.mark.parametrize("threshold", [0.5, 2.0])
def test_it_is_snntorchs_potential_before_the_reset(listen, threshold):
    torch.manual_seed(0)
    lif = snn.Leaky(beta=0.9, threshold=threshold)
    heard = listen(nn.Sequential(lif))
    mem, seen, error = lif.init_leaky(), [], []
    for current in 2 * torch.rand(6, 8, 16, requires_grad=True):
        spikes, mem = lif(current, mem)
        seen.append(mem.detach() / threshold - 1)
        error.append((mem / threshold - spikes).detach().square())
    row = heard.tables("0")["membrane"]
    by_numpy(torch.stack(seen), row)
    assert row["n_membrane_pre_reset"] == row["n_quantization"] == 6 * 8 * 16
    assert row["sum_sq_quantization"] == pytest.approx(torch.stack(error).sum().item(), rel=1e-4)


def test_without_a_graph_it_is_what_the_library_keeps(listen):
    torch.manual_seed(0)
    lif = snn.Leaky(beta=0.9, init_hidden=True)
    heard = listen(nn.Sequential(lif))
    with torch.no_grad():
        lif(2 * torch.rand(8, 16))
    by_numpy(lif.mem - 1, heard.tables("0", "eval")["membrane"])


def test_a_hard_reset_without_a_graph_is_said_to_be_after_it(listen):
    node = neuron.IFNode(v_reset=0.0)
    heard = listen(nn.Sequential(node))
    with torch.no_grad():
        node(2 * torch.rand(8, 16))
    row = heard.tables("0", "eval")["membrane"]
    by_numpy(node.v - 1, row)
    assert row["n_membrane_pre_reset"] == row["n_quantization"] == 0


def test_of_a_sequence_four_time_steps_are_read_and_all_of_them_at_first(listen):
    torch.manual_seed(1)
    node = neuron.IFNode(surrogate_function=surrogate.ATan(), v_reset=None, step_mode="m")
    heard = listen(nn.Sequential(node))
    n_read = []
    for n_steps in (5, 16, 20):
        functional.reset_net(node)
        out = node(torch.rand(n_steps, 4, 6, requires_grad=True))
        row = heard.tables("0")["membrane"]
        n_read.append(row["n_membrane"] / 24)
        assert 0 < row["n_above_threshold"] <= out.count_nonzero()
    assert n_read == [5, 4, 4]


def test_a_statement_that_the_spikes_contradict_is_not_used(listen):
    class Spike(torch.autograd.Function):
        @staticmethod
        def forward(ctx, u):
            ctx.save_for_backward(torch.sin(9 * u))  # neither u nor u − θ
            return (u > 0).to(u.dtype)

        @staticmethod
        def backward(ctx, gradient):
            return gradient * ctx.saved_tensors[0]

    class Duck(nn.Module):
        def __init__(self):
            super().__init__()
            self.threshold, self.mem = 1.0, None

        def forward(self, current):
            self.mem = current
            return Spike.apply(self.mem - self.threshold)

    torch.manual_seed(2)
    duck = Duck()
    heard = listen(nn.Sequential(duck))
    duck(2 * torch.rand(64, 8, requires_grad=True))
    row = heard.tables("0")["membrane"]
    by_numpy(duck.mem.detach() - 1, row)
    assert row["n_membrane_pre_reset"] == 0


@pytest.mark.parametrize("current", [0.7, -0.7])
def test_of_a_silent_neuron_of_ones_own_a_potential_is_not_taken_for_a_distance(listen, current):
    class Spike(torch.autograd.Function):
        @staticmethod
        def forward(ctx, u):
            ctx.save_for_backward(u)
            return (u > 1.0).to(u.dtype)

        @staticmethod
        def backward(ctx, gradient):
            return gradient * (ctx.saved_tensors[0] - 1.0).abs().lt(0.5)

    class Duck(nn.Module):
        def __init__(self):
            super().__init__()
            self.threshold, self.mem = 1.0, None

        def forward(self, x):
            self.mem = x
            return Spike.apply(x)

    duck = Duck()
    heard = listen(nn.Sequential(duck))
    duck(torch.full((16, 8), current, requires_grad=True))
    row = heard.tables("0")["membrane"]
    by_numpy(duck.mem.detach() - 1, row)


def keeps(what):
    """A neuron of one's own without a state to fall back on, whose surrogate saves `what` of u."""

    class Spike(torch.autograd.Function):
        @staticmethod
        def forward(ctx, u):
            ctx.save_for_backward(what(u))
            return (u > 1.0).to(u.dtype)

        @staticmethod
        def backward(ctx, gradient):
            return gradient * ctx.saved_tensors[0]

    class Duck(nn.Module):
        def __init__(self):
            super().__init__()
            self.threshold = 1.0

        def forward(self, x):
            return Spike.apply(x)

    return Duck()


@pytest.mark.parametrize("potential", [(-3.0, 0.9), (1.1, 3.0), (-60.0, 1.5)])
def test_neither_a_slope_nor_the_output_is_taken_for_a_potential(listen, potential):
    for what in (lambda u: 0.9 / (1 + (4 * (u - 1)).square()), lambda u: (u > 1.0).to(u.dtype)):
        duck = keeps(what)
        heard = listen(nn.Sequential(duck))
        duck(torch.linspace(*potential, 512).view(64, 8).requires_grad_())
        assert "membrane" not in heard.tables("0")


def test_a_statement_on_a_surrogate_that_the_silence_contradicts_is_not_used(listen):
    lif = snn.Leaky(beta=0.9, spike_grad=keeps(lambda u: (-u).exp()), init_hidden=True)
    heard = listen(nn.Sequential(lif))
    lif(torch.full((16, 8), -0.5, requires_grad=True))
    by_numpy(lif.mem.detach() - 1, heard.tables("0")["membrane"])


def test_thresholds_that_are_not_finite_give_no_figure_and_the_others_do(listen):
    thetas = torch.tensor([0.5, 1.0, math.inf, 0.0])
    lif = snn.Leaky(beta=0.9, threshold=thetas, init_hidden=True)
    heard = listen(nn.Sequential(lif))
    lif(torch.rand(64, 4, requires_grad=True))
    row = heard.tables("0")["membrane"]
    by_numpy(lif.mem.detach()[:, :2] / thetas[:2] - 1, row)
    assert row["n_membrane_nonfinite"] == 0


@pytest.mark.parametrize(("v_reset", "unit"), [(-70.0, 20.0), (None, 50.0), (-40.0, 50.0)])
def test_potentials_in_millivolt_are_scaled_by_their_distance_from_the_reset(listen, v_reset, unit):
    torch.manual_seed(0)
    node = neuron.IFNode(-50.0, v_reset, surrogate_function=surrogate.ATan())
    heard = listen(nn.Sequential(node))
    u = (30 * torch.rand(64, 8) - 75.0).requires_grad_()
    node.v = torch.zeros_like(u)
    spikes = node(u).detach()
    row = heard.tables("0")["membrane"]
    z = (u.detach() + 50) / unit
    by_numpy(z, row)
    assert 0 < row["n_above_threshold"] == spikes.sum()
    assert row["sum_sq_quantization"] == pytest.approx((z + 1 - spikes).square().sum().item())


def test_large_layers_are_read_in_an_even_part(listen):
    lif = snn.Leaky(beta=0.9)
    heard = listen(nn.Sequential(lif))
    lif(torch.rand(64, 1024, requires_grad=True), torch.zeros(64, 1024))
    row = heard.tables("0")["membrane"]
    assert 512 < row["n_membrane"] <= 1024


def test_no_column_of_a_feature_map_stands_for_the_others(listen):
    lif = snn.Leaky(beta=0.9)
    heard = listen(nn.Sequential(lif))
    current = torch.zeros(4, 8, 14, 14)
    current[..., 0] = 2.0  # a border that is unlike the rest
    lif(current.requires_grad_(), torch.zeros(4, 8, 14, 14))
    row = heard.tables("0")["membrane"]
    assert row["n_above_threshold"] / row["n_membrane"] == pytest.approx(1 / 14, rel=0.05)


def test_nan_and_infinity_are_counted_apart_and_runaways_too(listen):
    lif = snn.Leaky(beta=0.9, init_hidden=True)
    heard = listen(nn.Sequential(lif))
    with torch.no_grad():
        lif(torch.tensor([[math.nan, math.inf, 50.0, -50.0, 0.5]]))
    row = heard.tables("0", "eval")["membrane"]
    assert (row["n_membrane"], row["n_membrane_nonfinite"], row["n_runaway"]) == (3, 2, 2)
    assert sum(row[name] for name in Z_BINS) == 3


def test_a_potential_that_drifts_shows_against_the_reference(listen):
    torch.manual_seed(3)
    lif = snn.Leaky(beta=0.9, init_hidden=True)
    heard = listen(nn.Sequential(lif))
    rows = []
    with torch.no_grad():
        for step in range(30):
            lif.mem = torch.zeros(0)
            lif(0.3 * torch.randn(64, 64) + (0.8 if step == 29 else 0.2))
            rows.append(heard.tables("0", "eval")["membrane"])
    assert REFERENCE_BINS[0] not in rows[8]
    same, drifted = metrics(rows[28]), metrics(rows[29])
    assert same["membrane_psi"].item() < 0.05
    assert drifted["membrane_psi"].item() > 1
    assert drifted["membrane_shift"].item() == pytest.approx(2.0, rel=0.1)
    assert drifted["membrane_variance_ratio"].item() == pytest.approx(1.0, rel=0.1)


def rows_of(z):
    z = np.asarray(z)
    counts = np.histogram(z, [-np.inf, *Z_EDGES, np.inf])[0].tolist()
    row = {"n_membrane": z.size, "sum_z": z.sum(), "sum_sq_z": (z**2).sum()}
    return row | dict(zip(Z_BINS, counts, strict=True))


floats = st.lists(st.floats(-5, 5), min_size=1, max_size=20)


@settings(deadline=None, max_examples=30)
@given(floats, floats, floats)
def test_windows_merge_to_what_one_window_gives_in_any_order(a, b, c):
    whole = metrics(rows_of(a + b + c))
    table = TABLES["membrane"]
    parts = metrics(rows_of(c), rows_of(a), rows_of(b)), table
    for name in ("membrane_mean", "membrane_std"):
        assert parts[0][name].item() == pytest.approx(whole[name].item(), abs=1e-6)
    assert 0 <= whole["membrane_std"].item() <= 5.01
    for name in Z_BINS:
        assert parts[0][name].item() == whole[name].item()


def test_the_stability_index_is_that_of_the_textbook():
    now, then = [10, 20, 30, 0, 5, 5, 20, 10], [20, 20, 10, 10, 10, 10, 10, 10]
    row = dict(zip(Z_BINS, now, strict=True)) | dict(zip(REFERENCE_BINS, then, strict=True))
    p, q = (np.array(now) + 0.5) / 104, (np.array(then) + 0.5) / 104
    assert metrics(row)["membrane_psi"].item() == pytest.approx(((p - q) * np.log(p / q)).sum())
    for missing in (Z_BINS[3], *REFERENCE_BINS):
        assert metrics(row | {missing: None})["membrane_psi"].item() is None
