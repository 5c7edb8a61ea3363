"""Trainings whose neurons are functions: nothing is changed, nothing left, all of it stored."""

import copy
import io

import pytest
import torch
from torch import nn

import spikewatch


class Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx, potential):
        ctx.save_for_backward(potential)
        return potential.gt(0.0).float()

    @staticmethod
    def backward(ctx, gradient):
        (potential,) = ctx.saved_tensors
        return gradient / (1 + 5 * potential.abs()) ** 2


spike_function = Spike.apply


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(16, 12), nn.Linear(12, 4)

    def forward(self, x):
        mem1, mem2, out = 0.0, 0.0, 0.0
        for _ in range(6):
            mem1 = 0.9 * mem1 + self.fc1(x)
            s1 = spike_function(mem1 - 1.0)
            mem1, mem2 = mem1 - s1.detach(), 0.9 * mem2 + self.fc2(s1)
            s2 = spike_function(mem2 - 1.0)
            mem2, out = mem2 - s2.detach(), out + s2
        return out / 6


class Groups(nn.Module):
    """Never called itself: a method walks through its parts, as frameworks of their own do."""

    def __init__(self):
        super().__init__()
        self.fc, self.neurons, self.out = nn.Linear(16, 12), Neurons(), nn.Linear(12, 4)

    def run(self, x):
        self.neurons.mem, total = torch.zeros(len(x), 12), 0.0
        for _ in range(6):
            self.neurons.current = self.fc(x)
            self.neurons.forward()
            total = total + self.out(self.neurons.spikes)
        return total


class Neurons(nn.Module):
    def forward(self):
        self.mem = 0.9 * self.mem + self.current
        self.spikes = Spike.apply(self.mem - 1.0)


def train(net, *, n_steps, call=None):
    torch.manual_seed(1)
    call = net if call is None else call
    optimizer, losses = torch.optim.SGD(net.parameters(), 0.1), []
    for _ in range(n_steps):
        x, y = 4 * torch.rand(32, 16), torch.randint(0, 4, (32,))
        loss = nn.functional.cross_entropy(call(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def made(cls=Net):
    torch.manual_seed(0)
    return cls()


def own_forward():
    return vars(Spike)["forward"]


def test_losses_are_bit_for_bit_those_without_and_the_function_is_given_back(watched, stored):
    before, plain = own_forward(), train(made(), n_steps=6)
    watch = watched(net := made())
    assert train(net, n_steps=6) == plain
    assert own_forward() is not before
    watch.close()
    assert own_forward() is before
    rows = stored("SELECT layer, count(*), sum(n_obs) FROM spikes GROUP BY layer ORDER BY layer")
    assert rows.rows() == [("fc1.spikes", 6, 6 * 6 * 32), ("fc2.spikes", 6, 6 * 6 * 32)]


def test_the_layers_are_named_and_nothing_is_said_to_be_missing(watched, stored):
    watch = watched(net := made())
    train(net, n_steps=3)
    assert [x.name for x in watch.layers] == ["", "fc1.spikes", "fc2.spikes"]
    watch.close()
    messages = stored("SELECT message FROM events WHERE kind = 'note'")["message"]
    assert not [m for m in messages if "no layer made spikes" in m or "not called" in m]


def test_two_models_that_share_a_function_do_not_hear_each_other(tmp_path):
    before = own_forward()
    nets, watches = [made(), made()], []
    for k, net in enumerate(nets):
        watches.append(spikewatch.attach(net, dir=tmp_path, run=f"{k}", every=1, quiet=True))
    train(nets[0], n_steps=2)
    watches[0].close()
    train(nets[1], n_steps=3)
    watches[1].close()
    assert own_forward() is before
    with spikewatch.open_store(tmp_path) as store:
        rows = store.sql("SELECT run, max(step) FROM spikes GROUP BY run ORDER BY run").rows()
    assert rows == [("0", 1), ("1", 2)]


def test_copies_and_pickles_of_the_model_train_unheard(watched, stored):
    watch = watched(net := made())
    train(net, n_steps=1)
    twin = copy.deepcopy(net)
    torch.save(net, io.BytesIO())
    train(twin, n_steps=3)
    watch.close()
    assert stored("SELECT max(step) FROM spikes").item() == 0


def test_an_exception_in_a_forward_pass_does_not_confuse_the_next(watched, stored):
    watch = watched(net := made())
    train(net, n_steps=1)
    with pytest.raises(RuntimeError, match="shapes"):
        net(torch.rand(3, 5))
    train(net, n_steps=1)
    watch.close()
    assert stored("SELECT DISTINCT n_obs FROM spikes").rows() == [(6 * 32,)]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_compiled_network_has_one_graph_and_no_break(watched):
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    net = made()
    watched(net, every=2)
    train(net, n_steps=6, call=torch.compile(net, backend="aot_eager", fullgraph=True))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def test_neurons_that_are_walked_through_by_a_framework_are_heard(watched, stored):
    watch = watched(net := made(Groups))
    train(net, n_steps=4, call=net.run)
    watch.close()
    rows = stored("SELECT layer, n_neurons, n_obs, n_spikes > 0 FROM spikes ORDER BY step").rows()
    assert rows == [("neurons", 12, 6 * 32, True)] * 4
    assert stored("SELECT min(n_grad) FROM gradients").item() == 6 * 32 * 12
