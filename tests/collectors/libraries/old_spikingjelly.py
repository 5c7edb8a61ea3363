"""A training with SpikingJelly 0.0.0.0.14 or 0.0.0.0.12, run by test_old_spikingjelly.py.

Prints, as JSON, what spikewatch found and what the training itself counted.
"""

import importlib
import json
import sys

import torch
from torch import nn

from spikewatch.collectors.recognise import find_spiking
from spikewatch.collectors.surrogate import local_derivative, surrogate_nodes


package = importlib.import_module(f"spikingjelly.{sys.argv[1]}")
neuron, surrogate, functional = (
    importlib.import_module(f"{package.__name__}.{part}")
    for part in ("neuron", "surrogate", "functional")
)
old = sys.argv[1] == "clock_driven"


def make(*, whole: bool) -> nn.Module:
    """Two layers, of single steps or of whole sequences."""
    atan = surrogate.ATan()
    if whole and old:
        nodes = [neuron.MultiStepLIFNode(surrogate_function=atan, backend="torch")]
        nodes += [neuron.MultiStepParametricLIFNode(surrogate_function=atan, backend="torch")]
    else:
        step = {} if old else {"step_mode": "m" if whole else "s"}
        nodes = [neuron.LIFNode(surrogate_function=atan, v_reset=None, **step)]
        nodes += [neuron.ParametricLIFNode(init_tau=4.0, surrogate_function=atan, **step)]
    return nn.Sequential(nn.Linear(6, 5), nodes[0], nn.Linear(5, 4), nodes[1])


def train(net: nn.Module, *, whole: bool) -> dict[str, object]:
    """Three steps; every call of the first neuron is asked about."""
    (found, second) = find_spiking(net, named={})
    library, starts, spikes, slopes, expected, potentials = found.library, [], [], [], [], []

    def before(layer, args, kwargs):
        starts.append(library.starts_sample(layer, args, kwargs))

    def after(layer, args, out):
        spikes.append(out.detach())
        for node in surrogate_nodes(out):
            slopes.append(local_derivative(node).sum().item())
            expected.append((1 / (1 + (torch.pi * node.saved_tensors[0]) ** 2)).sum().item())
        membrane = library.membrane(layer, out)
        if membrane.pre_reset:
            saved = surrogate_nodes(out)[-1].saved_tensors[0]
            potentials.append(torch.allclose(membrane.potential, saved + 1, atol=1e-6))

    found.module.register_forward_pre_hook(before, with_kwargs=True)
    found.module.register_forward_hook(after)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    for _ in range(3):
        x = 5 * torch.rand(4, 3, 6)
        out = net(x) if whole else torch.stack([net(frame) for frame in x])
        optimizer.zero_grad()
        out.mean().backward()
        optimizer.step()
        functional.reset_net(net)
    axes = library.axes(found.module, spikes[0])
    told = [library.dynamics(f.module) for f in (found, second)]
    return {
        "library": library.name,
        "axes": axes,
        "starts": starts,
        "n_spikes": sum(s.sum().item() for s in spikes),
        "slopes": sum(slopes),
        "expected_slopes": sum(expected),
        "n_nodes": len(slopes),
        "potentials": potentials,
        "decays": [float(t.decay) for t in told],
        "resets": [t.reset for t in told],
        "surrogate": told[0].surrogate,
        "learnable": [list(t.learnable) for t in told],
    }


torch.manual_seed(0)
figures = [train(make(whole=whole), whole=whole) for whole in (False, True)]
print(json.dumps(figures))  # noqa: T201
