"""What is stored of a first step is what plain hooks of our own count in the same step."""

import collections

import pytest
import torch
from torch import nn

from spikewatch.zoo import LIF, ChannelTernarySpike, TernarySpike
from spikewatch.zoo.models import MODELS
from spikewatch.zoo.quantized_linear import QuantizedLinear
from spikewatch.zoo.spike_gpt import BinaryEmbedding
from spikewatch.zoo.spikformer import SpikingSelfAttention
from spikewatch.zoo.training import BATCH, Training


SPIKING = ["digits", "spike-gpt", "spikformer", "equilibrium", "goose"]
NEURONS = (LIF, TernarySpike, ChannelTernarySpike, BinaryEmbedding)


@pytest.fixture(scope="module", name="counted")
def _counted(trained):
    done = {}

    def counted(name):
        if name not in done:
            done[name] = _count(name, trained(name).n_steps)
        return done[name]

    return counted


def _count(name, n_steps):
    """Sums over the first step, by layer; the network as it was in it."""
    torch.manual_seed(0)
    model = MODELS[name]
    train, _ = model.data(seed=0)
    net = model.build()
    Training(net, torch.optim.SGD(net.parameters())).advance(1 / n_steps)
    sums = collections.defaultdict(lambda: collections.defaultdict(float))
    for layer, module in net.named_modules():
        if isinstance(module, NEURONS):
            module.register_forward_hook(_neuron(sums[layer]))
        if isinstance(module, nn.Linear):
            module.register_forward_hook(_weights(sums[layer]))
        if isinstance(module, SpikingSelfAttention):
            sums[layer]["attends"] = 1.0
    inputs, _ = next(train.batches(BATCH, generator=torch.Generator().manual_seed(0)))
    net(inputs)
    return sums


def _neuron(sums):
    def hook(module, args, output):
        spikes = output[0] if isinstance(output, tuple) else output
        sums["calls"] += 1
        sums["slots"] += spikes.numel()
        sums["events"] += spikes.ne(0).sum().item()
        sums["positive"] += spikes.gt(0).sum().item()
        sums["amplitude"] += spikes.abs().double().sum().item()
        if isinstance(module, LIF):
            current, mem = (*args, None)[:2]
            potential = current if mem is None else module.beta * mem + current
            slope = module.surrogate.derivative(potential.detach() - module.threshold)
            sums["slope"] += slope.double().sum().item()
            sums["active"] += (slope > 0.01).sum().item()

    return hook


def _weights(sums):
    def hook(module, args, output):
        sums["inputs"] += args[0].numel()
        sums["nonzero"] += args[0].ne(0).sum().item()
        sums["dense"] += args[0].numel() * module.out_features
        if isinstance(module, QuantizedLinear):
            weight = module.quantized_weight()
            sums["zero_weights"] = weight.eq(0).sum().item()
            sums["positive_weights"] = weight.gt(0).sum().item()
            sums["scale"] = weight[weight > 0].mean().item()

    return hook


def first_row(trained, table, layer):
    rows = trained.tables[table].filter(layer=layer, phase="train").sort("step")
    row = rows.row(0, named=True)
    assert row["step"] == 0
    return row


def layers_with(counted, key):
    return {layer: sums for layer, sums in counted.items() if key in sums}


@pytest.mark.parametrize("name", SPIKING)
def test_spikes_are_those_counted_apart(name, trained, counted):
    layers = layers_with(counted(name), "calls")
    assert set(layers) == trained(name).layers("spikes")
    for layer, sums in layers.items():
        row = first_row(trained(name), "spikes", layer)
        assert row["n_obs"] * row["n_neurons"] == sums["slots"], layer
        assert row["n_spikes"] == sums["events"], layer
        assert row["mfr"] == pytest.approx(sums["events"] / sums["slots"])
        assert row["positive_rate_frac"] == pytest.approx(sums["positive"] / sums["slots"])
        assert row["spike_amplitude"] == pytest.approx(sums["amplitude"] / sums["events"])


@pytest.mark.parametrize("name", ["digits", "spike-gpt", "spikformer"])
def test_surrogate_derivatives_are_those_computed_apart(name, trained, counted):
    layers = layers_with(counted(name), "slope")
    assert layers
    for layer, sums in layers.items():
        row = first_row(trained(name), "gradients", layer)
        assert row["sg_mean"] == pytest.approx(sums["slope"] / sums["slots"], rel=1e-4), layer
        assert row["sg_active_frac"] == pytest.approx(sums["active"] / sums["slots"], abs=1e-3)


@pytest.mark.parametrize("name", SPIKING)
def test_operations_are_those_counted_apart(name, trained, counted):
    layers = layers_with(counted(name), "inputs")
    assert layers
    for layer, sums in layers.items():
        row = first_row(trained(name), "energy", layer)
        assert row["n_inputs"] == sums["inputs"], layer
        assert row["n_nonzero_inputs"] == sums["nonzero"], layer
        assert row["n_dense_macs"] == sums["dense"], layer
        assert row["n_sops"] + row["n_macs"] <= sums["dense"]


def test_operations_of_attention_are_those_counted_apart(trained, counted):
    """Of spikes, the products of Q and K, whichever has fewer, and then those of V."""
    sums = counted("spikformer")
    layers = layers_with(sums, "attends")
    assert layers
    for layer in layers:
        row = first_row(trained("spikformer"), "energy", layer)
        q, k, v = (sums[f"{layer}.{part}.lif"] for part in ("query", "key", "value"))
        n_tokens = 9
        assert row["n_dense_macs"] == 2 * q["slots"] * n_tokens
        assert row["n_sops"] == (min(q["events"], k["events"]) + v["events"]) * n_tokens
        assert row["n_macs"] == 0


@pytest.mark.parametrize("name", ["digits", "twn", "ttq", "lsq", "tequila"])
def test_ternary_weights_are_those_of_the_layer(name, trained, counted):
    for layer in trained(name).layers("weights"):
        sums, row = counted(name)[layer], first_row(trained(name), "weights", layer)
        assert row["n_weight_zero"] == sums["zero_weights"], layer
        assert row["n_weight_positive"] == sums["positive_weights"], layer
        assert row["scale_positive"] == pytest.approx(sums["scale"], rel=1e-4), layer


def test_samples_and_time_steps_are_those_of_the_batch(trained):
    steps = {"digits": 8, "spike-gpt": 24, "spikformer": 4, "equilibrium": 30, "goose": 8}
    # A current that is the same at each time step, and a readout of the last token.
    once = {"digits": {"encoder"}, "goose": {"readout"}}
    for name, n_steps in steps.items():
        rows = trained(name).tables["energy"].filter(phase="train")
        assert set(rows["n_samples"]) == {BATCH}, name
        is_once = rows["layer"].is_in(once.get(name, set()))
        assert set(rows.filter(~is_once)["sum_time_steps"]) == {BATCH * n_steps}, name
        assert set(rows.filter(is_once)["sum_time_steps"]) == ({BATCH} if name in once else set())
