"""Where time is in what one autograd function makes, whose own forward loops over time."""

import pytest
import torch
from torch import nn

import spikewatch
from spikewatch.collectors.layouts.inner_loops import loops, returned_axis

from ..own_neurons import Spike


class FromInside(torch.autograd.Function):
    """A stack of time steps, [T, B, *], as in rate-based backpropagation."""

    @staticmethod
    def forward(ctx, x, decay):
        potential, spikes = 0.0, []
        for t in range(x.shape[0]):
            potential = decay * potential + x[t]
            s = (potential > 1).float()
            potential = potential * (1 - s)
            spikes.append(s)
        spikes = torch.stack(spikes, 0)
        ctx.save_for_backward(x)
        return spikes

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.saved_tensors[0].abs().lt(1), None


class Recurrence(nn.Module):
    def __init__(self, swap=lambda x: x):
        super().__init__()
        self.swap = swap

    def forward(self, x):
        return self.swap(FromInside.apply(self.swap(x), 0.5))


@pytest.mark.parametrize(
    ("swap", "time"),
    [(lambda x: x, 0), (lambda x: x.transpose(0, 1), 1), (lambda x: x.transpose(0, 2), 2)],
)
def test_time_is_where_the_function_stacks_it_whatever_its_caller_swaps(listen, swap, time):
    torch.manual_seed(0)
    net = nn.Sequential(Recurrence(swap))
    heard = listen(net)
    spikes = net(2 * torch.rand(4, 4, 4, requires_grad=True))  # no length tells anything
    row, times = heard.tables("0"), spikes.detach().movedim(time, 0).ne(0)
    assert (row["spikes"]["n_neurons"], row["spikes"]["n_obs"]) == (4, 16)
    assert row["timing"]["n_ttfs_fired"] == times.any(0).sum() > 0
    assert row["timing"]["sum_ttfs_steps"] == times.int().argmax(0)[times.any(0)].sum() > 0
    assert not heard.notes


class Written(torch.autograd.Function):
    """Currents are multiplied within, and the spikes written into place, [B, K, T] (EventProp)."""

    @staticmethod
    def forward(ctx, x, weight, steps, training):
        potential = torch.zeros(x.shape[0], weight.shape[0])
        current = torch.zeros(x.shape[0], weight.shape[0], steps)
        output = torch.zeros(x.shape[0], weight.shape[0], steps)
        while True:
            for i in range(1, steps):
                potential = 0.9 * potential + 0.1 * current[:, :, i - 1]
                current[:, :, i] = 0.8 * current[:, :, i - 1] + x[:, :, i - 1] @ weight.mT
                output[:, :, i] = potential > 1
                potential = (1 - output[:, :, i]) * potential
            if not training or output.any():
                break
            weight.data += 0.1
        ctx.save_for_backward(x, weight)
        return output

    @staticmethod
    def backward(ctx, gradient):
        x, weight = ctx.saved_tensors
        along_x = torch.einsum("nkt,kf->nft", gradient, weight)
        return along_x, torch.einsum("nkt,nft->kf", gradient, x), None, None


class Events(nn.Module):
    def __init__(self, n_in, n_out, steps):
        super().__init__()
        self.steps = steps
        self.weight = nn.Parameter(0.5 + torch.randn(n_out, n_in))

    def forward(self, x):
        return Written.apply(x, self.weight, self.steps, self.training)


