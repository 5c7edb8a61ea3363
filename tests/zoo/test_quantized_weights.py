"""TerViT, TTQ, LSQ, STTN, TEQUILA: levels and gradients by hand, and by finite differences."""

import math

import pytest
import torch

from spikewatch.zoo import (
    ChannelTernaryLinear,
    LSQLinear,
    STTNLinear,
    TequilaLinear,
    TernaryLinear,
    TTQLinear,
)
from spikewatch.zoo.lsq import RoundToStep
from spikewatch.zoo.ternary_linear import round_to_8_bit
from spikewatch.zoo.ttq import TernarizeTrained


LAYERS = [
    TernaryLinear,
    ChannelTernaryLinear,
    TTQLinear,
    LSQLinear,
    STTNLinear,
    TequilaLinear,
]
W = [[0.9, -0.8, 0.02, -0.01], [-0.5, 0.3, -0.04, 0.6]]


def latent():
    return torch.tensor(W, dtype=torch.float64, requires_grad=True)


def upstream():
    return torch.tensor([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]], dtype=torch.float64)


def levels_of_rows(weight):
    return max(row.unique().numel() for row in weight)


@pytest.mark.parametrize("make", LAYERS)
def test_every_ternary_layer_has_three_levels_a_row_and_multiplies_with_them(make):
    torch.manual_seed(0)
    layer, x = make(48, 16), torch.randn(5, 48)
    weight = layer.quantized_weight()
    assert levels_of_rows(weight) == 3
    assert (weight == 0).any()
    extra = layer(torch.zeros(1, 48))  # the biases alone
    torch.testing.assert_close(layer(x) - extra, x @ weight.t(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("make", LAYERS)
def test_every_latent_weight_and_scale_learns(make):
    torch.manual_seed(0)
    layer = make(48, 16)
    layer(torch.randn(64, 48)).square().sum().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad.abs().max() > 0, name


# ---------------------------------------------------------------------------------------- TerViT


def test_each_channel_has_its_own_threshold_and_scale():
    layer = ChannelTernaryLinear(4, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(W))
        layer.weight[0] *= 100
    # Row 0: mean |w| = 43.25, Δ = 30.3. Row 1: mean |w| = 0.36, Δ = 0.252. Of one Δ for both, the
    # second row would be all zeros.
    by_hand = [[85, -85, 0, 0], [-1.4 / 3, 1.4 / 3, 0, 1.4 / 3]]
    torch.testing.assert_close(layer.quantized_weight(), torch.tensor(by_hand))
    whole = TernaryLinear(4, 2)
    whole.load_state_dict(layer.state_dict())
    assert whole.quantized_weight()[1].abs().sum() == 0


def test_a_channel_ternary_layer_goes_from_8_bit_to_ternary():
    torch.manual_seed(0)
    layer = ChannelTernaryLinear(256, 8)
    layer.advance(0.0)
    eight_bit = layer.quantized_weight()
    assert levels_of_rows(layer.quantized_weight()) > 100
    step = layer.weight.abs().amax(1, keepdim=True) / 127
    assert ((eight_bit - layer.weight).abs() <= step * 0.501).all()
    eight_bit.sum().backward()
    assert (layer.weight.grad == 1).all()
    assert "'8-bit'" in repr(layer)
    layer.advance(0.3)
    assert levels_of_rows(layer.quantized_weight()) == 3


def test_8_bit_rounding_leaves_a_row_of_zeros_alone():
    assert round_to_8_bit(torch.zeros(2, 3)).tolist() == [[0] * 3] * 2


# ------------------------------------------------------------------------------------------- TTQ


def test_ttq_gradients_by_hand():
    w, w_p, w_n = latent(), *(torch.tensor(v, dtype=torch.float64) for v in (0.7, 0.4))
    w_p.requires_grad_(), w_n.requires_grad_()
    weight = TernarizeTrained.apply(w, w_p, w_n, torch.tensor(0.05))
    assert weight.tolist() == [[0.7, -0.4, 0, 0], [-0.4, 0.7, 0, 0.7]]
    weight.backward(upstream())
    assert w_p.grad.item() == 1 + 6 + 8
    assert w_n.grad.item() == -(2 + 5)
    by_hand = torch.tensor([[0.7, 0.4 * 2, 3, 4], [0.4 * 5, 0.7 * 6, 7, 0.7 * 8]])
    torch.testing.assert_close(w.grad, by_hand.double())


def test_ttq_scales_get_the_gradient_that_finite_differences_give():
    torch.manual_seed(0)
    layer, x = TTQLinear(12, 5).double(), torch.randn(7, 12, dtype=torch.float64)

    def loss():
        return layer(x).square().sum()

    loss().backward()
    for scale in (layer.w_p, layer.w_n):
        values = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                scale += step
                values.append(loss().item())
                scale -= step
        assert scale.grad.item() == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-6)


def test_ttq_scales_start_at_the_means_that_they_stand_for():
    layer = TTQLinear(4, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(W))
    layer.fit_scales()
    assert layer.w_p.item() == pytest.approx((0.9 + 0.3 + 0.6) / 3)
    assert layer.w_n.item() == pytest.approx((0.8 + 0.5) / 2)


def test_ttq_s_threshold_is_a_share_of_the_largest_weight():
    layer = TTQLinear(4, 2, delta_share=0.4)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(W))
    assert layer.quantized_weight().sign().tolist() == [[1, -1, 0, 0], [-1, 0, 0, 1]]


# ------------------------------------------------------------------------------------------- LSQ


