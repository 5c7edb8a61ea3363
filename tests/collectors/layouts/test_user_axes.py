"""Where time is in what a user's own neuron returns."""

import pytest
import torch
from torch import nn

import spikewatch
from spikewatch.collectors.layouts.inferred_axes import find_folded, infer_axes
from spikewatch.collectors.surrogate import surrogate_nodes
from spikewatch.errors import AttachError

from ..own_neurons import Heaviside, Net, Spike


class OverTime(nn.Module):
    """Loops over time inside, batch first, as many repositories do."""

    def forward(self, u):
        return torch.stack([Spike.apply(u[:, t]) for t in range(u.shape[1])], dim=1)


def test_time_is_found_by_the_loop_that_the_graph_shows(listen):
    torch.manual_seed(0)
    net = nn.Sequential(OverTime())
    heard = listen(net)
    net(torch.randn(3, 7, 5, requires_grad=True))
    row = heard.flush("0", "spikes")
    assert (row["n_obs"], row["n_neurons"]) == (21, 5)


def test_axes_given_by_hand_are_used(listen):
    net = nn.Sequential(nn.Threshold(0.5, 0.0))
    heard = listen(net, {"0": "TB*"})
    net(torch.ones(3, 7, 5))
    assert heard.flush("0", "spikes")["n_obs"] == 21


def test_axes_that_cannot_be_read_are_explained():
    with pytest.raises(AttachError, match="Write T for time"):
        spikewatch.attach(Net(Heaviside()), layers={"act": "NCHW"})


@pytest.mark.parametrize(("dim", "axes"), [(0, "TB*"), (1, "BT*"), (-1, "B*T"), (-3, "TB*")])
def test_a_stack_of_time_steps_has_its_axis_where_it_was_stacked(dim, axes):
    steps = [torch.randn(2, 3, requires_grad=True) for _ in range(4)]
    assert infer_axes(torch.stack(steps, dim), []) == axes


class Replaces(nn.Module):
    """Replaces the state of the sample before; its reset is cut from the graph."""

    def __init__(self):
        super().__init__()
        self.threshold, self.mem = 0.5, 0.0

    def forward(self, x, first):
        self.mem = x if first else 0.8 * self.mem + x
        s = Spike.apply(self.mem - self.threshold)
        self.mem = self.mem * (1 - s.detach())
        return s


def test_a_state_of_an_earlier_step_is_replaced_and_a_sample_starts(listen):
    torch.manual_seed(0)
    net = nn.ModuleList([Replaces()])
    heard = listen(net)
    for step in range(3):
        heard.step, heard.n_forwards = step, 1
        x = 2 * torch.rand(5, 8, 4, requires_grad=True)
        spikes = [net[0](current, t == 0) for t, current in enumerate(x)]
        sum(spikes).sum().backward()
        timing, times = heard.tables("0")["timing"], torch.stack(spikes).ne(0)
        assert timing["n_ttfs_fired"] == times.any(0).sum() > 0
        assert timing["sum_ttfs_steps"] == times.int().argmax(0)[times.any(0)].sum()


def fire(u):
    return Spike.apply(u.requires_grad_())


def test_the_axis_of_a_stack_is_that_of_time_though_there_are_as_many_samples_as_steps():
    spikes = torch.stack([fire(torch.randn(4, 3)) for _ in range(4)], 1)
    assert infer_axes(spikes, surrogate_nodes(spikes)) == "BT*"


@pytest.mark.parametrize(
    ("swap", "axes"),
    [
        (lambda x: x.transpose(0, 1), "BT*"),
        (lambda x: x.permute(1, 2, 0), "B*T"),
        (lambda x: 0.5 * x.transpose(0, -1).transpose(1, -2), "B*T"),
        (lambda x: x.movedim(0, -1).movedim(-1, 0), "TB*"),
    ],
)
def test_the_axis_of_a_stack_is_followed_where_dimensions_are_swapped(swap, axes):
    spikes = swap(torch.stack([fire(torch.randn(4, 4)) for _ in range(4)]))
    assert infer_axes(spikes, surrogate_nodes(spikes)) == axes


def test_time_steps_that_are_put_together_along_a_new_axis_are_a_stack():
    spikes = torch.cat([fire(torch.randn(4, 4)).unsqueeze(-1) for _ in range(4)], -1)
    assert infer_axes(spikes, surrogate_nodes(spikes)) == "B*T"


