"""Neurons that no library made: duck typing, the autograd graph, and what must not be taken."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import spikewatch
from spikewatch.collectors.axes import infer_axes
from spikewatch.collectors.surrogate import surrogate_nodes
from spikewatch.errors import AttachError


class Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u):
        ctx.save_for_backward(u)
        return (u > 0).to(u.dtype)

    @staticmethod
    def backward(ctx, gradient):
        (u,) = ctx.saved_tensors
        return gradient / (1 + 10 * u.abs()) ** 2


class DuckLIF(nn.Module):
    def __init__(self):
        super().__init__()
        self.threshold, self.mem = 1.0, None

    def forward(self, current):
        self.mem = current if self.mem is None else 0.9 * self.mem.detach() + current
        return Spike.apply(self.mem - self.threshold)


class Heaviside(nn.Module):
    """No threshold, no state: only the graph tells that it makes spikes."""

    def forward(self, u):
        return Spike.apply(u)


class OverTime(nn.Module):
    """Loops over time inside, batch first, as many repositories do."""

    def forward(self, u):
        return torch.stack([Spike.apply(u[:, t]) for t in range(u.shape[1])], dim=1)


class Net(nn.Module):
    def __init__(self, act):
        super().__init__()
        self.fc1, self.act, self.pool = nn.Linear(6, 8), act, nn.MaxPool1d(2)
        self.flat, self.fc2 = nn.Flatten(), nn.Linear(4, 2)

    def forward(self, x):
        return self.fc2(self.flat(self.pool(self.act(self.fc1(x)))))


def test_a_threshold_and_a_state_make_a_neuron(listen):
    heard = listen(Net(DuckLIF()))
    assert [o.layer.kind for o in heard.observers.values()] == ["spiking"]


def test_the_graph_decides_about_a_candidate_and_pooling_is_not_taken(listen):
    torch.manual_seed(0)
    net = Net(Heaviside())
    heard = listen(net)
    assert [(o.layer.name, o.layer.kind) for o in heard.observers.values()] == [
        ("act", "candidate")
    ]
    net(torch.randn(32, 6)).sum().backward()
    assert [(x.name, x.kind) for x in heard.confirmed] == [("act", "spiking")]
    assert heard.flush("act", "spikes")["n_neurons"] == 8
    assert heard.flush("act", "spikes") is None


def test_spikes_made_in_a_block_belong_to_the_block_that_returns_them(listen):
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.fc = Heaviside(), nn.Linear(5, 5)

        def forward(self, x):
            return Spike.apply(self.fc(self.inner(x)))

    torch.manual_seed(0)
    block = Block()
    heard = listen(nn.Sequential(nn.Linear(5, 5), block))
    spikes = block(torch.randn(40, 5, requires_grad=True))
    inner, outer = heard.flush("1.inner", "spikes"), heard.flush("1", "spikes")
    assert outer["n_spikes"] == spikes.count_nonzero()
    assert inner["n_spikes"] != outer["n_spikes"]


def test_a_block_that_only_passes_spikes_on_is_not_a_second_layer(listen):
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.act, self.gate = Heaviside(), Spike.apply

        def forward(self, x):
            return self.act(x) * 2.0

    torch.manual_seed(0)
    net = Residual()
    heard = listen(net)
    net(torch.randn(40, 5, requires_grad=True))
    assert heard.flush("act", "spikes")["n_spikes"] > 0
    assert heard.flush("", "spikes") is None


def test_a_network_that_shares_a_threshold_and_a_state_is_not_one_neuron(listen):
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.thresh, self.mem = 0.5, []
            self.fc, self.lif, self.act = nn.Linear(6, 8), DuckLIF(), Heaviside()

        def forward(self, x):
            return self.act(self.lif(self.fc(x)) - self.thresh)

    torch.manual_seed(0)
    heard = listen(Shared())
    assert heard.spiking == ["lif"]
    assert {n: o.layer.kind for n, o in heard.observers.items()}["act"] == "candidate"


def test_a_tap_in_the_code_is_seen_before_it_was_ever_called(listen, monkeypatch):
    class Tapped(nn.Module):
        def forward(self, x):
            return spikewatch.tap("mine", x)

    monkeypatch.delitem(vars(spikewatch), "tap", raising=False)
    assert list(listen(Tapped()).observers) == [""]


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


def test_a_duck_with_real_valued_output_is_dropped_with_a_note(listen):
    class LeakyIntegrator(DuckLIF):
        def forward(self, current):
            return 0.9 * current

    torch.manual_seed(0)
    net = nn.Sequential(LeakyIntegrator())
    heard = listen(net)
    net(torch.randn(64, 9))
    assert heard.flush("0", "spikes") is None
    assert "many values" in heard.notes[0][1]


class Graded(torch.autograd.Function):
    """Sends the potential itself, where it is over the threshold."""

    @staticmethod
    def forward(ctx, u):
        ctx.save_for_backward(u)
        return u * (u > 1)

    @staticmethod
    def backward(ctx, gradient):
        return gradient * (ctx.saved_tensors[0] > 0)


def test_a_layer_that_was_silent_and_then_turns_out_to_make_no_spikes_says_so_once(listen):
    class Sends(nn.Module):
        def forward(self, u):
            return Graded.apply(u)

    net = nn.Sequential(Sends())
    heard = listen(net)
    for scale in (0.5, 9.0):
        net(scale * torch.rand(16, 8, requires_grad=True))
    assert [x.kind for x in heard.confirmed] == ["spiking", "candidate"]
    assert heard.confirmed[-1].note.count("not counted") == 1


def test_a_plain_network_is_refused_with_what_was_seen_and_what_to_do():
    class Mlp(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(
                nn.Linear(4, 4), nn.ReLU(), nn.Threshold(0.1, 0), nn.GRU(4, 4)
            )

        def forward(self, x):
            return self.body(x)

    with pytest.raises(AttachError) as told:
        spikewatch.attach(Mlp())
    message = str(told.value)
    assert all(part in message for part in ("Linear × 1", "ReLU × 1", "layers=", "tap("))


def test_a_misspelt_layer_is_answered_with_a_suggestion():
    with pytest.raises(AttachError, match=r"Did you mean 'act'"):
        spikewatch.attach(Net(Heaviside()), layers=["acct"])


def test_axes_that_cannot_be_read_are_explained():
    with pytest.raises(AttachError, match="Write T for time"):
        spikewatch.attach(Net(Heaviside()), layers={"act": "NCHW"})


def test_a_candidate_inside_a_checkpoint_is_still_recognised(listen):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.act = Heaviside()

        def forward(self, x):
            return checkpoint(self.act, x, use_reentrant=False)

    torch.manual_seed(0)
    net = Net()
    heard = listen(net)
    net(torch.randn(40, 5, requires_grad=True)).sum().backward()
    assert [(x.name, x.kind) for x in heard.confirmed] == [("act", "spiking")]
    assert heard.flush("act", "gradients")["n_grad"] == 200


class Binarize(nn.Module):
    """A weight quantizer, as many repositories have one: its code is that of a spike."""

    def forward(self, w):
        return 0.1 * Sign.apply(w)


class Sign(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w):
        return w.sign()

    @staticmethod
    def backward(ctx, gradient):
        return gradient


@pytest.mark.parametrize(
    "of", [lambda w: w, lambda w: w.view(-1), lambda w: (w - w.mean()) / w.std()]
)
def test_what_quantizes_a_weight_is_no_neuron(listen, of):
    class Layer(nn.Linear):
        def __init__(self):
            super().__init__(16, 16)
            self.quantize = Binarize()

        def forward(self, x):
            w = self.quantize(of(self.weight)).view_as(self.weight)
            return nn.functional.linear(x, w, self.bias)

    net = nn.Sequential(nn.Linear(6, 16), Layer(), Heaviside())
    heard = listen(net)
    for _ in range(2):
        net(torch.randn(32, 6)).sum().backward()
    assert heard.spiking == ["2"]
    assert ("1.quantize", "spiking") not in [(x.name, x.kind) for x in heard.confirmed]


class BinaryActivation(nn.Module):
    """±1 for every input, as in binary nets: there is no silence, so no spikes."""

    def forward(self, x):
        return Sign.apply(x)


def test_activations_of_a_binary_net_are_no_spikes(listen):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 16), BinaryActivation(), nn.Linear(16, 16), Heaviside())
    heard = listen(net)
    for _ in range(2):
        net(torch.randn(32, 6)).sum().backward()
    assert heard.spiking == ["3"]
    assert heard.notes[0][0] == "1"
    assert "never 0" in heard.notes[0][1]


def test_signed_spikes_by_a_sign_function_are_spikes(listen):
    class Ternary(nn.Module):
        def forward(self, x):
            return Sign.apply(x * (x.abs() > 1))

    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 16), Ternary())
    heard = listen(net)
    net(3 * torch.randn(32, 6)).sum().backward()
    assert heard.spiking == ["1"]


def test_a_function_may_return_more_than_its_spikes(listen):
    class SpikeAndThreshold(torch.autograd.Function):
        @staticmethod
        def forward(ctx, u):
            ctx.save_for_backward(u)
            return (u > 0).to(u.dtype), u.mean()

        @staticmethod
        def backward(ctx, gradient, of_threshold):
            (u,) = ctx.saved_tensors
            return gradient / (1 + 10 * u.abs()) ** 2 + of_threshold / u.numel()

    class Neuron(nn.Module):
        def forward(self, u):
            self.seen = u.detach()
            return SpikeAndThreshold.apply(u)[0]

    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 16), Neuron())
    heard = listen(net)
    net(torch.randn(32, 6)).sum().backward()
    row = heard.flush("1", "gradients")
    slope = 1 / (1 + 10 * net[1].seen.abs()) ** 2
    assert row["sum_sg"] == pytest.approx(slope.sum().item(), rel=1e-5)


class StraightThrough(nn.Module):
    """A loop over time without a state, a function or a part, as in the code of Ternary Spike."""

    def __init__(self):
        super().__init__()
        self.V_th = 1.0
        self.fire_ratio = nn.Parameter(torch.tensor(0.7))

    def forward(self, x):
        u, out = torch.zeros_like(x[0]), []
        for current in x:
            u = 0.25 * u + current
            hard = u.sign() * ((u / self.V_th).abs() >= 0.5)
            soft = (u / self.V_th).clamp(-1, 1)
            spikes = (hard - soft).detach() + soft
            u = u * (1 - spikes.abs())
            out.append(spikes * self.fire_ratio)
        return torch.stack(out)


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


class Shrink(nn.Module):
    """A threshold too, and no neuron."""

    def __init__(self):
        super().__init__()
        self.threshold = 0.5

    def forward(self, x):
        return x * (x.abs() > self.threshold)


class Gate(nn.Module):
    """Lets the spikes of a neuron before it pass."""

    def __init__(self):
        super().__init__()
        self.threshold = 0.5

    def forward(self, x):
        return x * (x.abs() > self.threshold)


def test_spikes_by_a_straight_through_trick_are_seen_where_there_is_a_threshold(listen):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 16), StraightThrough(), Gate(), nn.Linear(16, 16), Shrink())
    heard = listen(net)
    for _ in range(2):
        net(4 * torch.randn(5, 32, 6)).sum().backward()
    assert [(x.name, x.kind) for x in heard.confirmed] == [("1", "spiking")]
    assert heard.spiking == ["1"]
    row = heard.tables("1")
    assert (row["spikes"]["n_neurons"], row["spikes"]["n_obs"]) == (16, 2 * 5 * 32)
    assert row["spikes"]["n_positive"] > 0 < row["spikes"]["n_spikes"] - row["spikes"]["n_positive"]
    assert row["amplitudes"]["sum_amplitude"] == pytest.approx(0.7)
    assert row["dynamics"]["sum_threshold"] == 1.0


@pytest.mark.parametrize("name", ["Vth", "vthr", "thre", "thr"])
def test_a_learned_threshold_is_read_by_the_short_names_that_repositories_give_it(listen, name):
    class Neuron(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_parameter(name, nn.Parameter(torch.tensor(0.7)))

        def forward(self, x):
            theta, u, out = self._parameters[name], torch.zeros_like(x[0]), []
            for current in x:
                u = 0.5 * u + current
                out.append(Spike.apply(u - theta))
                u = u - out[-1] * theta
            return torch.stack(out)

    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 16), Neuron())
    heard = listen(net)
    net(4 * torch.rand(5, 8, 6)).sum().backward()
    row = heard.tables("1")
    assert row["dynamics"]["sum_threshold"] == pytest.approx(0.7)
    assert row["membrane"]["n_membrane"] == row["membrane"]["n_membrane_pre_reset"] > 0


@pytest.mark.parametrize("value", [None, "soft", True])
def test_what_has_the_name_of_a_threshold_and_is_no_number_is_none(listen, value):
    class Neuron(Heaviside):
        def __init__(self):
            super().__init__()
            self.thr = value

    torch.manual_seed(0)
    heard = listen(net := nn.Sequential(nn.Linear(6, 16), Neuron(), nn.Linear(16, 16)))
    net(torch.randn(32, 6)).sum().backward()
    assert heard.spiking == ["1"]
    assert "sum_threshold" not in heard.tables("1").get("dynamics", {})


class Steps(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u, low, high):
        return u.round().clamp(low, high)

    @staticmethod
    def backward(ctx, gradient):
        return gradient, None, None


class OnSteps(nn.Module):
    """Rounds to the integers from `low` to `high`: times of spikes, or numbers of them."""

    def __init__(self, low, high):
        super().__init__()
        self.low, self.high = low, high

    def forward(self, u):
        return Steps.apply(u, self.low, self.high)


def test_times_of_spikes_are_no_spikes(listen):
    torch.manual_seed(0)
    net = nn.Sequential(nn.BatchNorm1d(10), OnSteps(6, 12))
    heard = listen(net)
    for shift in (0.0, 9.0):  # at first no neuron fires: all times are the same
        nn.init.constant_(net[0].bias, shift)
        net(torch.randn(32, 10)).sum().backward()
    assert heard.spiking == []
    assert "never 0" in heard.notes[0][1]
    assert heard.observers["1"].inner_layers == []
    assert heard.flush("1", "spikes")["n_obs"] == 32  # of the first call, as of a silent layer


@pytest.mark.parametrize(("low", "high"), [(0, 4), (0, 1)])
def test_a_layer_that_fires_everywhere_at_first_is_counted_all_the_same(listen, low, high):
    torch.manual_seed(0)
    net = nn.Sequential(nn.BatchNorm1d(10), OnSteps(low, high))
    heard = listen(net)
    for shift in (5.0, 0.0):
        nn.init.constant_(net[0].bias, shift)
        net(torch.randn(32, 10)).sum().backward()
    assert heard.spiking == ["1"]
    assert heard.flush("1", "spikes")["n_obs"] == 64


class PotentialFirst(nn.Module):
    """Returns its potential before its spikes, which are made without a function."""

    def __init__(self):
        super().__init__()
        self.threshold = 1.0

    def forward(self, x, mem):
        mem = 0.8 * mem + x
        soft = torch.sigmoid(4 * (mem - self.threshold))
        return mem, ((mem > self.threshold).float() - soft).detach() + soft


def test_of_a_layer_that_is_named_by_hand_the_spikes_are_counted_where_they_come_second(listen):
    torch.manual_seed(0)
    net = nn.ModuleList([PotentialFirst()])
    heard = listen(net, {"0": ""})
    mem, seen = torch.zeros(8, 20), []
    for x in 2 * torch.rand(6, 8, 20, requires_grad=True):
        mem, spikes = net[0](0 * x if not seen else x, mem)  # silent at first
        seen.append(torch.stack([spikes, mem]).detach())
    row, (spikes, potentials) = heard.tables("0"), torch.stack(seen).unbind(1)
    assert row["spikes"]["n_obs"] == 6 * 8
    assert row["spikes"]["n_spikes"] == spikes.count_nonzero() > 0
    assert row["membrane"]["sum_z"] == pytest.approx(potentials.sub(1).sum().item(), rel=1e-3)
    assert heard.notes == []


def test_a_layer_that_is_named_by_hand_and_returns_no_spikes_is_told_of(listen):
    class Two(nn.Module):
        def forward(self, x):
            return x, 2 * x

    torch.manual_seed(0)
    net = nn.Sequential(Two())
    heard = listen(net, {"0": ""})
    net(torch.rand(8, 20))
    assert "looks like spikes" in heard.notes[0][1]
