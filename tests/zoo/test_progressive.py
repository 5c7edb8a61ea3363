"""The way from full precision to ternary weights, and which layers take it."""

import copy
import itertools

import pytest
import torch
from torch import nn

from spikewatch.zoo import (
    EightBitLinear,
    LSQLinear,
    ProgressiveTernaryLinear,
    Schedule,
    STTNLinear,
    TernaryLinear,
    ternarize_middle,
)
from spikewatch.zoo.progressive import soft_ternary
from spikewatch.zoo.ternary_linear import DELTA_FACTOR, ternarize


def gaussian(n=400):
    return torch.randn(n, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_hot_the_soft_function_is_the_identity_and_cold_it_is_ternary():
    w = gaussian()
    delta = DELTA_FACTOR * w.abs().mean()
    hot = soft_ternary(w, delta=delta, temperature=1000.0)
    torch.testing.assert_close(hot, w, rtol=1e-4, atol=1e-4)
    cold = soft_ternary(w, delta=delta, temperature=1e-5)
    torch.testing.assert_close(cold, ternarize(w), rtol=1e-6, atol=1e-6)


def test_the_soft_gradient_is_exact_for_a_given_scale():
    w = gaussian(20).requires_grad_()
    delta = torch.tensor(0.5, dtype=torch.float64)
    y = soft_ternary(w, delta=delta, temperature=0.6)
    y.sum().backward()
    t = lambda v: (torch.tanh((v - delta) / 0.3) + torch.tanh((v + delta) / 0.3)) / 2  # noqa: E731
    alpha = (y / t(w)).detach()
    torch.testing.assert_close(alpha, alpha[:1].expand(20))
    slope = (t(w.detach() + 1e-6) - t(w.detach() - 1e-6)) / 2e-6
    torch.testing.assert_close(w.grad, alpha * slope, rtol=1e-5, atol=1e-7)


def test_a_layer_goes_through_the_three_phases():
    torch.manual_seed(0)
    layer = ProgressiveTernaryLinear(64, 32, schedule=Schedule(soft_from=0.25, hard_from=0.75))
    seen, distance = [], []
    for progress in (0.0, 0.24, 0.25, 0.4, 0.55, 0.74, 0.75, 1.0):
        layer.advance(progress)
        seen.append(layer.stage)
        weight = layer.quantized_weight()
        distance.append((weight - ternarize(layer.weight)).norm().item())
    assert seen == ["full"] * 2 + ["soft"] * 4 + ["hard"] * 2
    assert distance == sorted(distance, reverse=True)
    assert distance[-1] == 0
    assert layer.quantized_weight().unique().numel() == 3
    assert "stage='hard'" in repr(layer)


def test_the_temperature_falls_by_the_same_factor_in_equal_times():
    schedule = Schedule(soft_from=0.0, hard_from=1.0, hot=8.0, cold=0.5)
    assert [schedule.at(p)[1] for p in (0.0, 0.25, 0.5, 0.75)] == pytest.approx([8, 4, 2, 1])


# ------------------------------------------------------------------------------- mixed precision


def mlp(*, bias=True):
    torch.manual_seed(0)
    sizes = (64, 128, 128, 128, 10)
    layers = [nn.Linear(i, o, bias=bias) for i, o in itertools.pairwise(sizes)]
    return nn.Sequential(*layers)


def test_first_and_last_layer_stay_as_they_are_and_the_middle_becomes_ternary():
    net = mlp()
    before = copy.deepcopy(net)
    share = ternarize_middle(net)
    assert [type(m) for m in net] == [nn.Linear, TernaryLinear, TernaryLinear, nn.Linear]
    assert share == pytest.approx(2 * 128 * 128 / (64 * 128 + 2 * 128 * 128 + 128 * 10))
    for new, old in zip(net, before, strict=True):
        assert torch.equal(new.weight, old.weight)
        assert torch.equal(new.bias, old.bias)


def test_the_ends_can_have_8_bits_and_the_middle_another_make():
    net = mlp(bias=False)
    ternarize_middle(net, make=lambda i, o: STTNLinear(i, o, bias=False), ends="8-bit")
    assert [type(m) for m in net] == [EightBitLinear, STTNLinear, STTNLinear, EightBitLinear]
    assert net[0].quantized_weight()[0].unique().numel() > 50
    x = torch.randn(3, 64)
    torch.testing.assert_close(net[0](x), x @ mlp(bias=False)[0].weight.t(), rtol=0, atol=0.02)


def test_scales_that_learn_start_from_the_weights_taken_over():
    net = mlp()
    with torch.no_grad():
        net[1].weight.mul_(50)
    ternarize_middle(net, make=LSQLinear)
    assert net[1].step.item() == pytest.approx(2 * net[1].weight.abs().mean().item())


def test_a_nested_network_is_reached_and_one_without_a_middle_refused():
    net = nn.Sequential(nn.Linear(4, 8), nn.Sequential(nn.ReLU(), nn.Linear(8, 8)), nn.Linear(8, 2))
    ternarize_middle(net)
    assert isinstance(net[1][1], TernaryLinear)
    with pytest.raises(ValueError, match="Sequential has 2 plain"):
        ternarize_middle(nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2)))
