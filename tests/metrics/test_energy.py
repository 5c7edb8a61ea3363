"""Energy: ternary weights only add, and a network without spikes runs once a sample."""

import polars as pl
import pytest
import snntorch as snn
import torch
from hypothesis import given, strategies as st
from torch import nn

import spikewatch
from spikewatch.metrics import TABLES
from spikewatch.metrics.energy import add_samples, add_ternary
from spikewatch.zoo.ternary_linear import TernaryLinear


def energy(**counters):
    base = {"n_inputs": 20, "n_nonzero_inputs": 20, "n_outputs": 10, "n_dense_macs": 100.0}
    row = base | {"n_sops": 0.0, "n_macs": 0.0} | counters
    return TABLES["energy"].compute(pl.DataFrame([row])).row(0, named=True)


def test_additions_by_hand():
    row = energy(n_additions=60.0, n_samples=2.0, sum_time_steps=2.0)
    assert row["compute_pj_per_sample"] == pytest.approx(0.9 * 60 / 2)
    assert row["energy_ratio_compute"] == pytest.approx(0.9 * 60 / (4.6 * 100))
    assert row["energy_ratio_equal_cost"] == pytest.approx(0.6)
    memory = (0.9 * 60 + 5 * (60 + 20)) / (4.6 * 100 + 5 * (100 + 20))
    assert row["energy_ratio_memory"] == pytest.approx(memory)
    assert row["mac_frac"] == 0


def test_rows_from_before_there_were_additions_are_still_understood():
    row = energy(n_macs=100.0, n_samples=2.0, sum_time_steps=2.0)
    assert row["energy_ratio_compute"] == pytest.approx(1.0)


@given(st.integers(0, 40), st.integers(1, 40), st.floats(0, 1e6))
def test_multiplications_become_the_additions_of_nonzero_weights(n_zero, n_more, n_macs):
    n = n_zero + n_more
    rows = {
        "energy": [{"layer": "a", "n_macs": n_macs}, {"layer": "b", "n_macs": n_macs}],
        "weights": [{"layer": "a", "n_weights": n, "n_weight_zero": n_zero}],
    }
    add_ternary(rows)
    a, b = rows["energy"]
    assert a["n_macs"] == 0
    assert a["n_additions"] == pytest.approx(n_macs * n_more / n)
    assert b == {"layer": "b", "n_macs": n_macs}


@pytest.mark.parametrize(
    "leading",
    [
        pytest.param([64.0, 512.0], id="tokens are flattened behind"),
        pytest.param([512.0, 512.0, 64.0], id="tokens are flattened before"),
        pytest.param([64.0, 12.0, 52.0, 64.0], id="experts"),
        pytest.param([64.0, 0.0], id="an operation that has no such axis"),
    ],
)
def test_without_spikes_the_first_or_last_layer_tells_the_batch(leading):
    rows = {"energy": [{"layer": str(i), "n_leading": n} for i, n in enumerate(leading)]}
    add_samples(rows)
    assert {(r["n_samples"], r["sum_time_steps"]) for r in rows["energy"]} == {(64, 64)}
    assert "n_leading" not in rows["energy"][0]


@pytest.mark.parametrize(
    ("along", "time_steps"),
    [
        pytest.param([(128, False), (128, False), (112, True)], 112, id="kernel (k, k, 1)"),
        pytest.param([(112, True)], 112, id="a dense layer as a convolution"),
        pytest.param([(112, False), (112, False), (112, True)], 112, id="image as long as time"),
        pytest.param([(128, False), (128, False)], 16, id="an encoder of an image"),
        pytest.param([(112, False), (112, False)], 16, id="whose sides are as long as time"),
        pytest.param([(112, True), (112, True)], 16, id="as a readout's with a kernel of one"),
        pytest.param([(112, False)], None, id="a filter over time, or over a signal"),
        pytest.param([], 16, id="a linear layer"),
    ],
)
def test_a_convolution_called_once_a_sample_may_have_the_time_within_its_input(along, time_steps):
    timing = {"n_timed_obs": 112, "sum_ttfs_length_steps": 7.0 * 9, "n_ttfs_pairs": 9}
    once = {"layer": "conv", "n_leading": 16, "n_called": 16, "n_along": along}
    stepwise = {"layer": "fc", "n_leading": 16, "n_called": 112}
    rows = {"energy": [once, stepwise], "timing": [timing], "spikes": [{"layer": "lif"}]}
    add_samples(rows)
    assert once == {"layer": "conv", "n_samples": 16, "sum_time_steps": time_steps}
    assert stepwise == {"layer": "fc", "n_samples": 16, "sum_time_steps": 112}


