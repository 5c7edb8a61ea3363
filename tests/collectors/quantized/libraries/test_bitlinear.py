"""bitlinear 2.4: several measures and kernels, λ on the way, other ranges, frozen layers."""

import bitlinear
import pytest
import torch
from bitlinear.bitlinear import scale
from torch import nn


def net_of(**kwargs):
    """Its own way in: ordinary layers are replaced, but for the first one."""

    def make():
        net = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 32), nn.ReLU(),
                            nn.Linear(32, 10))  # fmt: skip
        return bitlinear.bitlinearize(net, replacements=[{"match_name": "[24]", **kwargs}])

    return make


def tell(net):
    """What it multiplies with: not scaled, the scale is applied to the output."""
    told = {}
    for name in ("2", "4"):
        layer = net.get_submodule(name)
        factor = scale(layer.weight, layer.weight_range, layer.weight_measure, False, layer.eps)
        told[name] = ((layer.weight * factor).round().clamp(-1, 1), layer.weight)
    return told


@pytest.mark.parametrize(
    ("measure", "kernel"),
    [
        ("AbsMedian", bitlinear.TorchLinear()),
        ("AbsMean", bitlinear.TorchMulAdd()),
        ("AbsMax", bitlinear.TorchMulAdd()),
    ],
    ids=str,
)
def test_every_measure_and_kernel_is_seen_as_it_multiplies(trained, measure, kernel):
    run = trained(net_of(weight_measure=measure, kernel=kernel), tell)
    assert set(run.layers) == {"2", "4"}
    for name, layer in run.layers.items():
        assert (layer["kind"], layer["library"], layer["note"]) == (
            "ternary", "bitlinear", "one scale",
        )  # fmt: skip
        run.check(name, scale_positive=1.0, scale_negative=1.0, alpha_mean=1.0)


def test_a_stochastic_strategy_draws_the_same_numbers_and_flips_at_random(trained):
    run = trained(net_of(strategy="sample"))
    rows = run.rows("transitions", "2")
    assert run.layers["2"]["kind"] == "ternary"
    assert all(row["flip_rate"] > 0.05 for row in rows[1:])


def test_on_its_way_it_is_said_to_be_and_when_it_arrives_it_is_ternary(listen):
    torch.manual_seed(0)
    net = net_of(lambda_=0.0)()
    heard, stages, kinds = listen(net), [], []
    for heard.step in range(12):
        bitlinear.set_lambda_(net, min(1.0, heard.step / 8))
        net(torch.randn(16, 64)).square().mean().backward()
        stages.append(heard.tables("2")["latent"]["annealing_lambda"])
        kinds.append(heard.observers["2"].layer.kind)
    assert stages == pytest.approx([k / 8 for k in range(9)] + [1.0] * 3)
    assert kinds == ["quantized"] * 8 + ["ternary"] * 4
    notes = [layer.note for layer in heard.confirmed if layer.name == "2"]
    assert notes == ["full precision now: lambda_ = 0", "one scale"]


def test_half_way_is_not_full_precision(listen):
    net = net_of(lambda_=0.5)()
    heard = listen(net)
    net(torch.randn(16, 64))
    assert {layer.note for layer in heard.confirmed} == {
        "on the way from full precision: lambda_ = 0.5"
    }


@pytest.mark.parametrize(("bits", "name"), [(2, "2 bit"), (4, "4 bit"), (8, "8 bit")])
def test_other_ranges_are_named_for_their_bits(named, bits, name):
    """A scale by the median: of 8 bits, half of the weights are beyond the ends."""
    told = ("bitlinear", "quantized", f"{name}, one scale: lambda_ = 1")
    assert named(net_of(weight_range=bits)) == dict.fromkeys(("2", "4"), told)


def test_without_a_measure_its_weights_stay_what_they_are(listen):
    """λ = 1, yet there is nothing that it leads to: only activations are quantized."""
    net = net_of(weight_measure=None)()
    heard = listen(net)
    net(torch.randn(16, 64))
    assert heard.confirmed == []
    assert all("full precision" in message for _, message in heard.notes)
    assert "latent" not in heard.tables("2")


@pytest.mark.parametrize("grad", [True, False])
def test_frozen_layers_have_no_latent_weight_any_more(listen, grad):
    """Their own `weight` is a fresh one that nothing is multiplied with."""
    torch.manual_seed(0)
    net = net_of()()
    weights = {n: q for n, (q, _) in tell(net).items()}
    with torch.set_grad_enabled(grad):
        bitlinear.freeze(net)
        heard = listen(net)
        net(torch.randn(16, 64))
    for name, quantized in weights.items():
        assert heard.observers[name].layer.type == "FrozenBitLinear"
        tables = heard.tables(name, "train" if grad else "eval")
        assert tables["weights"]["n_weight_zero"] == (quantized == 0).sum()
        assert "delta" not in tables["weights"]
        assert "n_latent" not in tables["latent"]
