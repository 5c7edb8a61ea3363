"""torchao: a tensor type that quantizes inside its products, fake quantizers, packed weights."""

import pytest
import torch
from torch import nn
from torchao.prototype.quantized_training import bitnet_training
from torchao.prototype.quantized_training.bitnet import get_bitnet_scale, quantize_bitnet_weight
from torchao.quantization import Int8WeightOnlyConfig, IntxWeightOnlyConfig, quantize_
from torchao.quantization.granularity import PerAxis, PerGroup
from torchao.quantization.qat import IntxFakeQuantizeConfig, QATConfig


LAYERS = ("2", "4")


def net():
    return nn.Sequential(
        nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10)
    )


def prepared(*configs, model=None):
    """All layers but the first one, as torchao's tutorials do it."""
    model = model or net()
    for config in configs:
        quantize_(model, config, filter_fn=lambda _, name: name in LAYERS)
    return model


def fake_quantized(dtype, **kwargs):
    config = IntxFakeQuantizeConfig(dtype, **kwargs)
    return lambda: prepared(QATConfig(weight_config=config, step="prepare"))


# ---------------------------------------------------------------------------------------- BitNet


def tell_bitnet(model):
    """{−1, 0, +1}, as its int8 product takes them: the scale is applied to the output."""
    latents = {n: model.get_submodule(n).weight._data for n in LAYERS}
    return {n: (quantize_bitnet_weight(w, get_bitnet_scale(w)), w) for n, w in latents.items()}


def test_bitnet_training_is_measured_by_the_int8_weights_of_its_products(trained):
    run = trained(lambda: prepared(bitnet_training()), tell_bitnet)
    assert set(run.layers) == set(LAYERS)
    for name, layer in run.layers.items():
        assert (layer["kind"], layer["library"], layer["note"]) == (
            "ternary", "torchao", "one scale",
        )  # fmt: skip
        run.check(name, scale_positive=1.0, alpha_mean=1.0)


# ------------------------------------------------------------------------------------------- QAT


@pytest.mark.parametrize(
    ("dtype", "kwargs", "note"),
    [
        (torch.int2, {"granularity": "per_channel"}, "2 bit, a scale a row"),
        (torch.int2, {"group_size": 32}, "2 bit, a scale a group"),
        (torch.int2, {"group_size": 32, "is_symmetric": False}, "2 bit, a scale a group"),
        (torch.int4, {"group_size": 32}, "4 bit, a scale a group"),
        (torch.int8, {"granularity": "per_channel"}, "8 bit, a scale a row"),
    ],
)
def test_fake_quantized_weights_are_named_for_their_bits(named, dtype, kwargs, note):
    told = ("torchao", "quantized", note)
    assert named(fake_quantized(dtype, **kwargs)) == dict.fromkeys(LAYERS, told)


def test_fake_quantized_training_is_left_alone_and_its_quantizers_are_no_neurons(trained):
    run = trained(fake_quantized(torch.int2, granularity="per_channel"))
    assert {n: x["note"] for n, x in run.layers.items()} == dict.fromkeys(
        LAYERS, "2 bit, a scale a row"
    )
    assert run.tables["weights"].is_empty()
    assert set(run.tables["events"]["layer"]) == {""}


def test_2_bits_stay_2_bits_where_hardly_any_weight_is_on_the_fourth_level(listen):
    """Of uniform weights only the largest of a row may be at −2; the sample has none of them."""
    torch.manual_seed(0)
    layer = nn.Linear(8192, 8)
    quantizer = QATConfig(
        weight_config=IntxFakeQuantizeConfig(torch.int2, "per_channel"), step="prepare"
    )
    model = nn.Sequential(layer)
    quantize_(model, quantizer)
    heard = listen(model)
    model(torch.randn(2, 8192))
    weight = model[0].weight_fake_quantizer(model[0].weight)
    scale = weight.amax(1, keepdim=True)
    assert 0 < (weight < -1.5 * scale).sum() < 8
    assert heard.observers["0"].layer.note == "2 bit, a scale a row"


def test_a_quantizer_that_is_turned_off_leaves_full_precision(listen):
    model = fake_quantized(torch.int2, granularity="per_channel")()
    for name in LAYERS:
        model.get_submodule(name).weight_fake_quantizer.enabled = False
    heard = listen(model)
    model(torch.rand(4, 64))
    assert heard.confirmed == []
    assert {m for _, m in heard.notes} == {
        "its weights are not ternary now (full precision); looked at again later"
    }


# ------------------------------------------------------------------------------------- inference


@pytest.mark.parametrize(
    ("config", "note"),
    [
        (IntxWeightOnlyConfig(torch.int2, PerGroup(32)), "2 bit, a scale a group"),
        (IntxWeightOnlyConfig(torch.int4, PerAxis(0)), "4 bit, a scale a row"),
        (Int8WeightOnlyConfig(), "8 bit, a scale a row"),
    ],
)
@pytest.mark.parametrize("grad", [True, False])
def test_converted_weights_of_its_own_types_are_named_and_left_alone(listen, config, note, grad):
    torch.manual_seed(0)
    model = prepared(config)
    x = torch.rand(4, 64)
    expected = model(x)
    heard = listen(model)
    with torch.set_grad_enabled(grad):
        assert torch.equal(model(x), expected)
    told = {layer.name: (layer.library, layer.note) for layer in heard.confirmed}
    assert told == dict.fromkeys(LAYERS, ("torchao", note))
