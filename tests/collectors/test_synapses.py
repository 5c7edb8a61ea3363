"""Synaptic operations: against plain loops, other counters, and through a whole run."""

import itertools

import pytest
import snntorch as snn
import torch
from hypothesis import given, settings, strategies as st
from sinabs.layers import IAF
from spikingjelly.activation_based import functional, layer, neuron, op_counter
from torch import nn
from torch.utils.checkpoint import checkpoint

import spikewatch
from spikewatch.collectors.fan_out import FanOut, fan_out
from spikewatch.errors import AttachError


def energy_of(listen, module, *inputs, name="0"):
    heard = listen(nn.Sequential(module, snn.Leaky(beta=0.9)))
    for x in inputs:
        module(x)
    return heard.tables(name)["energy"]


def operations_by_loops(conv, x):
    """Every product of an input element with a weight, one by one."""
    n_spikes = n_all = 0
    out = conv(x).shape
    kernel = conv.kernel_size
    for place in itertools.product(*map(range, out[2:])):
        for tap in itertools.product(*map(range, kernel)):
            at = [
                p * s + t * d - pad
                for p, s, t, d, pad in zip(
                    place, conv.stride, tap, conv.dilation, conv.padding, strict=True
                )
            ]
            if all(0 <= a < n for a, n in zip(at, x.shape[2:], strict=True)):
                here = x[(slice(None), slice(None), *at)]
                n_spikes += int(here.count_nonzero()) * conv.out_channels // conv.groups
                n_all += here.numel() * conv.out_channels // conv.groups
    return n_spikes, n_all


geometries = st.fixed_dictionaries(
    {
        "kernel_size": st.tuples(st.integers(1, 3), st.integers(1, 3)),
        "stride": st.tuples(st.integers(1, 3), st.integers(1, 2)),
        "padding": st.tuples(st.integers(0, 2), st.integers(0, 1)),
        "dilation": st.tuples(st.integers(1, 2), st.just(1)),
        "groups": st.sampled_from([1, 2]),
    }
)


def test_operations_are_whole_numbers_though_their_mean_is_none(listen):
    conv = nn.Conv2d(1, 5, 3, padding=1)  # 845 of 25 inputs: 33.8 each, which no float is
    row = energy_of(listen, conv, torch.rand(1, 1, 5, 5), torch.rand(4, 1, 5, 5))
    assert row["n_dense_macs"] == row["n_macs"] == 5 * 845


@settings(deadline=None, max_examples=40)
@given(geometries, st.integers(0, 1000))
def test_a_convolution_is_counted_as_plain_loops_count_it(geometry, seed):
    torch.manual_seed(seed)
    conv = nn.Conv2d(2, 4, **geometry)
    x = torch.bernoulli(torch.full((2, 2, 6, 5), 0.3))
    reach = fan_out(conv, x)
    per_place = x.ne(0).flatten(0, 1).sum(0)
    expected = operations_by_loops(conv, x)
    assert (per_place * reach.each).sum().item() == expected[0]
    assert reach.mean * x.numel() == pytest.approx(expected[1])


def test_a_linear_layer_reaches_all_its_outputs(listen):
    x = torch.tensor([[0.0, 1.0, 1.0], [0.0, 0.0, 1.0]])
    row = energy_of(listen, nn.Linear(3, 5), x)
    assert row == {
        "n_inputs": 6,
        "n_nonzero_inputs": 3,
        "n_outputs": 10,
        "n_sops": 15,
        "n_macs": 0,
        "n_dense_macs": 30,
        "n_leading": 2,
        "n_called": 2,
    }


@pytest.mark.parametrize(
    ("x", "spikes"),
    [
        (torch.tensor([[0.0, 1.0, 1.0]]), True),
        (torch.tensor([[-0.7, 0.0, 0.7]]), True),
        (torch.tensor([[0.0, 1.0, 2.0]]), False),  # a residual sum of spikes
        (torch.tensor([[0.25, 0.5, 0.0]]), False),  # averages
        (torch.zeros(1, 3), True),
    ],
)
def test_only_inputs_of_one_level_need_additions_alone(listen, x, spikes):
    row = energy_of(listen, nn.Linear(3, 5), x)
    n_nonzero = int(x.count_nonzero())
    assert (row["n_sops"], row["n_macs"]) == ((5 * n_nonzero, 0) if spikes else (0, 15))


