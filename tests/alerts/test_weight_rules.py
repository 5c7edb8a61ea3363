"""Rules about ternary weights, on trainings that are ill that way and on their healthy twins."""

import pytest
import torch
from torch import nn
from torch.nn import functional

import spikewatch
from spikewatch.zoo.distillation import distillation_loss
from spikewatch.zoo.lif import LIF
from spikewatch.zoo.quantized_linear import a_tensor
from spikewatch.zoo.surrogates import SuperSpike
from spikewatch.zoo.ternary_linear import TernaryLinear, ternarize
from spikewatch.zoo.ternary_spike import TernarySpike
from spikewatch.zoo.ttq import TTQLinear


N_IN, N_OUT = 40, 60


@pytest.fixture
def train(tmp_path):
    """Trains a network while it is watched; the rules that fired, by layer."""

    def trained(
        net, *, n_steps, lr=1e-3, groups=None, extra=None, after=None, noise=0.0, **watching
    ):
        optimizer = torch.optim.Adam(groups or net.parameters(), lr)
        generator = torch.Generator().manual_seed(1)
        wanted = nn.Linear(net.n_in, net.n_out)
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        with spikewatch.attach(net, dir=folder, every=1, quiet=True, **watching) as watch:
            for step in range(n_steps):
                x = torch.randn(32, net.n_in, generator=generator)
                out = net(x)
                goal = wanted(x).detach()
                goal = goal + noise * torch.randn(goal.shape, generator=generator)
                loss = functional.mse_loss(out, goal) + (extra(net, x, out) if extra else 0)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                if after is not None:
                    after(net, step, watch)
        with spikewatch.open_store(folder) as store:
            fired = store.sql("SELECT DISTINCT rule, layer FROM alerts WHERE state = 'firing'")
        return set(fired.rows())

    return trained


class Net(nn.Sequential):
    """A ternary layer between two plain ones."""

    def __init__(self, layer, *, n_in=12, n_out=6):
        self.n_in, self.n_out = n_in, n_out
        torch.manual_seed(0)
        super().__init__(
            nn.Linear(n_in, layer.in_features),
            nn.ReLU(),
            layer,
            nn.ReLU(),
            nn.Linear(layer.out_features, n_out),
        )


def ternary(n_in=N_IN, n_out=N_OUT, **options):
    torch.manual_seed(0)
    return TernaryLinear(n_in, n_out, **options)


@torch.no_grad()
def with_small_rows(layer, *, size):
    layer.weight[:5] *= size
    return layer


@pytest.mark.parametrize(("size", "ill"), [(0.01, True), (1.0, False)])
def test_rows_that_are_small_beside_the_others_are_dead(train, size, ill):
    fired = train(Net(with_small_rows(ternary(), size=size)), n_steps=8, lr=1e-5)
    assert (("dead-weight-rows", "2") in fired) is ill


class Deadzone(torch.autograd.Function):
    """An estimator that passes no gradient to the weights within ±Δ."""

    @staticmethod
    def forward(ctx, weight):
        out = ternarize(weight)
        ctx.save_for_backward(out)
        return out

    @staticmethod
    def backward(ctx, gradient):
        return gradient * (ctx.saved_tensors[0] != 0)


class TrappingLinear(TernaryLinear):
    def quantized_weight(self):
        return a_tensor(Deadzone.apply(self.weight))


@pytest.mark.parametrize(("make", "ill"), [(TrappingLinear, True), (TernaryLinear, False)])
def test_zeros_without_gradient_are_trapped(train, make, ill):
    torch.manual_seed(0)
    fired = train(Net(make(N_IN, N_OUT)), n_steps=260, lr=2e-3, noise=1.0)
    assert (("trapped-weights", "2") in fired) is ill


def towards_threshold(net, x, out):
    size = net[2].weight.abs()
    delta = 0.7 * size.detach().mean()
    near = (size.detach() - delta).abs() < 0.5 * delta
    return 10 * ((size - delta).abs() * near).mean()


@pytest.mark.parametrize(("extra", "ill"), [(towards_threshold, True), (None, False)])
def test_weights_that_are_pushed_to_the_threshold_pile_up(train, extra, ill):
    fired = train(Net(ternary(100, 100)), n_steps=80, lr=5e-4, extra=extra)
    assert (("weights-pile-up", "2") in fired) is ill


@torch.no_grad()
def with_none_near_threshold(layer):
    size = layer.weight.abs()
    layer.weight[(size / (0.7 * size.mean()) - 1).abs() < 0.1] *= 1.3
    return layer


