"""A network whose layers change while it trains, and what is asked of such a training."""

import sinabs.layers
import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn


class Blocks(nn.Module):
    """Spiking layers on a sequence [T, B, 16], with a head."""

    def __init__(self, widths=(12,)):
        super().__init__()
        self.blocks = nn.ModuleList()
        for n in widths:
            self.grow(n)
        self.head = layer.Linear(widths[-1], 4, step_mode="m")

    def grow(self, n, act=neuron.LIFNode):
        wide = self.blocks[-1][0].out_features if len(self.blocks) else 16
        fc = layer.Linear(wide, n, step_mode="m")
        self.blocks.append(nn.Sequential(fc, act(step_mode="m")))
        if hasattr(self, "head"):
            self.head = layer.Linear(n, 4, step_mode="m")

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.head(x).mean(0)


class MeanOverTime(nn.Module):
    def forward(self, x):
        return x.mean(0)


def fit(net, n_steps, *, change=None, at=4, seed=0, spikes=None):
    """Train; at step `at` the model is changed, and its optimizer made anew."""
    torch.manual_seed(seed)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    losses = []
    for step in range(n_steps):
        if step == at and change is not None:
            change(net)
            functional.invalidate_reset_cache(net)
            optimizer = torch.optim.Adam(net.parameters(), 1e-2)
        x, y = 3 * torch.rand(4, 8, 16), torch.randint(0, 4, (8,))
        loss = nn.functional.cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        functional.reset_net(net)
        for module in net.modules():
            if isinstance(module, sinabs.layers.StatefulLayer):
                module.reset_states()
        losses.append(loss.item())
        if spikes is not None:
            spikes.end()
    return losses


class Spikes:
    """Spikes of layers by step, counted by a plain hook."""

    def __init__(self):
        self.by_step, self._now = [], {}

    def count(self, name, module):
        def hook(_module, _inputs, output):
            self._now[name] = self._now.get(name, 0) + int(output.sum())

        module.register_forward_hook(hook)

    def end(self):
        self.by_step.append(self._now)
        self._now = {}


def hooks_of(module):
    return {
        name: (dict(m._forward_hooks), dict(m._forward_pre_hooks), sorted(vars(m)))
        for name, m in module.named_modules()
    }


def steps_of(stored, table="spikes"):
    rows = stored(f"SELECT layer, step FROM {table} WHERE phase = 'train' ORDER BY step").rows()
    return {name: [s for n, s in rows if n == name] for name, _ in rows}


def notes(stored):
    return " ".join(stored("SELECT message FROM events WHERE kind = 'note'")["message"])