@pytest.mark.parametrize(
    ("x", "n_spikes"),
    [
        ([[0.0, 1.0, 2.0]], 3),
        ([[2.0, 0.0, 2.0]], 4),
        ([[-1.0, 0.0, 2.0]], 3),
        ([[-0.7, 0.0, 0.7]], 2),
        ([[0.25, 0.5, 0.0]], None),
        ([[16.0, 3.0, 0.0]], None),  # pixels
        ([[0.0, 1.0, torch.inf]], None),
        ([[0.0, 1.0, torch.nan]], None),
    ],
)
def test_where_neurons_may_fire_several_times_in_a_step_each_time_is_an_addition(
    listen, x, n_spikes
):
    heard = listen(nn.Sequential(fc := nn.Linear(3, 5), IAF()))
    fc(torch.tensor(x))
    row = heard.tables("0")["energy"]
    assert (row["n_sops"], row["n_macs"]) == ((0, 15) if n_spikes is None else (5 * n_spikes, 0))


@pytest.mark.parametrize(("x", "n_sops"), [([[1.0, 2.0, 0.0]], 5), ([[0.5, 0.5, 0.0]], 3)])
def test_at_the_border_too_each_time_that_a_neuron_fires_is_an_addition(listen, x, n_sops):
    heard = listen(nn.Sequential(conv := nn.Conv1d(1, 1, 2), IAF()))
    conv(torch.tensor([x]))
    assert heard.tables("0")["energy"]["n_sops"] == n_sops


def test_a_product_of_counts_of_spikes_is_driven_by_the_side_with_fewer(listen):
    class Scores(nn.Module):
        def forward(self, q, k):
            return q @ k.mT

    heard = listen(nn.Sequential(IAF(), own := Scores()))
    q, k = torch.tensor([[[0.0, 3.0]]]), torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    own(q, k)
    row = heard.tables("1")["energy"]
    assert (row["n_sops"], row["n_inputs"], row["n_dense_macs"]) == (2, 4, 4)


@pytest.mark.parametrize("mode", ["zeros", "circular", "reflect"])
def test_every_mode_of_padding_is_the_layers_own(mode):
    conv = nn.Conv1d(1, 1, 3, padding=1, padding_mode=mode)
    reach = fan_out(conv, torch.zeros(1, 1, 5)).each.tolist()
    assert (
        reach
        == {
            "zeros": [2, 3, 3, 3, 2],
            "circular": [3, 3, 3, 3, 3],
            "reflect": [2, 4, 3, 4, 2],
        }[mode]
    )


def test_a_class_that_reshapes_its_input_is_left_out_but_where_each_place_stands_alone():
    x = torch.zeros(2, 4, 7)
    for kernel, options in ((3, {}), ((1, 1, 3), {}), (1, {"stride": 2}), (1, {"padding": 1})):
        assert fan_out(nn.Conv3d(4, 2, kernel, **options), x) is None
    assert fan_out(nn.Conv3d(4, 2, 1), x.mT) is None
    assert fan_out(nn.Conv3d(4, 2, 1), x) == FanOut(None, 2.0)
    assert fan_out(nn.Conv3d(4, 6, 1, groups=2), x) == FanOut(None, 3.0)


class TimeLast(nn.Linear):
    """Works on [B, C, T], as layers of many spiking repositories do (STBP, tdBN)."""

    def forward(self, x):
        return nn.functional.linear(x.mT, self.weight, self.bias).mT


@pytest.mark.parametrize("n_steps", [5, 3])  # with 3 any axis but the first may be the features'
def test_a_linear_class_whose_features_are_not_last_is_counted_as_one_whose_are(listen, n_steps):
    x = torch.bernoulli(torch.full((4, 3, n_steps), 0.5))
    rows = [energy_of(listen, kind(3, 7), x) for x, kind in ((x, TimeLast), (x.mT, nn.Linear))]
    assert rows[0] == rows[1]
    assert rows[0]["n_sops"] == 7 * int(x.count_nonzero())


class MeanOverTime(TimeLast):
    def forward(self, x):
        return super().forward(x).mean(-1)


