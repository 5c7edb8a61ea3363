"""A spiking network quantized as in snnTorch's tutorial: brevitas's weights, its own states."""

import brevitas.nn as qnn
import pytest
import snntorch as snn
import torch
from brevitas.quant import SignedTernaryWeightPerTensorConst
from snntorch.functional.quant import state_quant
from torch import nn


N_TIME = 6


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        how = {"bias": False, "weight_quant": SignedTernaryWeightPerTensorConst}
        levels = state_quant(num_bits=2, uniform=True, threshold=1.0)
        self.fc1 = qnn.QuantLinear(64, 40, **how)
        self.lif1 = snn.Leaky(beta=0.9, state_quant=levels)
        self.fc2 = qnn.QuantLinear(40, 10, **how)
        self.lif2 = snn.Leaky(beta=0.9, state_quant=levels)
        self.states = []

    def forward(self, x):
        mem1, mem2, out = self.lif1.init_leaky(), self.lif2.init_leaky(), []
        self.states = []
        for _ in range(N_TIME):
            spk1, mem1 = self.lif1(self.fc1(4 * x), mem1)
            _, mem2 = self.lif2(self.fc2(spk1), mem2)
            self.states.append(mem1.detach())
            out.append(mem2)
        return torch.stack(out).sum(0)


def tell(net):
    layers = {n: net.get_submodule(n) for n in ("fc1", "fc2")}
    return {n: (layer.quant_weight().value, layer.weight) for n, layer in layers.items()}


def test_ternary_weights_and_spikes_are_counted_side_by_side(trained):
    run = trained(Net, tell)
    assert {n: x["kind"] for n, x in run.layers.items()} == {
        "fc1": "ternary", "fc2": "ternary", "lif1": "spiking", "lif2": "spiking",
    }  # fmt: skip
    for name in ("fc1", "fc2"):
        run.check(name, alpha_mean=0.1)
    row = run.rows("spikes", "lif1")[-1]
    assert row["n_obs"] == N_TIME * 32
    assert 0 < row["mfr"] < 1


def test_membranes_on_few_levels_are_read_as_they_are(listen):
    torch.manual_seed(0)
    net = Net()
    heard = listen(net)
    net(torch.rand(16, 64)).sum().backward()
    states = torch.stack(net.states)
    assert states.unique().numel() <= 4
    counted = heard.tables("lif1")["membrane"]
    assert counted["n_membrane"] == states.numel()
    assert counted["sum_z"] == pytest.approx((states - 1).sum().item(), rel=1e-4)
