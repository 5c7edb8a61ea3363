"""Readouts whose membrane potential the loss uses, and not the spikes."""

import pytest
import snntorch as snn
import torch
from spikingjelly.activation_based import functional, neuron
from torch import nn

from spikewatch.zoo import LIF


X = torch.full((4, 3, 6), 2.0)  # [T, B, N]


def snntorch_passed(net):
    mem = torch.zeros(3, 6)
    for x in X:
        spikes, mem = net[0](x, mem)
    return spikes, mem


def snntorch_kept(net):
    net[0].reset_mem()
    for x in X:
        spikes = net(x)
    return spikes, net[0].mem


def spikingjelly(net):
    functional.reset_net(net)
    for x in X:
        spikes = net(x)
    return spikes, net[0].v


def spikingjelly_sequence(net):
    functional.reset_net(net)
    return net(X), net[0].v


WAYS = [
    (lambda: snn.Leaky(beta=0.9), snntorch_passed),
    (lambda: snn.Leaky(beta=0.9, init_hidden=True), snntorch_kept),
    (neuron.LIFNode, spikingjelly),
    (lambda: neuron.LIFNode(step_mode="m"), spikingjelly_sequence),
    (lambda: LIF(0.9), snntorch_passed),
]


@pytest.mark.parametrize(("make", "run"), WAYS)
def test_who_is_read_by_the_membrane_is_told_from_who_is_cut_off(listen, make, run):
    net = nn.Sequential(make())
    shift = nn.Parameter(torch.zeros(6))
    net[0].register_forward_pre_hook(lambda _, args: (args[0] + shift, *args[1:]))
    heard = listen(net)

    def row(*, uses):
        spikes, mem = run(net)
        used = {"spikes": spikes, "membrane": mem, "both": spikes + mem, "nothing": shift}[uses]
        used.sum().backward()
        return heard.tables("0")["gradients"]

    seen = {uses: row(uses=uses) for uses in ("nothing", "membrane", "both", "spikes")}
    unused = {uses: (r["n_grad"] == 0, r.get("is_unused")) for uses, r in seen.items()}
    assert unused["nothing"] == (True, None)
    assert unused["membrane"] == (True, 1)
    assert unused["both"] == unused["spikes"] == (False, None)
    assert row(uses="nothing").get("is_unused") is None  # what was told before is told anew