@pytest.mark.parametrize(("low", "high"), [(-1, 1), (-128, 127)])
def test_lsq_gradients_are_those_of_the_paper(low, high):
    w, step = latent(), torch.tensor(0.25 if low == -1 else 0.004, dtype=torch.float64)
    step.requires_grad_()
    weight = RoundToStep.apply(w, step, low, high)
    weight.backward(upstream())
    slope, inside = 0.0, torch.zeros(2, 4, dtype=torch.float64)
    for i, row in enumerate(W):
        for j, value in enumerate(row):
            v = value / step.item()
            level = min(max(round(v), low), high)
            assert weight[i, j].item() == pytest.approx(level * step.item())
            inside[i, j] = low < v < high
            ds = round(v) - v if low < v < high else level
            slope += upstream()[i, j].item() * ds
    assert 0 < inside.sum() < 8
    torch.testing.assert_close(w.grad, upstream() * inside)
    assert step.grad.item() == pytest.approx(slope / math.sqrt(8 * high))


def test_the_step_s_gradient_in_the_clipped_region_is_that_of_finite_differences():
    w = torch.tensor([3.0, -2.0, 5.0], dtype=torch.float64)  # all beyond the levels
    step = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    g = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
    RoundToStep.apply(w, step, -1, 1).backward(g)
    with torch.no_grad():
        change = (RoundToStep.apply(w, step + 1e-6, -1, 1) * g).sum() - (
            RoundToStep.apply(w, step - 1e-6, -1, 1) * g
        ).sum()
    assert step.grad.item() * math.sqrt(3) == pytest.approx(change.item() / 2e-6)


def test_the_step_starts_as_the_paper_says_and_learns_to_fit():
    torch.manual_seed(0)
    layer = LSQLinear(256, 64)
    assert layer.step.item() == pytest.approx(2 * layer.weight.abs().mean().item())
    optimizer = torch.optim.Adam([layer.step], 1e-3)
    losses = []
    for _ in range(60):
        loss = (layer.quantized_weight() - layer.weight.detach()).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


# ------------------------------------------------------------------------------------------ STTN


def test_two_binary_kernels_give_the_output_of_one_ternary_kernel():
    torch.manual_seed(0)
    layer, x = STTNLinear(64, 8), torch.randn(5, 64)
    weight, alpha = layer.quantized_weight(), layer.alpha()
    torch.testing.assert_close(layer(x), x @ weight.t() + layer.linear_1.bias)
    for row, a in zip(weight, alpha.flatten().tolist(), strict=True):
        assert row.unique().tolist() == pytest.approx([-2 * a, 0, 2 * a])
    assert (weight == 0).float().mean().item() == pytest.approx(0.5, abs=0.1)


def test_a_binary_kernel_s_gradient_goes_through_its_sign_and_the_shared_alpha():
    layer = STTNLinear(2, 1, bias=False).double()
    with torch.no_grad():
        layer.linear_1.weight.copy_(torch.tensor([[0.5, -1.5]]))
        layer.linear_2.weight.copy_(torch.tensor([[-0.2, -0.6]]))
    x = torch.tensor([[2.0, 3.0]], dtype=torch.float64)
    y = layer(x)
    # α = (0.5 + 1.5 + 0.2 + 0.6)/4 = 0.7; the signs (1, −1) and (−1, −1) add up to (0, −2).
    assert y.item() == pytest.approx(0.7 * -2 * 3)
    y.backward()
    dy_dalpha = -6.0
    through_alpha = [dy_dalpha / 4, -dy_dalpha / 4]
    # Straight-through: α·x, but nothing where |w| > 1.
    by_hand = [[0.7 * 2 + through_alpha[0], 0 + through_alpha[1]]]
    assert layer.linear_1.weight.grad.tolist() == [pytest.approx(by_hand[0])]


# --------------------------------------------------------------------------------------- TEQUILA


def test_weights_in_the_deadzone_get_the_bias_s_gradient_on_top():
    layer = TequilaLinear(4, 2, bias_scale=0.5).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(W))
    x = torch.tensor([[1.0, -2.0, 0.5, 3.0]], dtype=torch.float64)
    layer(x).backward(torch.tensor([[1.0, 10.0]], dtype=torch.float64))
    # Row 0: α = 0.4325, the deadzone is |w| ≤ 0.216: columns 2 and 3; row 1: α = 0.36, column 2.
    dead = torch.tensor([[0, 0, 1, 1], [0, 0, 1, 0]], dtype=torch.float64)
    g = torch.tensor([[1.0], [10.0]], dtype=torch.float64)
    torch.testing.assert_close(layer.weight.grad, g * x + 0.5 * g * dead)
    sums = (torch.tensor(W, dtype=torch.float64) * dead).sum(1)
    torch.testing.assert_close(layer.bias_scale.grad, g.flatten() * sums)


def test_the_dynamic_bias_is_independent_of_the_input_and_merges():
    torch.manual_seed(0)
    layer, x = TequilaLinear(32, 8, bias_scale=0.3), torch.randn(6, 32)
    assert layer.dynamic_bias().abs().max() > 0
    torch.testing.assert_close(layer.merged()(x), layer(x))
    assert levels_of_rows(layer.merged().weight) == 3


def test_a_plain_straight_through_estimator_gives_the_deadzone_as_much_gradient():
    torch.manual_seed(0)
    layer = TernaryLinear(64, 64)
    layer(torch.randn(256, 64)).backward(torch.randn(256, 64))
    dead = layer.quantized_weight() == 0
    size = layer.weight.grad.abs()
    assert (size[dead].mean() / size[~dead].mean()).item() == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("make", LAYERS)
def test_latent_weights_of_zero_give_finite_outputs_and_gradients(make):
    layer = make(4, 3)
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if "weight" in name:
                parameter.zero_()
    layer(torch.ones(2, 4)).sum().backward()
    assert all(p.grad.isfinite().all() for p in layer.parameters())
