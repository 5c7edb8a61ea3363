"""Neurons that cut the graph of their state in each time step, as DECOLLE's, which learn online."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from .test_samples import first_spikes, timing


N_STEPS, BATCH = 12, 8


class Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return (x >= 0).to(x.dtype)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient * (x.abs() < 0.5)


class NeuronState(NamedTuple):
    trace: Tensor
    potential: Tensor
    spikes: Tensor


class Neuron(nn.Module):
    """Keeps its state in a tuple of its own; with `cuts_spikes` what it returns has no graph."""

    spike_function = Step.apply

    def __init__(self, *, cuts_spikes):
        super().__init__()
        self.weights, self.cuts_spikes, self.state = nn.Linear(20, 30), cuts_spikes, None

    def forward(self, x):
        if self.state is None:
            zeros = torch.zeros(len(x), 30)
            self.state = NeuronState(torch.zeros_like(x), zeros, zeros)
        old = self.state
        trace = 0.5 * old.trace + x
        u = self.weights(trace) + 0.9 * old.potential - old.spikes
        s = self.spike_function(u - 0.4)
        kept = s if self.cuts_spikes else s.detach()
        self.state = NeuronState(trace, u.detach(), kept)
        for part in self.state:
            part.detach_()
        return s, u


class Net(nn.Module):
    """Pools the potential, and makes spikes of that, by a function of its part."""

    def __init__(self, *, cuts_spikes=True):
        super().__init__()
        torch.manual_seed(0)
        self.lif, self.out = Neuron(cuts_spikes=cuts_spikes), nn.Linear(15, 4)
        self.made, self.pooled = [], []

    def forward(self, x):
        s, u = self.lif(x)
        pooled = self.lif.spike_function(nn.functional.max_pool1d(u, 2) - 0.4)
        self.made.append(s.detach().clone())
        self.pooled.append(pooled.detach())
        return self.out(pooled)


def train(net, *, n_samples, begin, steps_a_sample=1, call=None):
    optimizer = torch.optim.SGD(net.parameters(), 1e-3)
    for _ in range(n_samples):
        net.lif.state = begin()
        for chunk in torch.rand(steps_a_sample, N_STEPS // steps_a_sample, BATCH, 20):
            sum((call or net)(x).square().mean() for x in chunk).backward()
            optimizer.step()
            optimizer.zero_grad()


def nothing():
    return None


def zeros():
    return NeuronState(torch.zeros(BATCH, 20), torch.zeros(BATCH, 30), torch.zeros(BATCH, 30))


def noise():
    return NeuronState(*(0.1 * torch.rand_like(x) for x in zeros()[:2]), torch.zeros(BATCH, 30))


@pytest.mark.parametrize("cuts_spikes", [True, False], ids=["no graph", "graph of spikes"])
@pytest.mark.parametrize("begin", [nothing, zeros, noise])
def test_a_state_without_a_graph_goes_on_until_it_is_replaced(watched, stored, begin, cuts_spikes):
    net = Net(cuts_spikes=cuts_spikes)
    watch = watched(net)
    train(net, n_samples=2, begin=begin)
    watch.close()
    got = timing(stored, "lif")
    assert got["n_steps"].to_list() == [N_STEPS] * 2
    made = torch.stack(net.made).view(2, N_STEPS, BATCH, 30)
    assert got.select("fired", "total").rows() == [first_spikes(s) for s in made]
    energy = stored("SELECT n_samples, sops_per_sample * n_samples AS n FROM energy "
                    "WHERE layer = 'out' ORDER BY step")  # fmt: skip
    pooled = torch.stack(net.pooled).view(2, -1)
    assert energy.rows() == [(BATCH, 4 * p.sum().item()) for p in pooled]


def test_a_sample_that_has_begun_without_gradients_is_at_an_unknown_time_step(watched, stored):
    net = Net()
    watch = watched(net)
    optimizer = torch.optim.SGD(net.parameters(), 1e-3)
    for _ in range(3):
        net.lif.state = None
        with torch.no_grad():
            for _ in range(4):
                net(torch.rand(BATCH, 20))
        sum(net(torch.rand(BATCH, 20)).square().mean() for _ in range(N_STEPS)).backward()
        optimizer.step()
    watch.close()
    got = stored("SELECT phase, n_samples FROM energy WHERE layer = 'out' ORDER BY step, phase")
    assert got.filter(phase="train")["n_samples"].to_list() == [None] * 3
    assert got.filter(phase="eval")["n_samples"][0] == BATCH


def test_a_record_of_spikes_that_grows_is_no_state(watched, stored):
    class Recording(Neuron):
        def __init__(self):
            super().__init__(cuts_spikes=False)
            self.record, self.latest = [], {}

        def forward(self, x):
            s = self.spike_function(self.weights(x) - 0.1)
            self.record.append(s.detach())
            self.latest["s"] = s.detach()
            return s, s

    net = Net()
    net.lif = Recording()
    watch = watched(net)
    optimizer = torch.optim.SGD(net.parameters(), 1e-3)
    for _ in range(2):
        for _ in range(3):  # parts of a batch
            net(torch.rand(BATCH, 20)).square().mean().backward()
        optimizer.step()
    watch.close()
    energy = stored("SELECT n_samples, sum_time_steps FROM energy WHERE layer = 'out'")
    assert energy.rows() == [(3 * BATCH, 3 * BATCH)] * 2


def test_spikes_that_a_model_makes_by_a_function_of_its_part_are_a_layer(watched, stored):
    net = Net()
    watch = watched(net)
    train(net, n_samples=2, begin=nothing)
    watch.close()
    pooled = torch.stack(net.pooled).view(2, N_STEPS, BATCH, 15)
    layer = "lif.weights.spikes"
    got = timing(stored, layer)
    assert got["n_steps"].to_list() == [N_STEPS] * 2
    assert got.select("fired", "total").rows() == [first_spikes(s) for s in pooled]
    assert (
        stored(f"SELECT sum(n_spikes) FROM spikes WHERE layer = '{layer}'").item() == pooled.sum()
    )


def test_a_sample_whose_state_goes_on_from_step_to_step_is_none_of_its_own(watched, stored):
    net = Net()
    watch = watched(net)
    train(net, n_samples=2, begin=nothing, steps_a_sample=3)
    watch.close()
    known = stored("SELECT step, n_samples FROM energy WHERE layer = 'out' ORDER BY step")
    assert known["n_samples"].to_list() == [BATCH, None, None, BATCH, None, None]


def test_between_steps_that_are_not_observed_it_is_not_known_whether_a_state_goes_on(
    watched, stored
):
    net = Net()
    watch = watched(net, every=4)
    train(net, n_samples=4, begin=noise, steps_a_sample=3)
    watch.close()
    assert stored("SELECT n_samples FROM energy WHERE layer = 'out' AND step > 0")[
        "n_samples"
    ].to_list() == [None, None]  # fmt: skip
    assert "one after the other" in stored("SELECT message FROM events WHERE layer = 'lif'").item()


def test_what_functions_make_is_counted_and_not_said_to_be_open(watched, stored):
    net = Net()
    watch = watched(net)
    train(net, n_samples=20, begin=nothing)
    watch.close()
    assert stored("SELECT count(*) FROM spikes WHERE layer = 'lif'").item() == 20
    assert stored("SELECT message FROM events WHERE layer = 'lif'").is_empty()


def test_where_the_models_forward_is_called_by_hand_the_state_tells_all_the_same(watched, stored):
    net = Net()
    watch = watched(net)
    train(net, n_samples=3, begin=nothing, call=net.forward)
    watch.close()
    assert timing(stored, "lif")["n_steps"].to_list() == [N_STEPS] * 2  # from the second one on
