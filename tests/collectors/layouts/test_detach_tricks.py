"""Where time is in what a neuron returns whose spikes no custom function makes."""

import pytest
import torch
from torch import nn


def fire(u):
    soft = torch.sigmoid(4 * u)
    return ((u > 0).float() - soft).detach() + soft


def fire_by_a_factor(u):
    soft = torch.sigmoid(4 * u)
    return soft * ((u > 0).float() / soft).detach()


class Neuron(nn.Module):
    """Loops over time, of which the first axis is."""

    def __init__(self, fire, put_together):
        super().__init__()
        self.threshold, self.acts = 1.0, (fire, put_together)

    def forward(self, x):
        fire, put_together = self.acts
        v, spikes = torch.zeros_like(x[0]), []
        for current in x:
            v = 0.5 * v + current
            spikes.append(fire(v - self.threshold))
            v = v * (1 - spikes[-1].detach())
        return put_together(spikes)


def into_zeros(spikes):
    out = torch.zeros(len(spikes), *spikes[0].shape)
    for t, spike in enumerate(spikes):
        out[t] = spike
    return out


def behind_the_batch(spikes):
    out = torch.empty(len(spikes[0]), len(spikes), *spikes[0].shape[1:])
    for t, spike in enumerate(spikes):
        out[:, t] = spike
    return out


def at_the_end(spikes):
    out = torch.zeros(*spikes[0].shape, len(spikes))
    for t, spike in enumerate(spikes):
        out[..., t] = spike
    return out


def by_index(spikes):
    out = torch.zeros(len(spikes), *spikes[0].shape)
    for t, spike in enumerate(spikes):
        out = out.index_copy(0, torch.tensor([t]), spike[None])
    return out


def growing(spikes):
    out = spikes[0][None]
    for spike in spikes[1:]:
        out = torch.cat([out, spike[None]])
    return out


@pytest.mark.parametrize("how", [fire, fire_by_a_factor])
@pytest.mark.parametrize(
    "put_together",
    [
        into_zeros,
        behind_the_batch,
        at_the_end,
        by_index,
        growing,
        lambda spikes: into_zeros(spikes).transpose(0, 1),
        lambda spikes: torch.stack(spikes).permute(1, 2, 0),
        lambda spikes: 1.5 * torch.stack(spikes),
    ],
)
def test_time_steps_that_are_put_together_are_no_neurons(listen, how, put_together):
    torch.manual_seed(0)
    net = nn.Sequential(Neuron(how, put_together))
    heard = listen(net)
    net(2 * torch.randn(5, 8, 16, requires_grad=True))
    row = heard.flush("0", "spikes")
    assert (row["n_obs"], row["n_neurons"]) == (40, 16)
    assert heard.notes == []


def test_what_a_detach_trick_makes_of_one_time_step_is_a_batch(listen):
    torch.manual_seed(0)
    net = nn.Sequential(Neuron(fire, lambda spikes: spikes[0]))
    heard = listen(net)
    net(2 * torch.randn(1, 8, 16, requires_grad=True))
    row = heard.flush("0", "spikes")
    assert (row["n_obs"], row["n_neurons"]) == (8, 16)


def test_time_that_a_detach_trick_folds_into_the_batch_is_told_from_the_samples(listen):
    torch.manual_seed(0)
    net = nn.Sequential(Neuron(fire, torch.cat))
    heard = listen(net)
    net(2 * torch.randn(5, 8, 16, requires_grad=True))
    timing = heard.tables("0")["timing"]
    assert timing["n_ttfs_pairs"] == 8 * 16


def test_which_axis_is_time_is_told_of_where_there_are_as_many_samples_as_steps(listen):
    torch.manual_seed(0)
    net = nn.Sequential(Neuron(fire, into_zeros))
    heard = listen(net)
    net(2 * torch.randn(6, 6, 16, requires_grad=True))
    assert [m for _, m in heard.notes if "which axis of [6, 6, 16] is that of time" in m]


class Stateful(nn.Module):
    """Has a threshold and a state, so that no graph is needed to know what it is."""

    def __init__(self):
        super().__init__()
        self.threshold, self.mem = 1.0, None

    def forward(self, x):
        out, self.mem = torch.zeros_like(x), torch.zeros_like(x[0])
        for t, current in enumerate(x):
            self.mem = 0.5 * self.mem + current
            out[t] = fire(self.mem - self.threshold)
            self.mem = self.mem * (1 - out[t].detach())
        return out


def test_before_a_first_graph_has_shown_where_time_is_nothing_is_counted(listen):
    torch.manual_seed(0)
    net = nn.Sequential(Stateful())
    heard = listen(net)
    with torch.no_grad():
        net(2 * torch.randn(5, 8, 16))
    assert heard.flush("0", "spikes", "eval") is None
    assert [m for _, m in heard.notes if "name its axes" in m]
    for phase in ("train", "eval"):
        with torch.set_grad_enabled(phase == "train"):
            net(2 * torch.randn(5, 8, 16, requires_grad=True))
        row = heard.flush("0", "spikes", phase)
        assert (row["n_obs"], row["n_neurons"]) == (40, 16)
