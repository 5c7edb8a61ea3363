"""TWN against its definition and against a search for better thresholds."""

import pytest
import torch

from spikewatch.zoo import TernaryLinear
from spikewatch.zoo.ternary_linear import ternarize


def test_ternary_weights_by_hand():
    # mean |w| = 1.0, Δ = 0.7: ±1.5 and 0.8 survive, α = (1.5 + 1.5 + 0.8) / 3
    w = torch.tensor([[1.5, -1.5, 0.8, 0.2]])
    alpha = 3.8 / 3
    torch.testing.assert_close(ternarize(w), torch.tensor([[alpha, -alpha, alpha, 0.0]]))


def test_there_are_exactly_three_levels():
    torch.manual_seed(0)
    layer = TernaryLinear(64, 64)
    levels = layer.quantized_weight().unique()
    assert levels.numel() == 3
    assert levels[0] == -levels[2]
    assert levels[1] == 0


def test_alpha_is_the_least_squares_scale():
    torch.manual_seed(0)
    w = torch.randn(1000, dtype=torch.float64)
    q = ternarize(w)
    t = q.sign()
    assert q.max().item() == pytest.approx(((w @ t) / (t @ t)).item())


def test_the_factor_is_near_the_best_for_gaussian_weights():
    torch.manual_seed(0)
    w = torch.randn(200_000, dtype=torch.float64)

    def loss_db(c):
        return 10 * torch.log10((w - ternarize(w, delta_factor=c)).square().sum()).item()

    best = min((c / 100 for c in range(50, 110)), key=loss_db)
    assert best == pytest.approx(0.767, abs=0.04)
    assert loss_db(0.7) - loss_db(best) < 0.06


def test_latent_weights_get_the_gradient_of_the_ternary_ones():
    torch.manual_seed(0)
    layer, x = TernaryLinear(6, 4), torch.randn(5, 6)
    upstream = torch.randn(5, 4)
    layer(x).backward(upstream)
    torch.testing.assert_close(layer.weight.grad, upstream.t() @ x)
    assert (layer.quantized_weight() == 0).any()  # the zeros among them too


def test_the_output_is_that_of_the_ternary_weights():
    torch.manual_seed(0)
    layer, x = TernaryLinear(6, 4, bias=False), torch.randn(5, 6)
    torch.testing.assert_close(layer(x), x @ ternarize(layer.weight).t())


def test_weights_of_zeros_stay_zeros_and_finite():
    assert ternarize(torch.zeros(3, 3)).tolist() == torch.zeros(3, 3).tolist()


def test_a_far_too_large_factor_collapses_the_layer():
    torch.manual_seed(0)
    assert TernaryLinear(64, 64, delta_factor=4.0).quantized_weight().abs().sum() == 0