@pytest.mark.parametrize(("lr", "ill"), [(1e-7, True), (1e-3, False)])
def test_a_learning_rate_far_too_low_freezes_the_weights(train, lr, ill):
    fired = train(Net(with_none_near_threshold(ternary(256, 256))), n_steps=66, lr=lr)
    assert (("frozen-weights", "2") in fired) is ill


def tossing(net, step, watch):
    """Updates as large as a fifth of the weights themselves."""
    with torch.no_grad():
        weight = net[2].weight
        weight.mul_(0.98).add_(0.2 * weight.std() * torch.randn_like(weight))


@pytest.mark.parametrize(("after", "ill"), [(tossing, True), (None, False)])
def test_updates_of_the_size_of_the_weights_make_them_restless(train, after, ill):
    fired = train(Net(ternary()), n_steps=60, after=after)
    assert (("restless-weights", "2") in fired) is ill


def shaking(net, step, watch):
    """What a batch takes away the next one brings back, at weights near Δ."""
    with torch.no_grad():
        weight = net[2].weight
        near = (weight.abs() - 0.7 * weight.abs().mean()).abs() < 0.02
        weight += 0.03 * near * weight.sign() * (-1) ** step


@pytest.mark.parametrize(("after", "ill"), [(shaking, True), (None, False)])
def test_weights_thrown_to_and_fro_across_the_threshold_oscillate(train, after, ill):
    fired = train(Net(ternary()), n_steps=90, lr=5e-4, after=after)
    names = {rule for rule, layer in fired if layer == "2"}
    assert ("oscillating-weights" in names) is ill


@pytest.mark.parametrize(("factor", "ill"), [(1.9, True), (0.7, False)])
def test_a_threshold_that_does_not_suit_the_weights_is_noise(train, factor, ill):
    layer = ternary(100, 100, delta_factor=factor)
    nn.init.normal_(layer.weight, std=0.02)
    fired = train(Net(layer), n_steps=8, lr=1e-5)
    assert (("low-sqnr", "2") in fired) is ill


@pytest.mark.parametrize(("factor", "ill"), [(50.0, True), (0.7, False)])
def test_a_layer_that_is_all_zeros_from_the_first_step_has_collapsed(train, factor, ill):
    fired = train(Net(ternary(delta_factor=factor)), n_steps=6)
    assert (("ternary-collapse", "2") in fired) is ill


def growing(net, step, watch):
    with torch.no_grad():
        net[2].weight.mul_(2.0)


@pytest.mark.parametrize(("after", "ill"), [(growing, True), (None, False)])
def test_latent_weights_that_grow_without_bound_are_told(train, after, ill):
    fired = train(Net(ternary()), n_steps=12, after=after)
    assert (("latent-weights-drift", "2") in fired) is ill


def beyond_one(net, step, watch):
    with torch.no_grad():
        net[2].weight.mul_(1.7)


@pytest.mark.parametrize(("std", "after", "ill"), [(1.0, None, False), (0.3, beyond_one, True)])
def test_weights_beyond_one_have_drifted_only_if_they_have_grown_there(train, std, after, ill):
    """Embeddings begin as N(0, 1): a third of them is beyond ±1 from the start."""
    layer = ternary()
    nn.init.normal_(layer.weight, std=std)
    fired = train(Net(layer), n_steps=6, lr=1e-5, after=after and capped(after))
    assert (("latent-weights-drift", "2") in fired) is ill


def capped(after):
    """Growth for three steps only: fivefold, not tenfold."""
    return lambda net, step, watch: after(net, step, watch) if step < 3 else None


class Annealed(nn.Linear):
    progress = 0.0

    def forward(self, x):
        w = self.weight
        return functional.linear(x, w + self.progress * (ternarize(w) - w).detach(), self.bias)


@pytest.mark.parametrize("stops_at", [0.5, 1.0])
def test_an_annealing_that_stands_still_is_told(train, stops_at):
    def anneal(net, step, watch):
        net[2].progress = min(0.02 * step, stops_at)

    torch.manual_seed(0)
    fired = train(Net(Annealed(N_IN, N_OUT)), n_steps=400, lr=1e-5, after=anneal)
    assert (("annealing-stuck", "2") in fired) is (stops_at < 1)


class Ends(Net):
    """A ternary layer at the end."""

    def __init__(self):
        nn.Module.__init__(self)
        self.n_in, self.n_out = 12, 6
        nn.Sequential.__init__(self, nn.Linear(12, 40), nn.ReLU(), ternary(40, 6))