def test_a_layer_that_runs_at_fewer_time_steps_than_the_neurons_has_its_own_number():
    timing = {"n_timed_obs": 112, "sum_ttfs_length_steps": 7.0 * 9, "n_ttfs_pairs": 9}
    row = {"layer": "fc", "n_leading": 16, "n_called": 96}  # not at the first, which has no input
    add_samples({"energy": [row], "timing": [timing], "spikes": [{"layer": "lif"}]})
    assert row == {"layer": "fc", "n_samples": 16, "sum_time_steps": 96}


def test_a_layer_that_a_part_of_the_samples_goes_through_has_no_fewer_time_steps():
    timing = {"n_timed_obs": 96, "sum_ttfs_length_steps": 6.0 * 9, "n_ttfs_pairs": 9}
    expert = {"layer": "expert", "n_leading": 8, "n_called": 48}
    whole = {"layer": "fc", "n_leading": 16, "n_called": 96}
    rows = {"energy": [expert, whole], "timing": [timing], "spikes": [{"layer": "lif"}]}
    add_samples(rows)
    assert {(r["n_samples"], r["sum_time_steps"]) for r in rows["energy"]} == {(16, 96)}


class Fire(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u):
        ctx.save_for_backward(u)
        return (u > 0).float()

    @staticmethod
    def backward(ctx, grad):
        (u,) = ctx.saved_tensors
        return grad * (u.abs() < 0.5)


class TimeLastLIF(nn.Module):
    def forward(self, x):
        u, out = 0, []
        for i in x.unbind(-1):
            u = 0.5 * u + i
            s = Fire.apply(u - 0.3)
            u = u * (1 - s)
            out.append(s)
        return torch.stack(out, -1)


