"""torch.ao: fake quantizers with observers, of which a range from −1 to 1 makes ternary weights."""

import pytest
import torch
from torch import nn
from torch.ao.nn import qat
from torch.ao.quantization import (
    FakeQuantize,
    MinMaxObserver,
    PerChannelMinMaxObserver,
    QConfig,
    default_fake_quant,
    fuse_modules_qat,
    prepare_qat,
)


# Of torch itself: the interface is old, and yet what most quantized models were trained with.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:Please use quant_min")
BY_TENSOR = {"observer": MinMaxObserver, "qscheme": torch.per_tensor_symmetric}
BY_ROW = {"observer": PerChannelMinMaxObserver, "qscheme": torch.per_channel_symmetric}


def config(low, high, **how):
    weight = FakeQuantize.with_args(quant_min=low, quant_max=high, dtype=torch.qint8, **how)
    return QConfig(activation=default_fake_quant, weight=weight)


def net_of(low=-1, high=1, **how):
    qconfig = config(low, high, **how)
    return lambda: nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 4, 3),
        nn.ReLU(),
        qat.Conv2d(4, 8, 3, qconfig=qconfig),
        nn.ReLU(),
        nn.Flatten(),
        qat.Linear(128, 10, qconfig=qconfig),
    )


def tell(net):
    """By the scales that its observers found: asked once more, they would count once more."""
    return {n: (_quantized(net.get_submodule(n)), net.get_submodule(n).weight) for n in "36"}


def _quantized(layer):
    quantizer, weight = layer.weight_fake_quant, layer.weight.detach()
    scale = quantizer.scale.reshape(-1, *[1] * (weight.dim() - 1))
    return (weight / scale).round().clamp(quantizer.quant_min, quantizer.quant_max) * scale


@pytest.mark.parametrize(
    ("how", "note"), [(BY_TENSOR, "one scale"), (BY_ROW, "a scale a row")], ids=["tensor", "row"]
)
def test_a_range_from_minus_one_to_one_is_ternary(trained, how, note):
    run = trained(net_of(**how), tell)
    assert set(run.layers) == {"3", "6"}
    for name, layer in run.layers.items():
        assert (layer["kind"], layer["library"], layer["note"]) == ("ternary", "torch", note)
        scales = run.told[-2][name][0].flatten(1).amax(1)
        run.check(name, by_row=how is BY_ROW, alpha_mean=scales.mean().item())


@pytest.mark.parametrize("how", [BY_TENSOR, BY_ROW], ids=["tensor", "row"])
@pytest.mark.parametrize(("low", "high", "bits"), [(-2, 1, 2), (-8, 7, 4), (-128, 127, 8)])
def test_wider_ranges_are_named_for_their_bits(named, how, low, high, bits):
    """Symmetric 2 bits have their fourth level for the largest weight alone, if it is negative."""
    note = f"{bits} bit, {'one scale' if how is BY_TENSOR else 'a scale a row'}"
    told = ("torch", "quantized", note)
    assert named(net_of(low, high, **how)) == dict.fromkeys(("3", "6"), told)


def test_a_prepared_model_with_fused_normalisation_is_seen(trained):
    """Its weights are scaled by the normalisation before they are quantized."""

    def make():
        net = nn.Sequential(
            nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Flatten(), nn.Linear(576, 10),
        )  # fmt: skip
        net.qconfig = config(-1, 1, **BY_TENSOR)
        return prepare_qat(fuse_modules_qat(net.train(), [["1", "2", "3"]]))

    run = trained(make)
    assert {n: (x["kind"], x["type"]) for n, x in run.layers.items()} == {
        "1": ("ternary", "ConvBnReLU2d"),
        "5": ("ternary", "Linear"),
    }
    layer, row = run.net[1], run.rows("weights", "1", "eval")[0]
    scaled = layer.weight * (layer.bn.weight / (layer.bn.running_var + layer.bn.eps).sqrt()).view(
        -1, 1, 1, 1
    )
    levels = (scaled / layer.weight_fake_quant.scale).round().clamp(-1, 1)
    assert row["n_weight_zero"] == (levels == 0).sum()
    assert row["n_weight_positive"] == (levels > 0).sum() > 0