def test_a_first_time_step_without_a_graph_is_one_all_the_same():
    steps = [Spike.apply(torch.zeros(3, 5)), *(fire(torch.randn(3, 5)) for _ in range(6))]
    written = torch.zeros(3, 7, 5)
    for t, spikes in enumerate(steps):
        written[:, t] = spikes
    for spikes in (torch.stack(steps, 1), written):
        assert infer_axes(spikes, surrogate_nodes(spikes)) == "BT*"


def test_time_may_stand_between_the_neurons_axes(listen):
    class Middle(nn.Module):
        def forward(self, u):
            return torch.stack([Spike.apply(u[:, :, t]) for t in range(u.shape[2])], dim=2)

    torch.manual_seed(0)
    net = nn.Sequential(Middle())
    heard = listen(net)
    spikes = net(torch.randn(8, 4, 10, 5, requires_grad=True))
    spikes.sum().backward()
    row, times = heard.tables("0"), spikes.ne(0)
    assert (row["spikes"]["n_neurons"], row["spikes"]["n_obs"]) == (4 * 5, 8 * 10)
    first = times.int().argmax(2)[times.any(2)]
    assert row["timing"]["n_ttfs_fired"] == len(first)
    assert row["timing"]["sum_ttfs_steps"] == first.sum()
    assert row["gradients"]["n_sg"] == spikes.numel()


def test_an_axis_of_time_that_cannot_be_told_is_told_of(listen):
    class InPlace(nn.Module):
        def forward(self, u):
            spikes = torch.zeros_like(u)
            for t in range(u.shape[1]):
                spikes[:, t] = Spike.apply(u[:, t])
            return spikes

    net = nn.Sequential(InPlace())
    heard = listen(net)
    net(torch.randn(6, 6, 5, requires_grad=True))
    assert "cannot be told" in heard.notes[0][1]


class Folds(nn.Module):
    """Takes time out of the batch, and puts it back, as converted networks do (QCFS)."""

    def __init__(self, n_steps, put_back):
        super().__init__()
        self.threshold, self.n_steps, self.put_back = 0.5, n_steps, put_back

    def forward(self, x):
        potential, spikes = 0.0, []
        for current in x.view(self.n_steps, -1, *x.shape[1:]):
            potential = potential + current
            s = Spike.apply(potential - self.threshold)
            potential = potential - s * self.threshold
            spikes.append(s)
        return self.put_back(spikes)


def test_time_that_a_neuron_folds_into_the_batch_is_told_from_the_samples(listen):
    torch.manual_seed(0)
    net = nn.Sequential(Folds(4, lambda spikes: torch.stack(spikes).flatten(0, 1).contiguous()))
    heard = listen(net)
    for step, batch in enumerate((6, 5)):
        heard.step, heard.n_forwards = step, 1
        x = torch.rand(4 * batch, 8, requires_grad=True)
        spikes = net(x)
        spikes.pow(2).sum().backward()
        times = spikes.detach().view(4, batch, 8).ne(0)
        tables = heard.tables("0")
        assert tables["spikes"]["n_obs"] == 4 * batch
        assert tables["timing"]["n_ttfs_fired"] == times.any(0).sum() > 0
        assert tables["timing"]["sum_ttfs_steps"] == times.int().argmax(0)[times.any(0)].sum() > 0
        ends = (4 * spikes.detach().pow(2)).view(4, -1).sum(1)[[0, -1]].tolist()  # (∂Σs²/∂s)²
        found = (tables["gradients"]["sum_sq_grad_first"], tables["gradients"]["sum_sq_grad_last"])
        assert found == pytest.approx(ends, rel=1e-5)


@pytest.mark.parametrize(
    ("put_back", "axes"),
    [
        (lambda spikes: torch.cat(spikes), "TB*"),
        (lambda spikes: 0.5 * torch.stack(spikes).reshape(-1, 5), "TB*"),
        (lambda spikes: torch.stack(spikes, 1).flatten(0, 1), "BT*"),
        (lambda spikes: torch.stack(spikes).transpose(0, 1).flatten(0, 1), "BT*"),
    ],
)
def test_what_lies_together_is_told_by_the_graph(put_back, axes):
    spikes = put_back([fire(torch.randn(3, 5)) for _ in range(4)])
    folded = find_folded(spikes, surrogate_nodes(spikes))
    assert (folded.axes, folded.n_steps) == (axes, 4)


def test_two_thresholds_of_a_whole_batch_are_no_time_steps():
    spikes = fire(torch.randn(6, 5)) - fire(torch.randn(6, 5))
    assert find_folded(spikes, surrogate_nodes(spikes)) is None