class TimeLast(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.lif1 = nn.Conv3d(1, 3, (3, 3, 1), padding=(1, 1, 0)), TimeLastLIF()
        self.conv2, self.lif2 = nn.Conv3d(3, 3, (3, 3, 1), padding=(1, 1, 0)), TimeLastLIF()
        self.fc = nn.Linear(192, 10)

    def forward(self, x):
        x = self.lif2(self.conv2(self.lif1(self.conv1(x))))
        return self.fc(x.flatten(1, 3).transpose(1, 2)).mean(1)


def test_convolutions_with_time_as_their_last_axis_run_at_each_time_step(tmp_path):
    torch.manual_seed(0)
    net = TimeLast()
    with spikewatch.attach(net, dir=tmp_path, every=1, quiet=True):
        net(torch.rand(16, 1, 8, 8, 7)).square().sum().backward()
        torch.optim.SGD(net.parameters(), 0.01).step()
    with spikewatch.open_store(tmp_path) as store:
        rows = store.sql("SELECT n_samples, sum_time_steps FROM energy").rows()
    assert rows == [(16, 16 * 7)] * 3


def test_with_spikes_whose_time_is_unknown_nothing_is_said():
    rows = {"energy": [{"layer": "a", "n_leading": 64.0}], "spikes": [{"layer": "s", "n_obs": 64}]}
    add_samples(rows)
    assert rows["energy"] == [{"layer": "a"}]


def test_a_network_whose_spikes_were_not_heard_is_none_without_spikes():
    rows = {"energy": [{"layer": "a", "n_leading": 4.0}]}
    add_samples(rows, spiking=True)
    assert rows["energy"] == [{"layer": "a"}]


class Unheard(nn.Module):
    """Calls its neurons where no hook hears it, as some ways to checkpoint them do."""

    def __init__(self):
        super().__init__()
        self.fc1, self.lif, self.fc2 = nn.Linear(8, 8), snn.Leaky(0.9), nn.Linear(8, 3)

    def forward(self, x):
        mem = torch.zeros(len(x), 8)
        return self.fc2(self.lif.forward(self.fc1(x), mem)[0])


def test_samples_of_a_network_with_unheard_neurons_are_not_guessed(tmp_path):
    net = Unheard()
    with spikewatch.attach(net, dir=tmp_path, every=1, quiet=True):
        net(torch.rand(4, 16, 8).flatten(0, 1)).sum().backward()
        torch.optim.SGD(net.parameters(), 0.01).step()
    with spikewatch.open_store(tmp_path) as store:
        found = store.sql("SELECT n_samples, energy_ratio_compute FROM energy")
    assert set(found.rows()) == {(None, None)}


def test_a_ternary_network_is_seen_to_add(tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(12, 40), nn.ReLU(), TernaryLinear(40, 30), nn.Linear(30, 5))
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    nonzero = net[2].quantized_weight().ne(0).sum().item()
    with spikewatch.attach(net, dir=tmp_path, every=1, quiet=True):
        net(torch.randn(16, 12)).square().mean().backward()
        optimizer.step()
    with spikewatch.open_store(tmp_path) as store:
        rows = {r["layer"]: r for r in store.sql("FROM energy").iter_rows(named=True)}
    assert rows["2"]["n_additions"] == pytest.approx(16 * nonzero)
    assert rows["2"]["compute_pj_per_sample"] == pytest.approx(0.9 * nonzero)
    assert rows["0"]["compute_pj_per_sample"] == pytest.approx(4.6 * 12 * 40)
    assert rows["0"]["energy_ratio_compute"] == pytest.approx(1.0)
    assert rows["2"]["energy_ratio_compute"] == pytest.approx(0.9 * nonzero / (4.6 * 1200))


class Hidden(nn.Module):
    """Its neurons are a comparison and a detach trick, in the network's own code."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = TernaryLinear(8, 32), nn.Linear(32, 3)

    def forward(self, x):
        u, out = 0, 0
        for _ in range(5):
            u = 0.9 * u + self.fc1(x)
            soft = torch.sigmoid(4 * (u - 0.5))
            s = (u > 0.5).float() + (soft - soft.detach())
            u = u * (1 - s)
            out = out + self.fc2(s)
        return out


def watched(net, x, folder):
    """Samples and time steps of each layer and phase, and the notes that tell of them."""
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    with spikewatch.attach(net, dir=folder, every=1, quiet=True):
        for _ in range(2):
            net(x).square().sum().backward()
            optimizer.step()
            with torch.no_grad():
                net.eval()(x)
            net.train()
    with spikewatch.open_store(folder) as store:
        found = store.sql("SELECT n_samples, sum_time_steps FROM energy").rows()
        told = "SELECT layer FROM events WHERE kind = 'note' AND message LIKE '%a sample%'"
        return found, store.sql(told).rows()


def test_samples_are_not_guessed_where_nobody_knows_who_makes_the_spikes(tmp_path):
    torch.manual_seed(0)
    found, told = watched(Hidden(), 4 * torch.rand(16, 8), tmp_path)
    assert set(found) == {(None, None)}
    assert told == [("fc2",)]


def test_data_that_are_like_spikes_make_no_network_of_spikes(tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(TernaryLinear(8, 32), nn.ReLU(), nn.Linear(32, 3))
    found, told = watched(net, (torch.rand(16, 8) < 0.5).float(), tmp_path)
    assert set(found) == {(16, 16)}
    assert not told


ALIKE = (64, 4)  # observations of a neuron, and time steps of a sample


@pytest.mark.parametrize(
    ("layers", "told"),
    [
        pytest.param([ALIKE, ALIKE, (512, 64)], ALIKE, id="one has batch and time in one axis"),
        pytest.param([(64, 1), (64, 1), ALIKE], ALIKE, id="most start anew at each time step"),
        pytest.param([(64, 1), (64, 1)], (64, 1), id="all do"),
        pytest.param([(32, 4), ALIKE], ALIKE, id="one is given a part of the samples"),
        pytest.param([(64, 4), (64, 8)], (64, 8), id="nothing tells"),
    ],
)
def test_how_long_a_sample_is_most_of_the_layers_tell_that_know_of_time(layers, told):
    timing = [
        {"n_timed_obs": n_obs, "sum_ttfs_length_steps": 9.0 * n_steps, "n_ttfs_pairs": 9}
        for n_obs, n_steps in layers
    ]
    row = {"layer": "fc", "n_leading": 64, "n_called": 64}
    add_samples({"energy": [row], "timing": timing, "spikes": [{"layer": "lif"}]})
    n_obs, n_steps = told
    assert (row["n_samples"], row["sum_time_steps"]) == (n_obs / n_steps, n_obs)


def test_a_part_that_is_asked_about_samples_of_its_own_has_these():
    timing = [
        {"layer": name, "n_timed_obs": n, "n_ttfs_pairs": 10, "sum_ttfs_length_steps": 50.0}
        for name, n in [("actor.lif", 5), ("target.lif1", 80), ("target.lif2", 80)]
    ]
    rows = [{"layer": f"fc{n}", "n_called": n} for n in (5, 80, 16)]
    add_samples({"energy": rows, "timing": timing, "spikes": [{"layer": "actor.lif"}]})
    told = [(row["n_samples"], row["sum_time_steps"]) for row in rows]
    assert told == [(1, 5), (16, 80), (16, 16)]
