"""The gradient estimator of ternary weights: both of its sides, against autograd and by hand."""

import gc
import weakref

import polars as pl
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import nn
from torch.nn import functional

from benchmarks.detection.faults import WrongSignTTQ
from spikewatch.collectors.quantized.estimator import EstimatorGradients
from spikewatch.collectors.quantized.reading import MOST_NUMBERS
from spikewatch.metrics import TABLES
from spikewatch.zoo.lsq import LSQLinear
from spikewatch.zoo.tequila import TequilaLinear
from spikewatch.zoo.ternary_linear import TernaryLinear, ternarize
from spikewatch.zoo.ttq import TTQLinear


def metrics_of(counters):
    table = TABLES["estimator"]
    row = {k: None if v is None else float(v) for k, v in counters.items()}
    return table.compute(pl.DataFrame([row])).row(0, named=True)


def trained(listen, net, name, *, n_calls=1, n_micro=1, scale=1.0, step=True):
    """The figures of one step, in which the network is called so often before each backward."""
    heard = listen(net)
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    for _ in range(n_micro):
        loss = sum(net(torch.randn(8, 40)).square().mean() for _ in range(n_calls))
        (scale * loss).backward()
    if step:
        optimizer.step()
    counters = heard.flush(name, "estimator")
    return None if counters is None else metrics_of(counters)


class Clipped(torch.autograd.Function):
    """Passes no gradient to what became 0."""

    @staticmethod
    def forward(ctx, w):
        t = ternarize(w)
        ctx.save_for_backward(t)
        return t

    @staticmethod
    def backward(ctx, g):
        return g * (ctx.saved_tensors[0] != 0)


class Uphill(Clipped):
    """Has the sign of the whole gradient wrong."""

    @staticmethod
    def backward(ctx, g):
        return -g


class Custom(nn.Linear):
    def __init__(self, n_in, n_out, function=Clipped):
        super().__init__(n_in, n_out)
        self.function = function

    def forward(self, x):
        return functional.linear(x, self.function.apply(self.weight), self.bias)


def test_by_hand():
    reader = EstimatorGradients()
    quantized = torch.tensor([[0.0, 2.0, -2.0, 0.0]])
    reader.gradient(nn.Linear(1, 1), quantized, torch.tensor([[3.0, 4.0, 0.0, 0.0]]))
    layer, latent = nn.Linear(1, 1), torch.zeros(1, 4)
    counts = reader.end(layer, latent, torch.tensor([[0.0, 4.0, 3.0, 1.0]]))
    row = metrics_of(counts.tables["estimator"])
    assert row["estimator_cosine"] == pytest.approx(16 / (5 * 26**0.5))
    assert row["deadzone_reached_frac"] == 0.0  # of two zeros one has a gradient: it is cut off
    assert row["scale_gradient_turned_frac"] is None
    assert reader.end(layer, latent, latent) is None  # nothing came by since


@pytest.mark.parametrize("n_calls", [1, 3])
@pytest.mark.parametrize("n_micro", [1, 2])
@pytest.mark.parametrize("scale", [1.0, 2.0**16])
def test_straight_through_is_one_whatever_the_loop(listen, n_calls, n_micro, scale):
    torch.manual_seed(0)
    net = nn.Sequential(TernaryLinear(40, 30), nn.ReLU(), nn.Linear(30, 5))
    row = trained(listen, net, "0", n_calls=n_calls, n_micro=n_micro, scale=scale)
    assert row["estimator_cosine"] == pytest.approx(1.0, abs=1e-5)
    assert row["deadzone_reached_frac"] == 1.0


def test_the_cosine_is_that_of_autograd(listen):
    torch.manual_seed(0)
    layer = TTQLinear(40, 30)
    heard = listen(nn.Sequential(layer))
    x, seen = torch.randn(8, 40), []
    layer(x).square().mean().backward()
    weight = layer.quantized_weight().detach().requires_grad_()
    functional.linear(x, weight, layer.bias).square().mean().backward()
    seen = functional.cosine_similarity(weight.grad.flatten(), layer.weight.grad.flatten(), dim=0)
    row = metrics_of(heard.flush("0", "estimator"))
    assert row["estimator_cosine"] == pytest.approx(seen.item(), abs=1e-5)
    assert 0 < row["estimator_cosine"] < 0.999


