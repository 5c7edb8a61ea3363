"""transformers' BitNet layers: quantized at each step, ternary as they are, or packed in bytes.

They compile their quantizers. Here that stops at the graphs: to make C++ of them takes seconds.
"""

import contextlib
from functools import partial

import pytest
import torch
from torch import nn
from transformers import BitNetConfig, BitNetForCausalLM
from transformers.integrations.bitnet import (
    AutoBitLinear,
    BitLinear,
    WeightQuant,
    pack_weights,
    replace_with_bitnet_linear,
)
from transformers.utils.quantization_config import BitNetQuantConfig

import spikewatch


# The compiler's own, with and without us.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf"),
]


@pytest.fixture(autouse=True)
def _graphs_only():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    with torch.compiler.set_stance("default", force_backend="eager"):
        yield
    torch._dynamo.reset()


def n_graphs():
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


def online():
    return nn.Sequential(
        nn.Linear(64, 48),
        nn.ReLU(),
        AutoBitLinear(48, 32, online_quant=True),
        nn.ReLU(),
        AutoBitLinear(32, 10, online_quant=True),
    )


def ternary(n_out, n_in):
    return torch.randint(-1, 2, (n_out, n_in)).float()


def offline():
    net = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), AutoBitLinear(48, 10))
    net[2].requires_grad_(False).weight.copy_(ternary(10, 48))
    net[2].weight_scale.fill_(0.3)
    return net


def packed():
    net = nn.Sequential(
        nn.Linear(64, 48), nn.ReLU(), BitLinear(48, 32, bias=True, dtype=torch.float32),
        nn.ReLU(), nn.Linear(32, 10),
    )  # fmt: skip
    net[2].weight.copy_(pack_weights(ternary(32, 48)))
    net[2].weight_scale.fill_(3.0)
    return net


def unpacked(layer):
    """By the definition: the rows of each quarter are two bits further up in the bytes."""
    bits = [layer.weight >> shift & 3 for shift in (0, 2, 4, 6)]
    return torch.cat(bits).float() - 1


def test_weights_quantized_at_each_step_are_measured_as_they_are_multiplied(trained):
    def tell(net):
        weights = {n: net.get_submodule(n).weight for n in ("2", "4")}
        return {n: (WeightQuant.forward(None, w.detach()), w) for n, w in weights.items()}

    run = trained(online, tell)
    assert set(run.layers) == {"2", "4"}
    for name, layer in run.layers.items():
        assert (layer["kind"], layer["library"], layer["note"]) == (
            "ternary", "transformers", "one scale",
        )  # fmt: skip
        run.check(name, alpha_mean=run.told[-2][name][1].abs().mean().item())


def test_weights_that_are_ternary_as_they_are_have_no_latent_ones(trained):
    run = trained(offline, lambda net: {"2": (net[2].weight, None)})
    assert run.layers["2"]["type"] == "AutoBitLinear"
    run.check("2", scale_positive=1.0)
    assert run.rows("weights", "2")[0]["model_ternary_frac"] == 480 / (480 + 64 * 48)


def test_packed_weights_are_seen_unpacked(trained):
    run = trained(packed, lambda net: {"2": (unpacked(net[2]), None)})
    assert (run.layers["2"]["kind"], run.layers["2"]["type"]) == ("ternary", "BitLinear")
    run.check("2")
    n_weights = [64 * 48, 32 * 48, 320]
    assert run.rows("weights", "2")[0]["model_ternary_frac"] == n_weights[1] / sum(n_weights)


@pytest.mark.parametrize("make", [online, packed])
def test_no_more_is_compiled_than_without_us(tmp_path, make):
    """Whether a step is observed or not."""

    def graphs(watch):
        torch._dynamo.reset()
        before, net, counts = n_graphs(), make(), []
        with watch(net):
            for _ in range(5):
                net(torch.rand(8, 64)).sum().backward()
                counts.append(n_graphs() - before)
        return counts

    bare = graphs(contextlib.nullcontext)
    assert bare[0] > 0
    assert bare == graphs(partial(spikewatch.attach, dir=tmp_path, every=2, quiet=True))


def test_a_bitnet_model_is_watched_layer_by_layer(listen):
    torch.manual_seed(0)
    config = BitNetConfig(
        vocab_size=48, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2,
        pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    model = BitNetForCausalLM(config)
    weights = model.state_dict()
    how = BitNetQuantConfig(linear_class="autobitlinear", quantization_mode="online")
    replace_with_bitnet_linear(model, modules_to_not_convert=["lm_head"], quantization_config=how)
    model.load_state_dict(weights, assign=True)
    heard, tokens = listen(model), torch.randint(0, 48, (2, 12))
    model(tokens, labels=tokens).loss.backward()
    layers = {n: m for n, m in model.named_modules() if isinstance(m, AutoBitLinear)}
    assert {x.name for x in heard.confirmed if x.kind == "ternary"} == set(layers)
    assert len(layers) == 14
    for name, layer in layers.items():
        quantized = WeightQuant.forward(None, layer.weight.detach())
        counted = heard.tables(name)["weights"]
        assert counted["n_weight_zero"] == (quantized == 0).sum()
        assert counted["n_weight_positive"] == (quantized > 0).sum() > 0
