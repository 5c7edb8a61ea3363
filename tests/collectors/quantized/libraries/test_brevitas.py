"""brevitas: its quantized weights are tuples with a value, a scale and a bit width."""

import brevitas.nn as qnn
import pytest
import torch
from brevitas.inject.enum import ScalingImplType
from brevitas.quant import (
    Int8WeightPerChannelFloat,
    Int8WeightPerTensorFloat,
    SignedBinaryWeightPerTensorConst,
    SignedTernaryWeightPerTensorConst,
)
from torch import nn


class TernaryByRow(SignedTernaryWeightPerTensorConst):
    """A scale for each output, trained along: a configuration in brevitas's own way."""

    scaling_impl_type = ScalingImplType.PARAMETER_FROM_STATS
    scaling_stats_op = "max"
    scaling_per_output_channel = True
    restrict_scaling_type = "fp"


def net_of(quantizer, **kwargs):
    kwargs = {"weight_quant": quantizer, **kwargs}
    return lambda: nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 4, 3),
        nn.ReLU(),
        qnn.QuantConv2d(4, 8, 3, **kwargs),
        nn.ReLU(),
        nn.Flatten(),
        qnn.QuantLinear(128, 10, bias=True, **kwargs),
    )


def tell(net):
    layers = {n: net.get_submodule(n) for n in ("3", "6")}
    return {n: (layer.quant_weight().value, layer.weight) for n, layer in layers.items()}


def test_ternary_weights_are_measured_as_quant_weight_tells_them(trained):
    run = trained(net_of(SignedTernaryWeightPerTensorConst), tell)
    assert set(run.layers) == {"3", "6"}
    for name, layer in run.layers.items():
        assert (layer["kind"], layer["library"], layer["note"]) == (
            "ternary", "brevitas", "one scale",
        )  # fmt: skip
        scale = run.net.get_submodule(name).quant_weight().scale.item()
        run.check(name, alpha_mean=scale, scale_positive=scale)


def test_a_scale_for_each_output_is_one_and_is_seen_to_learn(trained):
    run = trained(net_of(TernaryByRow), tell)
    assert {layer["note"] for layer in run.layers.values()} == {"a scale a row"}
    for name in run.layers:
        run.check(name, by_row=True)
        assert run.rows("weights", name)[-1]["scale_without_gradient_frac"] == 0


@pytest.mark.parametrize(
    ("quantizer", "kwargs", "note"),
    [
        (SignedBinaryWeightPerTensorConst, {}, "binary, one scale"),
        (Int8WeightPerTensorFloat, {}, "8 bit, one scale"),
        (Int8WeightPerTensorFloat, {"weight_bit_width": 3}, "3 bit, one scale"),
        (Int8WeightPerChannelFloat, {"weight_bit_width": 4}, "4 bit, a scale a row"),
    ],
)
def test_other_weights_are_named_for_what_they_are(named, quantizer, kwargs, note):
    told = ("brevitas", "quantized", note)
    assert named(net_of(quantizer, **kwargs)) == dict.fromkeys(("3", "6"), told)


def test_2_bits_of_a_narrow_range_are_ternary(trained):
    """{−1, 0, +1}: brevitas leaves −2 out, so that the range is symmetric."""
    run = trained(net_of(Int8WeightPerTensorFloat, weight_bit_width=2), tell)
    for name, layer in run.layers.items():
        assert (layer["kind"], layer["note"]) == ("ternary", "one scale")
        run.check(name)


def test_quantized_weights_of_a_frozen_model_are_seen_in_evaluation(listen):
    torch.manual_seed(0)
    net = net_of(SignedTernaryWeightPerTensorConst)().eval().requires_grad_(False)
    heard = listen(net)
    with torch.no_grad():
        net(torch.rand(4, 64))
    for name, (quantized, _) in tell(net).items():
        counted = heard.tables(name, "eval")["weights"]
        assert counted["n_weight_zero"] == (quantized == 0).sum()
        assert counted["n_weight_positive"] == (quantized > 0).sum() > 0


def test_a_transposed_convolution_has_a_scale_for_each_output_too(listen):
    """Its weight is kept inputs first."""
    torch.manual_seed(0)
    net = nn.Sequential(qnn.QuantConvTranspose2d(6, 8, 3, weight_quant=TernaryByRow))
    heard = listen(net)
    net(torch.randn(2, 6, 5, 5)).sum().backward()
    (layer,) = heard.confirmed
    assert (layer.kind, layer.note) == ("ternary", "a scale a row")
    quantized, latent = net[0].quant_weight().value.detach(), net[0].weight.detach()
    tables = heard.tables("0")
    assert tables["weights"]["n_weight_zero"] == (quantized == 0).sum()
    assert (tables["weights"]["n_rows"], tables["weights"]["n_columns"]) == (8, 6)
    scales = quantized.abs().amax((0, 2, 3))
    assert tables["amplitudes"]["n_alphas"] == 8
    assert tables["amplitudes"]["alpha_max"] == pytest.approx(scales.max().item())
    assert tables["latent"]["sum_latent_quantized"] == pytest.approx(
        (quantized * latent).sum().item(), rel=1e-5
    )
    delta = (latent.abs() * (quantized == 0)).amax((0, 2, 3), keepdim=True)
    assert tables["latent"]["n_deadzone"] == (latent.abs() <= delta).sum()


def test_a_recurrent_layer_is_seen_by_its_gates_and_each_weight_once(listen):
    """The quantizers of a gate hold its weights as well, for their statistics."""
    torch.manual_seed(0)
    lstm = qnn.QuantLSTM(16, 12, weight_quant=SignedTernaryWeightPerTensorConst)
    heard = listen(lstm)
    lstm(torch.randn(5, 2, 16))[0].sum().backward()
    gates = {
        f"layers.0.0.{gate}_gate_params.{side}_weight"
        for gate in ("input", "forget", "cell", "output")
        for side in ("input", "hidden")
    }
    assert set(heard.observers) == gates == {layer.name for layer in heard.confirmed}
    for name in gates:
        quantized = lstm.get_submodule(name).quant_weight().value
        counted = heard.tables(name)["weights"]
        assert counted["n_weight_zero"] == (quantized == 0).sum()
