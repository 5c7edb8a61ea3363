"""rockpool: several spikes in a step, modules that override what torch's have."""

import copy

import pytest
import torch
from rockpool.nn.combinators import Residual, Sequential
from rockpool.nn.modules import ExpSynTorch, LIFBitshiftTorch, LIFNeuronTorch, LIFTorch, LinearTorch
from rockpool.nn.modules.torch import aLIFTorch
from rockpool.nn.modules.torch.lif_torch import PeriodicExponential
from rockpool.parameters import Constant
from torch import nn

import spikewatch


def network():
    return Sequential(
        LinearTorch((6, 8)),
        LIFTorch(8),
        LinearTorch((8, 3)),
        LIFTorch(3, threshold=Constant(0.8), spike_generation_fn=PeriodicExponential),
        ExpSynTorch(3),
    )


def test_a_training_in_the_tutorials_style_is_counted(tmp_path, told):
    torch.manual_seed(0)
    net = network()
    seen = [told(m) for _, m in nn.Module.named_modules(net) if isinstance(m, LIFTorch)]
    with spikewatch.attach(net, dir=tmp_path, every=1, quiet=True) as watch:
        assert [x.library for x in watch.layers if x.kind == "spiking"] == ["rockpool", "rockpool"]
        optimizer = torch.optim.Adam(net.parameters().astorch(), 1e-4)
        for _ in range(2):
            out, _, _ = net(torch.rand(4, 10, 6))
            optimizer.zero_grad()
            out.square().mean().backward()
            optimizer.step()
    store = spikewatch.open_store(tmp_path)
    rows = store.sql(
        "SELECT layer, step, n_obs, n_spikes, sum_abs_spike, n_sg, sum_sg, n_grad "
        "FROM wide WHERE n_obs IS NOT NULL ORDER BY layer, step"
    ).rows(named=True)
    assert [(r["layer"], r["step"]) for r in rows] == [
        (layer, step) for layer in ("1_LIFTorch", "3_LIFTorch") for step in (0, 1)
    ]
    for row, spikes in zip(rows, [s for layer in seen for s in layer.spikes], strict=True):
        assert row["n_obs"] == 40
        assert row["n_spikes"] == spikes.count_nonzero() > 0
        assert row["sum_abs_spike"] == spikes.sum()
        assert row["n_grad"] == spikes.numel()
    assert max(s.max().item() for s in seen[0].spikes) > 1
    u = torch.stack(seen[0].saved[:10], 1)  # StepPWL: 1/θ above θ − window
    assert rows[0]["n_sg"] == u.numel()
    assert rows[0]["sum_sg"] == pytest.approx((u >= 0.5).sum().item(), rel=1e-3)
    operations = store.sql(
        "SELECT layer, n_dense_macs, n_sops FROM energy WHERE step = 0 ORDER BY layer"
    )
    assert operations.rows() == [
        ("0_LinearTorch", 40 * 6 * 8, 0),
        ("2_LinearTorch", 40 * 8 * 3, 3 * seen[0].spikes[0].sum()),  # each time that one fires
    ]
    assert store.sql("SELECT kind FROM events WHERE kind = 'fault'").height == 0


def test_spikes_that_rockpool_copies_raise_no_warning(listen):
    net = network()
    listen(net)
    net(torch.rand(2, 5, 6), record=True)  # warnings are errors here
    copy.deepcopy(net)


def test_the_potential_of_a_recorded_call_is_that_before_the_reset(told):
    torch.manual_seed(1)
    neuron = LIFTorch(5, threshold=Constant(0.6))
    seen = told(neuron)
    _, _, record = neuron(torch.rand(2, 8, 5), record=True)
    neuron(torch.rand(2, 8, 5))
    first, second = seen.membranes
    assert second is None  # it was not recorded
    assert first.pre_reset
    torch.testing.assert_close(first.potential, torch.stack(seen.saved[:8], 1))
    torch.testing.assert_close(first.potential, record["vmem"] + 0.6 * seen.spikes[0])


@pytest.mark.parametrize(
    ("neuron", "decay"),
    [
        (LIFTorch(3, tau_mem=Constant(0.01)), 0.904837),
        (LIFTorch(3, dt=2e-3), 0.904837),
        (LIFTorch(3, leak_mode="decays", alpha=0.7), 0.7),
        (LIFTorch(3, leak_mode="bitshifts", dash_mem=torch.full((3,), 3.0)), 0.875),
        (LIFNeuronTorch(3), 0.951229),
        (aLIFTorch(3), 0.951229),
        (LIFBitshiftTorch(3), 0.9375),
    ],
)
def test_the_decay_is_what_a_charge_decays_by(dynamics, neuron, decay):
    told_decay = dynamics(neuron).decay
    assert told_decay.flatten()[0].item() == pytest.approx(decay, rel=1e-5)
    with torch.no_grad():
        neuron.vmem.fill_(0.5)
        neuron(torch.zeros(1, 1, 3))
    assert neuron.vmem[0].item() == pytest.approx(0.5 * decay, rel=1e-5)


def test_threshold_surrogate_and_trainable_parameters_are_the_neurons_own(dynamics):
    neuron = LIFTorch(3, threshold=Constant(0.8), has_rec=True)
    found = dynamics(neuron)
    assert (found.threshold.item(), found.reset) == (pytest.approx(0.8), "subtract")
    assert found.surrogate == "StepPWL"
    assert set(found.learnable) == {"tau_mem", "tau_syn"}  # neither weights nor biases


def test_neurons_within_a_residual_are_found(listen):
    net = Sequential(LinearTorch((4, 4)), Residual(LinearTorch((4, 4)), LIFTorch(4)))
    heard = listen(net)
    net(5 * torch.rand(2, 6, 4))
    (name,) = heard.spiking
    assert heard.flush(name, "spikes")["n_obs"] == 12
