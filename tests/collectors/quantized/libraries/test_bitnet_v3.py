"""bitnet-v3: a layer that begins in full precision and comes to ternary weights over the epochs."""

import math

import pytest
import torch
from bitnet_v3.core.quantization import quantize_weights_158
from bitnet_v3.modules.bitlinear import EnhancedHBitLinear
from torch import nn


def net_of(**kwargs):
    return lambda: nn.Sequential(
        nn.Linear(64, 64), nn.ReLU(), EnhancedHBitLinear(64, 32, **kwargs), nn.Linear(32, 10)
    )


def tell(net):
    return {"2": (quantize_weights_158(net[2].weight), net[2].weight)}


def test_without_its_stages_it_is_ternary_from_the_first_step(trained):
    run = trained(net_of(enable_mpq=False), tell)
    assert set(run.layers) == {"2"}
    layer = run.layers["2"]
    assert (layer["kind"], layer["library"], layer["note"]) == (
        "ternary", "bitnet_v3", "a scale a row",
    )  # fmt: skip
    run.check("2", by_row=True)


def test_before_its_first_epoch_it_is_not_ternary_yet(trained):
    run = trained(net_of())
    assert run.layers == {}
    assert run.notes("2") == [
        "its weights are not ternary now (full precision); looked at again later"
    ]


def test_its_stages_are_followed_to_the_end(listen):
    """What it calls 8 bits has three levels in version 1.0.1: w / max|w| is rounded as it is."""
    torch.manual_seed(0)
    net = net_of()()
    heard, x, told = listen(net), torch.rand(32, 64), {}
    for heard.step, epoch in enumerate((0, 1, 5, 15, 30)):
        net[2].set_epoch(epoch)
        net(x).square().mean().backward()
        tables = heard.tables("2")
        told[epoch] = tables.get("latent", {}).get("annealing_lambda")
    progress = {1: 0, 5: 2 / 19, 15: 12 / 19}  # weights begin two epochs late
    expected = {e: 1 / (1 + math.exp(-10 * p)) for e, p in progress.items()}
    assert told.pop(0) is None
    assert told == pytest.approx({**expected, 30: 1.0}, abs=1e-5)
    assert heard.observers["2"].layer.kind == "ternary"
    assert (net[2].mpq_quantizer(net[2].weight)[0].unique() != 0).sum() == 2