class Embedded(nn.Linear):
    """Has as many samples as features, by chance."""

    def forward(self, x):
        return super().forward(torch.stack([x, x.square(), x.sin()], -1).flatten(1))


@pytest.mark.parametrize("module", [MeanOverTime(6, 4), Embedded(6, 4)])
def test_a_linear_class_whose_products_cannot_be_told_is_said_to_be_left_out(listen, module):
    heard = listen(nn.Sequential(module, snn.Leaky(beta=0.9)))
    module(torch.ones(6, 6, 2) if isinstance(module, MeanOverTime) else torch.ones(6, 2))
    assert "energy" not in heard.tables("0")
    assert [layer for layer, note in heard.notes if "operations are not counted" in note] == ["0"]


def test_a_transposed_convolution_reaches_its_kernel():
    conv = nn.ConvTranspose2d(2, 3, 2, stride=2)
    assert fan_out(conv, torch.zeros(1, 2, 4, 4)).each.unique().tolist() == [3 * 4]


def test_spikingjellys_own_counter_agrees_where_spikes_are_binary(listen):
    torch.manual_seed(0)
    net = nn.Sequential(
        layer.Conv2d(1, 4, 3, padding=1), neuron.IFNode(), layer.Flatten(), layer.Linear(256, 10),
        neuron.IFNode(),
    )  # fmt: skip
    functional.set_step_mode(net, "m")
    x = torch.bernoulli(torch.full((4, 2, 1, 8, 8), 0.4))
    heard = listen(net)
    counter = op_counter.SynOpCounter()
    with torch.no_grad(), op_counter.DispatchCounterMode([counter]):
        net(x)
    ours = sum(heard.tables(name, "eval")["energy"]["n_sops"] for name in ("0", "3"))
    assert ours == counter.get_total() > 0


def test_a_checkpoint_is_counted_once(listen):
    fc = nn.Linear(3, 5)
    heard = listen(nn.Sequential(fc, snn.Leaky(beta=0.9)))
    x = torch.ones(2, 3, requires_grad=True)
    checkpoint(fc, x, use_reentrant=False).sum().backward()
    assert heard.tables("0")["energy"]["n_inputs"] == 6


def test_bfloat16_is_counted_exactly(listen):
    fc = nn.Linear(3000, 2).bfloat16()
    row = energy_of(listen, fc, torch.ones(1, 3000, dtype=torch.bfloat16))
    assert (row["n_nonzero_inputs"], row["n_sops"]) == (3000, 6000)


def test_a_network_of_weights_alone_is_still_refused():
    with pytest.raises(AttachError):
        spikewatch.attach(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)))


def test_a_run_tells_energy_for_each_sample_by_three_models(tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(layer.Linear(16, 8), neuron.IFNode(), layer.Linear(8, 4), neuron.IFNode())
    functional.set_step_mode(net, "m")
    optimizer = torch.optim.SGD(net.parameters(), 0.0)
    x = torch.bernoulli(torch.full((5, 3, 16), 0.5))  # T = 5, three samples
    with spikewatch.attach(net, dir=tmp_path, every=1, quiet=True) as watch:
        net(x).sum().backward()
        optimizer.step()
    assert [x.kind for x in watch.layers] == ["spiking", "spiking"]
    with spikewatch.open_store(tmp_path) as store:
        row = store.sql("SELECT * FROM energy WHERE layer = '0'").row(0, named=True)
        assert store.sql("SELECT count(*) FROM layers").item() == 2
    sops = int(x.count_nonzero()) * 8
    assert (row["n_samples"], row["sum_time_steps"], row["n_sops"]) == (3, 15, sops)
    assert row["sops_per_sample"] == sops / 3
    assert row["compute_pj_per_sample"] == pytest.approx(0.9 * sops / 3)
    dense = 3 * 16 * 8  # one pass of each sample
    assert row["energy_ratio_compute"] == pytest.approx(0.9 * sops / (4.6 * dense))
    assert row["energy_ratio_equal_cost"] == pytest.approx(sops / dense)
    spiking = 0.9 * sops + 5 * (sops + 2 * 5 * 3 * 8)
    assert row["energy_ratio_memory"] == pytest.approx(spiking / (4.6 * dense + 5 * (dense + 48)))