def test_an_event_based_layer_is_counted_at_each_time_step(tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(Events(6, 8, 10), Events(8, 3, 10))
    optimizer = torch.optim.SGD(net.parameters(), 1e-3)
    with spikewatch.attach(net, dir=tmp_path, every=1, quiet=True):
        for n_samples in (10, 7):  # once as many as time steps
            net((torch.rand(n_samples, 6, 10) > 0.5).float()).sum().backward()
            optimizer.step()
    with spikewatch.open_store(tmp_path) as store:
        rows = store.sql("SELECT n_neurons, n_obs FROM spikes ORDER BY step, layer").rows()
        samples = store.sql("SELECT n_samples, sum_time_steps FROM energy ORDER BY step").rows()
    assert rows == [(8, 100), (3, 100), (8, 70), (3, 70)]
    assert {*samples} == {(10, 100), (7, 70)}


def _over(x, n_steps):  # outside of the function's own code
    potential = 0.0
    for i in range(n_steps):
        potential = 0.5 * potential + x[:, i]
        yield (potential > 1).float()


class Hidden(FromInside):
    @staticmethod
    def forward(ctx, x, n_steps):
        ctx.save_for_backward(x)
        made = [s for s in _over(x, n_steps)]  # noqa: C416 - a loop, of which nothing is told
        return torch.stack(made).transpose(0, 1).contiguous()


class Held(nn.Module):
    def __init__(self, n_steps, name="time_steps"):
        super().__init__()
        self.how_many = n_steps
        setattr(self, name, n_steps)

    def forward(self, x):
        return Hidden.apply(x, self.how_many)


def test_the_number_of_time_steps_that_a_layer_holds_tells_their_axis(listen):
    net = nn.Sequential(Held(5))
    heard = listen(net)
    net(2 * torch.rand(3, 5, 4, requires_grad=True))
    row = heard.flush("0", "spikes")
    assert (row["n_neurons"], row["n_obs"]) == (4, 15)
    assert not heard.notes


class Given(FromInside):
    @staticmethod
    def forward(ctx, x, forward):
        output = forward(x)
        ctx.save_for_backward(x)
        return output


class Manual(nn.Module):
    """Hands its own loop to a function that goes by it."""

    def __init__(self, duration):
        super().__init__()
        self.T, self.dt = duration, 1.0

    def manual(self, x):
        return torch.stack([s for s in _over(x, int(self.T / self.dt))], 1)  # noqa: C416

    def forward(self, x):
        return Given.apply(x, self.manual)


def test_a_loop_may_be_in_a_method_that_the_function_is_given(listen):
    net = nn.Sequential(Manual(5.0))
    heard = listen(net)
    net(2 * torch.rand(3, 5, 4, requires_grad=True))
    assert heard.flush("0", "spikes")["n_obs"] == 15


@pytest.mark.parametrize(
    ("layer", "shape", "widths"),
    [
        (Held(5, "size"), (3, 5, 4), []),  # not said to be time
        (Held(5), (5, 5, 4), []),
        (Manual(5.0), (5, 5, 4), []),
        (Held(5), (3, 5, 4), [5]),  # as many as channels of a layer with weights
    ],
)
def test_a_loop_of_which_nothing_is_known_is_told_of(listen, layer, shape, widths):
    net = nn.Sequential(layer, *(nn.Conv1d(1, n, 1) for n in widths))
    heard = listen(net)
    net[0](2 * torch.rand(shape, requires_grad=True))
    ((name, note),) = [n for n in heard.notes if n[0] == "0"]
    assert name == "0"
    assert "attach(layers=" in note
    assert heard.flush("0", "spikes")["n_obs"] == shape[0]


def test_images_of_a_function_without_a_loop_are_one_time_step_without_a_note(listen):
    class Images(nn.Module):
        T = 4

        def __init__(self):
            super().__init__()
            self.T = 4

        def forward(self, x):
            return Spike.apply(x - 0.5)

    net = nn.Sequential(Images())
    heard = listen(net)
    net(torch.rand(2, 4, 6, 6, requires_grad=True))
    row = heard.flush("0", "spikes")
    assert (row["n_neurons"], row["n_obs"]) == (4 * 36, 2)
    assert not heard.notes


class EachChannel(FromInside):
    """A threshold for each channel: no state goes from one to the next."""

    @staticmethod
    def forward(ctx, x, thresholds):
        out, n_spikes = torch.zeros_like(x), 0
        for c in range(x.shape[1]):
            out[:, c] = (x[:, c] > thresholds[c]).float()
            n_spikes += out[:, c].sum()
        ctx.n_spikes = n_spikes
        return out


class LastOnly(FromInside):
    """Keeps a sequence, and returns its end."""

    @staticmethod
    def forward(ctx, x, decay):
        kept, potential = torch.zeros_like(x), 0.0
        for t in range(len(x)):
            potential = decay * potential + x[t]
            kept[t] = potential
        ctx.kept = kept
        return (potential > 1).float()


class Turned(FromInside):
    @staticmethod
    def forward(ctx, x, decay):
        out, potential = torch.zeros_like(x), 0.0
        for t in range(len(x)):
            potential = decay * potential + x[t]
            out[t] = potential
        out = out.transpose(0, 1)
        return out, potential


class Either(FromInside):
    @staticmethod
    def forward(ctx, x, batch_first):
        potential, spikes = 0.0, []
        for current in x:
            potential += current
            spikes.append((potential > 1).float())
        out = torch.stack(spikes)
        if batch_first:
            out = torch.stack(spikes, 1)
        return out


class FromItsEnd(FromInside):
    @staticmethod
    def forward(ctx, x, decay):
        mem, out = torch.zeros_like(x), torch.zeros_like(x)
        for t in range(1, x.shape[-1]):
            mem[..., t] = decay * mem[..., t - 1] + x[..., t]
            out[..., t] = mem[..., t] > 1
        return out, mem


class OverSlices(FromInside):
    @staticmethod
    def forward(ctx, x, decay):
        potential, spikes = 0.0, []
        for current in x.unbind(1):
            potential = decay * potential + current
            spikes += [potential > 1]
        return torch.stack(tensors=spikes, dim=1)


class Until(FromInside):
    @staticmethod
    def forward(ctx, x, decay):
        t = 0
        while t < len(x):
            t += 1
        return torch.stack()


@pytest.mark.parametrize(
    ("function", "looping", "axis"),
    [
        (FromInside, True, 0),
        (Written, True, 2),
        (FromItsEnd, True, -1),
        (OverSlices, True, 1),
        (Hidden, True, None),
        (EachChannel, True, None),
        (LastOnly, True, None),
        (Turned, True, None),
        (Either, True, None),
        (Until, True, None),
        (Spike, False, None),
    ],
)
def test_an_axis_is_that_of_time_where_a_state_goes_along_it_into_what_is_returned(
    function, looping, axis
):
    assert loops(function) == looping
    assert returned_axis(function, rank=3) == (axis if axis is None else axis % 3)