def test_an_estimator_that_cuts_zeros_off_is_told_from_one_that_does_not(listen):
    torch.manual_seed(0)
    assert trained(listen, nn.Sequential(Custom(40, 30)), "0")["deadzone_reached_frac"] == 0.0
    for make in (TTQLinear, LSQLinear, TequilaLinear):
        row = trained(listen, nn.Sequential(make(40, 30)), "0")
        assert row is None or row["deadzone_reached_frac"] == 1.0


def test_an_estimator_that_goes_uphill_is_below_zero(listen):
    row = trained(listen, nn.Sequential(Custom(40, 30, Uphill)), "0")
    assert row["estimator_cosine"] == pytest.approx(-1.0, abs=1e-5)


@pytest.mark.parametrize("scale", [1.0, 2.0**16])
def test_the_wrong_sign_of_one_scale_is_told(listen, scale):
    torch.manual_seed(0)
    right = trained(listen, nn.Sequential(TTQLinear(40, 30)), "0", scale=scale)
    assert right["scale_gradient_turned_frac"] == 0.0
    layer = TTQLinear(40, 30)
    layer.__class__ = WrongSignTTQ
    assert (
        trained(listen, nn.Sequential(layer), "0", scale=scale)["scale_gradient_turned_frac"] == 0.5
    )


class InALoop(TernaryLinear):
    """Makes its weights anew for each of several products in one forward pass."""

    def forward(self, x):
        return super().forward(x) + super().forward(2 * x)


def test_nothing_is_said_where_only_a_part_of_the_gradient_is_heard(listen):
    assert trained(listen, nn.Sequential(InALoop(40, 30)), "0") is None


def test_nothing_is_said_without_a_backward_pass_or_in_evaluation(listen):
    net = nn.Sequential(TernaryLinear(40, 30))
    heard = listen(net)
    net(torch.randn(2, 40))
    assert heard.flush("0", "estimator") is None
    heard.forced_phase = "eval"
    net(torch.randn(2, 40)).sum().backward()
    assert "estimator" not in heard.tables("0", "eval")


def test_of_a_large_layer_a_sample_is_compared(listen):
    torch.manual_seed(0)
    net = nn.Sequential(Custom(40, MOST_NUMBERS // 20))
    heard = listen(net)
    net(torch.randn(4, 40)).square().mean().backward()
    row = heard.flush("0", "estimator")
    weight = net[0].weight
    share = (ternarize(weight) == 0).float().mean().item()
    assert row["n_zeros_graded"] == pytest.approx(share * MOST_NUMBERS, rel=0.02)
    assert row["n_zeros_reached"] == 0


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**16), st.integers(1, 4))
def test_gradients_of_parts_add_up_to_that_of_the_whole(seed, n_parts):
    g = torch.Generator().manual_seed(seed)
    quantized = torch.randint(-1, 2, (6, 7), generator=g).float()
    parts = [torch.randn(6, 7, generator=g) for _ in range(n_parts)]
    latent = torch.randn(6, 7, generator=g)
    layer, rows = nn.Linear(1, 1), []
    for given_ in (parts, [sum(parts)]):
        reader = EstimatorGradients()
        for gradient in given_:
            reader.gradient(layer, quantized, gradient)
        counts = reader.end(layer, latent, latent)
        rows.append({k: float(v) for k, v in counts.tables["estimator"].items()})
    assert rows[0] == pytest.approx(rows[1], rel=1e-4, abs=1e-4)
    row = metrics_of(rows[0])
    assert -1 - 1e-6 <= row["estimator_cosine"] <= 1 + 1e-6
    assert row["deadzone_reached_frac"] is None or 0 <= row["deadzone_reached_frac"] <= 1


class Remembered(nn.Linear):
    """Keeps a weak reference to what it multiplies with."""

    def forward(self, x):
        weight = Clipped.apply(self.weight)
        self.latest = weakref.ref(weight)
        return functional.linear(x, weight, self.bias)


def test_a_quantized_weight_is_let_go_of_with_its_graph(listen):
    torch.manual_seed(0)
    layer = Remembered(40, 30)
    heard = listen(nn.Sequential(layer))
    gc.disable()  # as good as: it hardly ever comes by, and a weight may take gigabytes
    try:
        layer(torch.randn(8, 40)).square().mean().backward()
        assert layer.latest() is None
    finally:
        gc.enable()
    assert heard.flush("0", "estimator") is not None