@pytest.mark.parametrize("ill", [True, False])
def test_a_ternary_last_layer_is_mentioned(train, ill):
    fired = train(Ends() if ill else Net(ternary()), n_steps=6)
    assert (("ternary-first-or-last", "2") in fired) is ill


class ComparedDelta(TernaryLinear):
    """A threshold that is said to learn, and is only compared with."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.delta = nn.Parameter(torch.tensor(0.05))

    def quantized_weight(self):
        beyond = (self.weight.abs() > self.delta).float()
        hard = 0.1 * self.weight.sign() * beyond
        return self.weight + (hard - self.weight).detach()


@pytest.mark.parametrize(("make", "ill"), [(ComparedDelta, True), (TTQLinear, False)])
def test_a_threshold_that_is_only_compared_with_learns_nothing(train, make, ill):
    torch.manual_seed(0)
    fired = train(Net(make(N_IN, N_OUT)), n_steps=9)
    assert (("scale-learns-nothing", "2") in fired) is ill


@pytest.mark.parametrize(("lr", "ill"), [(1.0, True), (2e-4, False)])
def test_a_scale_that_is_driven_below_zero_is_told(train, lr, ill):
    torch.manual_seed(0)
    net = Net(TTQLinear(N_IN, N_OUT))
    scales = [p for p in net.parameters() if p.dim() == 0]
    others = [p for p in net.parameters() if p.dim() > 0]
    groups = [{"params": others}, {"params": scales, "lr": lr}]
    fired = train(net, n_steps=9, groups=groups, noise=1.0)
    assert (("scale-not-positive", "2") in fired) is ill


class KeyValue(nn.Module):
    """A product of two ternary spikes of the same input."""

    def __init__(self, *, value_amplitude):
        super().__init__()
        torch.manual_seed(0)
        self.n_in = self.n_out = 12
        self.project = nn.Linear(12, 12)
        self.key_spike = TernarySpike(12)
        self.value_spike = TernarySpike(12, amplitude=value_amplitude)

    def forward(self, x):
        x = self.project(x)
        return self.key_spike(x) * self.value_spike(x)


@pytest.mark.parametrize(("amplitude", "ill"), [(1.0, True), (0.6, False)])
def test_key_and_value_that_start_alike_stay_alike(train, amplitude, ill):
    fired = train(KeyValue(value_amplitude=amplitude), n_steps=60)
    tied = {layer for rule, layer in fired if rule == "amplitudes-tied-to-sibling"}
    assert tied == ({"key_spike", "value_spike"} if ill else set())


class Spiking(nn.Module):
    def __init__(self, k):
        super().__init__()
        torch.manual_seed(0)
        self.n_in, self.n_out = 12, 6
        self.first, self.last = nn.Linear(12, 40), nn.Linear(40, 6)
        self.lif = LIF(surrogate=SuperSpike(k))

    def forward(self, x):
        return self.last(self.lif(3 * self.first(x))[0])


@pytest.mark.parametrize(("k", "ill"), [(300.0, True), (25.0, False)])
def test_a_surrogate_far_narrower_than_the_threshold_is_told(train, k, ill):
    fired = train(Spiking(k), n_steps=9)
    assert (("surrogate-too-narrow", "lif") in fired) is ill


@pytest.mark.parametrize("ill", [True, False])
def test_a_student_that_leaves_its_teacher_is_told(train, ill):
    net = Net(ternary())
    torch.manual_seed(3)
    teacher = nn.Linear(12, 6)
    wrong = nn.Linear(12, 6)
    steps = iter(range(10_000))

    def distil(net, x, out):
        with torch.no_grad():
            scores = teacher(x)
        leaves = ill and next(steps) > 230
        goal = 8 * wrong(x).detach() if leaves else scores
        return distillation_loss(out, goal) - functional.mse_loss(out, out.detach())

    fired = train(net, n_steps=420, lr=4e-3, extra=distil, teacher=teacher)
    assert (("leaves-its-teacher", "teacher") in fired) is ill


@pytest.mark.parametrize(("gap", "rule"), [(0.05, "accuracy-gap"), (0.01, "")])
def test_a_logged_gap_in_accuracy_is_judged(train, gap, rule):
    def log(net, step, watch):
        if step % 100 == 99:
            watch.log(accuracy_gap=gap)

    fired = train(Net(ternary()), n_steps=400, after=log)
    assert {r for r, layer in fired if layer == "accuracy_gap"} == ({rule} if rule else set())
