"""bitlinear-pytorch: BitNet b1.58's absmean, one scale for the layer."""

import pytest
import torch
from bitlinear_pytorch.bitlinear import BitLinear, weight_quant
from torch import nn


def make():
    return nn.Sequential(nn.Linear(64, 48), nn.ReLU(), BitLinear(48, 32), nn.ReLU(),
                         BitLinear(32, 10, bias=True))  # fmt: skip


def tell(net):
    return {n: (weight_quant(net.get_submodule(n).weight), net.get_submodule(n).weight)
            for n in ("2", "4")}  # fmt: skip


def test_its_weights_are_measured_as_it_makes_them(trained):
    run = trained(make, tell)
    assert set(run.layers) == {"2", "4"}
    for name, layer in run.layers.items():
        assert (layer["kind"], layer["library"], layer["note"]) == (
            "ternary", "bitlinear_pytorch", "one scale",
        )  # fmt: skip
        run.check(name, alpha_mean=run.told[-2][name][1].abs().mean().item())


def test_half_precision_weights_are_measured_in_it(trained):
    """A straight-through estimator rounds w + (q − w): off by up to 1 % in bfloat16."""

    def make_half():
        return nn.Sequential(BitLinear(64, 32), nn.ReLU(), BitLinear(32, 10)).bfloat16()

    class Cast(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = make_half()

        def forward(self, x):
            return self.net(x.bfloat16()).float()

    def as_multiplied(net):
        weights = {f"net.{n}": net.net.get_submodule(n).weight for n in ("0", "2")}
        return {n: (w + (weight_quant(w) - w), w) for n, w in weights.items()}

    run = trained(Cast, as_multiplied)
    assert [layer["note"] for layer in run.layers.values()] == ["one scale"] * 2
    for name in run.layers:
        for row, told in zip(run.rows("weights", name), run.told, strict=False):
            quantized = told[name][0].float()
            assert row["n_weight_zero"] == (quantized == 0).sum()
            assert row["scale_positive"] == pytest.approx(
                quantized[quantized > 0].mean().item(), rel=1e-3
            )
    assert torch.get_default_dtype() == torch.float32
