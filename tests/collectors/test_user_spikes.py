"""What of a user's own layer are spikes, and what only looks like them."""

import pytest
import torch
from torch import nn

from .own_neurons import Heaviside, Spike


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


class Weighted(nn.Module):
    """Multiplies with weights of its own, and fires without a function, as adaptive LIF may."""

    def __init__(self, n_in, n_out):
        super().__init__()
        self.thr = 1.0
        self.weight = nn.Parameter(torch.rand(n_out, n_in) * 4 / n_in)

    def forward(self, x):
        u, out = torch.zeros(x.shape[1], len(self.weight)), []
        for current in x:
            u = 0.9 * u + torch.nn.functional.linear(current, self.weight) - self.thr
            soft = u.clamp(-1, 1)
            spikes = (u > 0).float() + (soft - soft.detach())
            u = u * (1 - spikes.detach())
            out.append(spikes)
        return torch.stack(out)


def test_a_neuron_with_weights_of_its_own_may_be_called_with_spikes(listen):
    torch.manual_seed(0)
    heard = listen(net := nn.Sequential(Weighted(6, 16), Weighted(16, 12), Gate()))
    net((torch.rand(5, 32, 6) < 0.8).float()).sum().backward()
    assert [x.name for x in heard.confirmed if x.kind == "spiking"] == ["0", "1"]


def test_no_note_says_that_a_layer_is_none_whose_spikes_are_counted_within_it(listen):
    class PotentialAndSpikes(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(6, 16)

        def forward(self, x):
            u = self.fc(x)
            return u, Steps.apply(u, 0, 1)

    torch.manual_seed(0)
    heard = listen(net := nn.Sequential(PotentialAndSpikes()))
    net(4 * torch.randn(32, 6))[1].sum().backward()
    ((_, message),) = heard.notes
    assert "what it returns is not counted" in message
    assert "not counted as a spiking layer" not in message
