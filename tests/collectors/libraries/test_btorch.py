"""btorch: neurons in continuous time, float64 or not, with refractory times."""

import pytest
import torch
from btorch.models import environ, functional
from btorch.models.neurons import ALIF, GLIF3, LIF, MixedNeuronPopulation
from btorch.models.surrogate import ATan
from torch import nn


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(6, 8), nn.Linear(8, 3)
        self.hidden = LIF(8, tau=5.0, surrogate_function=ATan(), trainable_param={"tau"})
        self.out = LIF(3, tau=5.0, v_threshold=0.5, hard_reset=True, step_mode="s")

    def forward(self, x):
        return torch.stack([self.out(self.fc2(self.hidden(self.fc1(f)))) for f in x])


@pytest.mark.parametrize("trains", [True, False])
def test_a_training_is_counted_and_starts_a_sample_after_each_reset(listen, told, trains):
    torch.manual_seed(0)
    net = Classifier()
    functional.init_net_state(net, batch_size=4, dtype=torch.float32)
    heard, seen, last = listen(net), told(net.hidden), told(net.out)
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    with environ.context(dt=1.0), torch.set_grad_enabled(trains):
        for _ in range(2):
            functional.reset_net(net, batch_size=4)
            loss = net(6 * torch.rand(5, 4, 6)).mean()
            if trains:
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    tables, spikes = heard.tables("hidden", "train" if trains else "eval"), torch.stack(seen.spikes)
    assert seen.starts == last.starts == [True, *[False] * 4] * 2
    assert (tables["spikes"]["n_obs"], tables["spikes"]["n_neurons"]) == (40, 8)
    assert tables["spikes"]["n_spikes"] == spikes.sum() > 0
    assert {m.pre_reset for m in seen.membranes} == {True}
    assert {m.pre_reset for m in last.membranes} == {False}
    if trains:
        x = torch.stack(seen.saved)  # (v − θ) / (θ − v_reset)
        torch.testing.assert_close(seen.potentials, x + 1)
        slopes = 1 / (1 + (2 * x) ** 2)
        assert tables["gradients"]["sum_sg"] == pytest.approx(slopes.sum().item(), rel=1e-5)


def test_a_sequence_is_counted_whole(listen, told):
    torch.manual_seed(1)
    neuron = GLIF3(5, v_threshold=1.0, v_reset=0.0, step_mode="m", pre_spike_v=True)
    functional.init_net_state(neuron, batch_size=3)
    heard, seen = listen(nn.Sequential(neuron)), told(neuron)
    with environ.context(dt=1.0):
        out = neuron(30 * torch.rand(7, 3, 5))
    row = heard.flush("0", "spikes")
    assert (row["n_obs"], row["n_neurons"]) == (21, 5)
    assert row["n_spikes"] == out.sum() > 0
    (membrane,) = seen.membranes
    assert membrane.pre_reset
    assert torch.equal(membrane.potential, neuron.v_pre_spike)


def test_the_members_of_a_population_are_the_layers(listen):
    net = MixedNeuronPopulation([(3, LIF(3)), (2, ALIF(2))])
    functional.init_net_state(net, batch_size=4)
    heard = listen(net)
    assert [o.layer.kind for o in heard.observers.values()] == ["spiking", "spiking"]
    with environ.context(dt=1.0):
        net(torch.rand(4, 5))
    sizes = [heard.flush(name, "spikes")["n_neurons"] for name in heard.observers]
    assert sizes == [3, 2]


@pytest.mark.parametrize(("theta", "out"), [(-50.0, 0), (-80.0, 1)])
def test_a_threshold_in_millivolt_may_learn_as_long_as_it_is_above_the_reset(listen, theta, out):
    neuron = GLIF3(4, v_threshold=theta, trainable_param={"v_threshold"})
    functional.init_net_state(neuron, batch_size=2)
    heard = listen(nn.Sequential(neuron))
    with environ.context(dt=1.0):
        neuron(torch.rand(2, 4))
    tables = heard.tables("0")
    assert tables["dynamics"]["n_thresholds_out"] == out * tables["dynamics"]["n_thresholds"]
    assert tables["dynamics"]["n_thresholds_pinned"] == tables["dynamics"]["n_thresholds_out"]
    assert tables["membrane"]["n_membrane_nonfinite"] == 0


def test_parameters_are_the_neurons_own_and_the_decay_follows_the_time_step(dynamics):
    neuron = LIF(4, tau=10.0, v_threshold=0.7, trainable_param={"tau", "v_threshold"})
    functional.init_net_state(neuron, batch_size=1)
    found = dynamics(neuron)
    assert found.threshold.flatten()[0].item() == pytest.approx(0.7)
    assert (found.reset, found.decay) == ("subtract", None)
    assert found.learnable == {"tau": neuron.tau, "v_threshold": neuron.v_threshold}
    with environ.context(dt=2.0):
        decay = dynamics(neuron).decay.flatten()[0].item()
        exponential = dynamics(GLIF3(4, tau=10.0)).decay.flatten()[0].item()
        neuron.v = torch.full((1, 4), 0.5)
        neuron(torch.zeros(1, 4))
    assert neuron.v[0, 0].item() == pytest.approx(0.5 * decay)
    assert decay == pytest.approx(0.8)
    assert exponential == pytest.approx(0.818731, rel=1e-5)
