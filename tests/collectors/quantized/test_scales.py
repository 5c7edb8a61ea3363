"""Scales that are parameters: their sign, and whether gradient reaches them."""

import pytest
import torch
from torch import nn

from spikewatch.zoo.channel_ternary_spike import ChannelTernarySpike
from spikewatch.zoo.lsq import LSQLinear
from spikewatch.zoo.ternary_linear import TernaryLinear
from spikewatch.zoo.ttq import TTQLinear


class FrozenScale(TernaryLinear):
    """α is said to learn, and is used without its gradient."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.alpha = nn.Parameter(torch.tensor(0.1))

    def quantized_weight(self):
        return super().quantized_weight().sign() * self.alpha.detach().abs()


def trained(listen, layer, n_steps=3):
    heard = listen(nn.Sequential(layer))
    optimizer = torch.optim.SGD(layer.parameters(), 0.01)
    rows = []
    for step in range(n_steps):
        heard.step = step
        optimizer.zero_grad()
        layer(torch.randn(8, layer.in_features)).square().mean().backward()
        optimizer.step()
        rows.append(heard.flush("0", "weights"))
    return rows


@pytest.mark.parametrize(("make", "n"), [(TTQLinear, 2), (LSQLinear, 1)])
def test_scales_that_learn_have_a_gradient(listen, make, n):
    torch.manual_seed(0)
    last = trained(listen, make(40, 30))[-1]
    assert (last["n_scales"], last["n_scales_not_positive"]) == (n, 0)
    assert (last["n_learnable_scales"], last["n_scales_without_gradient"]) == (n, 0)
    assert last["scale_without_gradient_rows"] == 0


def test_a_scale_without_gradient_is_counted_row_by_row(listen):
    torch.manual_seed(0)
    rows = trained(listen, FrozenScale(40, 30))
    assert [r["scale_without_gradient_rows"] for r in rows] == [1, 2, 3]
    assert rows[-1]["n_scales_without_gradient"] == 1


def test_a_scale_that_is_not_positive_is_told(listen):
    torch.manual_seed(0)
    layer = TTQLinear(40, 30)
    heard = listen(nn.Sequential(layer))
    layer(torch.randn(8, 40))
    assert heard.flush("0", "weights")["n_scales_not_positive"] == 0
    with torch.no_grad():
        layer.w_p.zero_()
    layer(torch.randn(8, 40))
    assert heard.flush("0", "weights")["n_scales_not_positive"] == 1


def test_without_a_backward_pass_nothing_is_said(listen):
    layer = TTQLinear(40, 30)
    heard = listen(nn.Sequential(layer))
    layer(torch.randn(2, 40))
    assert "n_learnable_scales" not in heard.flush("0", "weights")


def test_plain_ternary_layers_have_no_scales_of_their_own(listen):
    row = trained(listen, TernaryLinear(40, 30))[-1]
    assert "n_scales" not in row
    assert "n_learnable_scales" not in row


class Block(TernaryLinear):
    """A block that keeps a ternary weight itself, and has layers with parameters of their own."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.after = nn.Linear(sizes[1], sizes[1])
        self.spike = ChannelTernarySpike(sizes[1])

    def forward(self, x):
        return self.spike(self.after(super().forward(x)))


def test_parameters_of_layers_within_are_not_those_of_the_quantizer(listen):
    torch.manual_seed(0)
    row = trained(listen, Block(40, 30))[-1]
    assert "n_scales" not in row
    assert "n_learnable_scales" not in row
