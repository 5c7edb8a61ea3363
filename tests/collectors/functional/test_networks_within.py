"""Networks of functions, and what shares one: which of it is a layer."""

import torch
from torch import nn

from .hearing import hear, inner, row_of
from .published import ActFun, Written, mem_update


class Returning(nn.Module):
    """Called for each time step; returns the spikes of its last layer, beside its state."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(6, 8), nn.Linear(8, 8)

    def forward(self, x, state):
        spike1, mem1 = mem_update(self.fc1, x, *state[0])
        spike2, mem2 = mem_update(self.fc2, spike1, *state[1])
        return spike2, [(spike1, mem1), (spike2, mem2)]


def test_a_network_that_returns_the_spikes_of_its_last_layer_is_not_one_layer(listen, made):
    torch.manual_seed(0)
    net = nn.ModuleList([Returning()])
    heard = hear(listen, net)
    state = [(torch.zeros(16, 8),) * 2] * 2
    for _ in range(3):
        spikes, state = net[0](3 * torch.rand(16, 6), state)
    spikes.sum().backward()
    found = inner(heard, "0")
    assert list(found) == ["0.fc1.spikes", "0.fc2.spikes"]
    for layer, counts in enumerate(found.values()):
        spikes = [s for _, s, _ in made[layer::2]]
        assert row_of(heard, counts, "spikes")["n_spikes"] == sum(s.sum() for s in spikes) > 0


class Silenced(Written):
    """Its last layer never fires at first, so that the rates are zeros like spikes."""

    def __init__(self):
        super().__init__()
        self.fc2.bias.data.fill_(-9)


def test_a_network_whose_output_is_silent_is_not_one_layer(listen):
    torch.manual_seed(0)
    net = Silenced()
    heard = hear(listen, net)
    net(3 * torch.rand(16, 6)).sum().backward()
    found = inner(heard, "")
    assert list(found) == ["fc1.spikes", "fc2.spikes"]
    assert row_of(heard, found["fc2.spikes"], "spikes")["n_obs"] == 5 * 16


class Sum(nn.Module):
    """One layer, whose spikes are added over time, and do not come at first."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 9)

    def forward(self, x):
        mem = spike = total = torch.zeros(len(x), 9)
        for _ in range(5):
            spike, mem = mem_update(self.fc, x, spike, mem)
            total = total + spike
        return total


def test_silent_spikes_that_are_added_over_time_are_counted_in_each_time_step(listen):
    torch.manual_seed(0)
    net = nn.Sequential(Sum())
    heard = hear(listen, net)
    net[0].fc.bias.data.fill_(-9)
    net(torch.rand(16, 6)).sum().backward()
    (counts,) = inner(heard, "0").values()
    assert row_of(heard, counts, "spikes")["n_obs"] == 5 * 16


class Within(nn.Module):
    """A block that ends in spikes, with a neuron in it that is a module."""

    def __init__(self):
        super().__init__()
        self.act, self.fc = Heaviside(), nn.Linear(6, 6)

    def forward(self, x):
        return ActFun.apply(self.fc(self.act(x)))


class Heaviside(nn.Module):
    def forward(self, x):
        return ActFun.apply(x)


class Around(nn.Module):
    def __init__(self):
        super().__init__()
        self.block, self.fc = Within(), nn.Linear(6, 6)

    def forward(self, x):
        return self.fc(ActFun.apply(self.block(x) - 0.5))


def test_what_a_neuron_within_makes_is_not_counted_again_by_the_block_around_it(listen):
    torch.manual_seed(0)
    net = Around()
    heard = hear(listen, net)
    for _ in range(3):
        net(torch.randn(16, 6, requires_grad=True)).sum().backward()
        assert list(inner(heard, "")) == ["block.fc.spikes"]
        assert heard.flush("block", "spikes")["n_obs"] == 16
        assert heard.flush("block.act", "spikes")["n_obs"] == 16


_of_all = Heaviside()


class Shared(nn.Module):
    """A neuron whose surrogate is a module that all of them have."""

    def __init__(self, v_th, surrogate=_of_all):
        super().__init__()
        self.v_th, self.surrogate = v_th, surrogate

    def forward(self, x):
        v, out = torch.zeros_like(x[0]), []
        for current in x:
            v = 0.5 * v + current
            s = self.surrogate(v - self.v_th)
            v = v - self.v_th * s
            out.append(s)
        return self.of(v, torch.stack(out))

    def of(self, v, spikes):
        return spikes


class SharedSecond(Shared):
    def of(self, v, spikes):
        return v, spikes


def test_neurons_that_share_a_surrogate_are_layers_of_their_own(listen):
    torch.manual_seed(0)
    net = nn.Sequential(Shared(0.5), nn.Linear(6, 6), Shared(2.5))
    heard = listen(net)
    net(2 * torch.rand(5, 16, 6, requires_grad=True)).sum().backward()
    assert heard.spiking == ["0", "2"]
    for name, v_th in (("0", 0.5), ("2", 2.5)):
        row = heard.tables(name)
        assert (row["spikes"]["n_obs"], row["spikes"]["n_neurons"]) == (5 * 16, 6)
        assert row["dynamics"]["sum_threshold"] == v_th


def test_neurons_that_share_a_surrogate_may_return_their_potential_first(listen, made):
    torch.manual_seed(0)
    net = nn.ModuleList([SharedSecond(0.5), nn.Linear(6, 6), SharedSecond(0.8)])
    heard = hear(listen, net)
    _, spikes = net[0](2 * torch.rand(5, 16, 6, requires_grad=True))
    net[2](net[1](spikes))[0].sum().backward()
    for name, entries in (("0", made[:5]), ("2", made[5:])):
        (counts,) = inner(heard, name).values()
        row = row_of(heard, counts, "spikes")
        assert row["n_spikes"] == sum(s.sum() for _, s, _ in entries) > 0
        assert row["n_obs"] == 5 * 16


class Listed(nn.Module):
    """Its later layers stand in a plain list, so that they are not registered."""

    def __init__(self):
        super().__init__()
        self.fc, self.later = nn.Linear(6, 6), [nn.Linear(6, 6) for _ in range(2)]

    def forward(self, x):
        states = [(torch.zeros(len(x), 6),) * 2 for _ in range(3)]
        for _ in range(4):
            spikes = x
            for i, layer in enumerate([self.fc, *self.later]):
                states[i] = mem_update(layer, 4 * spikes, *states[i])
                spikes = states[i][0]
        return states[-1][1]


def test_layers_that_are_not_registered_are_told_apart_and_told_of(listen, made):
    torch.manual_seed(0)
    net = Listed()
    heard = hear(listen, net)
    for _ in range(2):
        made.clear()
        net(torch.rand(16, 6)).square().sum().backward()
        found = inner(heard, "")
        assert list(found) == ["fc.spikes", "unregistered.1.spikes", "unregistered.2.spikes"]
        for layer, counts in enumerate(found.values()):
            row, spikes = row_of(heard, counts, "spikes"), [s for _, s, _ in made[layer::3]]
            assert row["n_spikes"] == sum(s.sum() for s in spikes) > 0
    assert any("nn.ModuleList" in message for _, message in heard.notes)


def test_weights_that_were_registered_after_attach_are_known_all_the_same(listen):
    torch.manual_seed(0)
    net = Written()
    heard = hear(listen, net)
    net.fc1 = nn.Linear(6, 9)
    net(3 * torch.rand(16, 6)).square().sum().backward()
    assert list(inner(heard, "")) == ["fc1.spikes", "fc2.spikes"]
    assert not any("nn.ModuleList" in message for _, message in heard.notes)
