"""Weights that are written anew: into the parameter itself, or into another one beside it."""

import pytest
import torch
from torch import nn
from torch.nn import functional

import spikewatch
from spikewatch.zoo.ttq import TTQLinear


def twn(w):
    rows = w.flatten(1)
    live = rows.abs() > 0.7 * rows.abs().mean(1, keepdim=True)
    scale = (rows.abs() * live).sum(1, keepdim=True) / live.sum(1, keepdim=True)
    return (scale * rows.sign() * live).view_as(w)


class Swap:
    """Quantized weights in plain layers for the time of one step, as XNOR-Net's code has it."""

    def __init__(self, layers, quantize):
        self._weights, self._quantize = [x.weight for x in layers], quantize
        self._kept = []

    def __enter__(self):
        self._kept = [w.data.clone() for w in self._weights]
        for w in self._weights:
            w.data.copy_(self._quantize(w.data))

    def __exit__(self, *_):
        for w, kept in zip(self._weights, self._kept, strict=True):
            w.data.copy_(kept)


class Net(nn.Module):
    """One layer of a user's own, so that there is something to watch, and plain ones."""

    def __init__(self, *, zero=False):
        super().__init__()
        self.first = TTQLinear(16, 24)
        self.a, self.b = nn.Linear(24, 24), nn.Linear(24, 24)
        self.last = nn.Linear(24, 4)
        if zero:
            nn.init.zeros_(self.b.weight)

    def forward(self, x):
        x = self.first(x).relu()
        return self.last((self.a(x) + self.b(x)).relu())


def train(net, run, folder, *, swap=None, optimizer=torch.optim.Adam, n_steps=6, **wishes):
    optimizer = optimizer(net.parameters(), 1e-3)
    seen = []
    with spikewatch.attach(net, run=run, dir=folder, every=1, quiet=True, **wishes):
        for _ in range(n_steps):
            optimizer.zero_grad()
            if swap is None:
                net(torch.randn(32, 16)).square().mean().backward()
            else:
                with swap:
                    seen.append({n: p.detach().clone() for n, p in net.named_parameters()})
                    net(torch.randn(32, 16)).square().mean().backward()
            optimizer.step()
    return seen


def layers(store):
    found = store.sql('SELECT layer, arg_max(kind, "at") AS kind FROM layers GROUP BY layer')
    return dict(found.iter_rows())


def test_plain_layers_that_are_ternary_while_the_network_runs_are_seen(tmp_path):
    torch.manual_seed(0)
    net = Net()
    seen = train(net, "x", tmp_path, swap=Swap([net.a], twn))
    store = spikewatch.open_store(tmp_path)
    assert layers(store) == {"first": "ternary", "a": "ternary"}
    zeros = store.sql("SELECT n_weight_zero FROM weights WHERE layer = 'a' ORDER BY step")
    assert zeros["n_weight_zero"].to_list() == [int((s["a.weight"] == 0).sum()) for s in seen]


def test_two_plain_kernels_that_are_binary_while_the_network_runs_are_one_ternary_layer(tmp_path):
    class Twins(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = TTQLinear(16, 24)
            self.conv_1, self.conv_2 = nn.Linear(24, 4), nn.Linear(24, 4)

        def forward(self, x):
            x = self.first(x).relu()
            return self.conv_1(x) + self.conv_2(x)

    torch.manual_seed(0)
    net = Twins()
    train(net, "x", tmp_path, swap=Swap([net.conv_1, net.conv_2], lambda w: 0.1 * w.sign()))
    found = layers(spikewatch.open_store(tmp_path))
    assert found == {
        "first": "ternary",
        "conv_1": "quantized",
        "conv_2": "quantized",
        "conv_1+conv_2": "ternary",
    }


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.SGD])
@pytest.mark.parametrize("zero", [False, True])
def test_plain_layers_in_full_precision_are_left_out(tmp_path, optimizer, zero):
    torch.manual_seed(0)
    train(Net(zero=zero), "x", tmp_path, optimizer=optimizer)
    assert layers(spikewatch.open_store(tmp_path)) == {"first": "ternary"}


def test_plain_layers_are_glanced_at_in_two_steps_and_then_left_alone(tmp_path):
    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), 1e-3)
    with spikewatch.attach(net, run="x", dir=tmp_path, every=1, quiet=True):
        hooks = []
        for _ in range(20):
            net(torch.randn(2, 16)).sum().backward()
            optimizer.step()
            hooks.append(len(net.a._forward_pre_hooks))
    assert hooks[0] == 1
    assert hooks[-1] == 0


def test_a_network_of_plain_layers_alone_is_answered_with_what_to_do(tmp_path):
    net = nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 4))
    with pytest.raises(spikewatch.AttachError, match="quantized="):
        spikewatch.attach(net, dir=tmp_path)
    swap = Swap([net[0]], twn)
    train(net, "x", tmp_path, swap=swap, quantized={"0": lambda layer: layer.weight})
    assert layers(spikewatch.open_store(tmp_path)) == {"0": "ternary"}


class Beside(nn.Linear):
    """Multiplies with a parameter into which the ternary weights are written."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.weight_ternary = nn.Parameter(torch.zeros_like(self.weight))

    def forward(self, x):
        self.weight_ternary.data.copy_(twn(self.weight.data))
        return functional.linear(x, self.weight_ternary, self.bias)


def test_a_latent_weight_is_found_beside_the_one_that_is_multiplied(listen):
    torch.manual_seed(0)
    layer = Beside(40, 30)
    heard = listen(nn.Sequential(layer))
    layer(torch.randn(2, 40)).sum().backward()
    assert [(x.name, x.kind) for x in heard.confirmed] == [("0.weight_ternary", "ternary")]
    assert not heard.notes
    row = heard.flush("0.weight_ternary", "latent")
    assert row["sum_sq_latent"] == pytest.approx(layer.weight.square().sum().item(), rel=1e-5)


def test_the_update_of_latent_weights_that_another_optimizer_has_is_seen(tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 24), nn.Linear(24, 4))
    quantized = net[2].weight
    latent = nn.Parameter(quantized.detach().clone())
    quantized.data = twn(latent.data)
    optimizer = torch.optim.SGD([p for p in net.parameters() if p is not quantized], 0.01)
    behind = torch.optim.Adam([latent], 1e-3)
    updates = []
    with spikewatch.attach(net, dir=tmp_path, every=1, quiet=True, optimizers=[behind]):
        for _ in range(4):
            net(torch.randn(32, 16)).square().mean().backward()
            optimizer.step()
            before, latent.grad = latent.detach().clone(), quantized.grad
            live = quantized.detach() == 0
            delta = (before.abs() * live).amax(1, keepdim=True)
            behind.step()
            updates.append(((latent.detach() - before).abs() / delta).median().item())
            quantized.data = twn(latent.data)
    found = spikewatch.open_store(tmp_path).sql("SELECT update_ratio FROM latent ORDER BY step")
    assert found["update_ratio"].to_list() == pytest.approx(updates, rel=1e-4)
