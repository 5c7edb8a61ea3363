"""Operations of the products that a module makes by itself: against plain loops."""

import itertools

import pytest
import snntorch as snn
import torch
from spikingjelly.activation_based import layer, neuron, surrogate
from torch import nn
from torch.nn import functional

import spikewatch


def energy_of(listen, module, *inputs):
    """Counters by layer, of one step."""
    net = nn.ModuleDict({"own": module, "lif": snn.Leaky(beta=0.9)})
    heard = listen(net)
    for x in inputs:
        module(*x) if isinstance(x, tuple) else module(x)
    rows = {}
    for name, observer in heard.synapses.items():
        counts = observer.flush("train" if torch.is_grad_enabled() else "eval")
        if counts is not None:
            rows |= {name: counts, **{name + s: c for s, c in counts.sites.items()}}
    fold = [(name, counts.tables["energy"]) for name, counts in rows.items() if counts.tables]
    return {
        name: {k: v for (reading,) in [table.values()] for k, v in
               reading.fold(reading.readings.tolist()).items()}
        for name, table in fold
    }  # fmt: skip


def spikes(*shape, rate=0.3, height=1.0):
    return height * torch.bernoulli(torch.full(shape, rate))


def pairs_by_loops(a, b):
    """Products of the rows of two stacks (n, rows, width): all, and those of nonzero a, and b."""
    n = of_a = of_b = 0
    for x, y in zip(a, b, strict=True):
        for p, q in itertools.product(x, y):
            for u, v in zip(p.tolist(), q.tolist(), strict=True):
                n, of_a, of_b = n + 1, of_a + (u != 0), of_b + (v != 0)
    return n, of_a, of_b


class Scores(nn.Module):
    """Q Kᵀ, written in one of many ways."""

    def __init__(self, way):
        super().__init__()
        self.way = way

    def forward(self, q, k):
        if self.way == "@":
            return q @ k.transpose(-1, -2)
        if self.way == "matmul":
            return torch.matmul(q, k.transpose(-1, -2))
        if self.way == "method":
            return q.matmul(k.mT)
        if self.way == "baddbmm":
            return torch.baddbmm(torch.zeros(1), q, k.mT)
        if self.way == "einsum":
            return torch.einsum("bnd,bmd->bnm", q, k)
        if self.way == "einsum...":
            return torch.einsum("...nd, ...md", [q, k])
        return torch.bmm(q, k.mT)


WAYS = ["@", "matmul", "method", "baddbmm", "einsum", "einsum...", "bmm"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("driven_by", ["query", "key", "neither"])
def test_a_product_of_activations_is_driven_by_the_spikes_of_one_side(listen, way, driven_by):
    torch.manual_seed(0)
    q, k = torch.randn(2, 3, 4), torch.randn(2, 5, 4)
    if driven_by == "query":
        q = spikes(2, 3, 4, height=0.7)
    if driven_by == "key":
        k = spikes(2, 5, 4)
    n, of_q, of_k = pairs_by_loops(q, k)
    row = energy_of(listen, Scores(way), (q, k))["own"]
    assert row["n_dense_macs"] == n
    assert row["n_outputs"] == 2 * 3 * 5
    expected = {"query": (of_q, 0), "key": (of_k, 0), "neither": (0, n)}[driven_by]
    assert (row["n_sops"], row["n_macs"]) == expected


def test_of_two_spiking_sides_the_one_drives_that_reaches_less(listen):
    torch.manual_seed(0)
    q, k = spikes(2, 3, 4, rate=0.6), spikes(2, 5, 4, rate=0.2)
    _, _, of_k = pairs_by_loops(q, k)
    row = energy_of(listen, Scores("@"), (q, k))["own"]
    assert (row["n_sops"], row["n_macs"]) == (of_k, 0)
    assert (row["n_inputs"], row["n_nonzero_inputs"]) == (k.numel(), k.count_nonzero())


def test_a_side_that_is_repeated_counts_as_often_as_it_is_used(listen):
    torch.manual_seed(0)
    q, k = spikes(2, 3, 5, 4), torch.randn(1, 3, 6, 4)
    row = energy_of(listen, Scores("@"), (q, k))["own"]
    assert row["n_dense_macs"] == 2 * 3 * 5 * 6 * 4
    assert row["n_sops"] == q.count_nonzero() * 6


class Attention(nn.Module):
    def forward(self, q, k, v):
        return functional.scaled_dot_product_attention(q, k, value=v)


def test_attention_of_one_function_is_two_products(listen):
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 3, 4), torch.randn(2, 5, 4), spikes(2, 5, 6)
    row = energy_of(listen, Attention(), (q, k, v))["own"]
    assert row["n_macs"] == 2 * 3 * 5 * 4
    assert row["n_sops"] == v.count_nonzero() * 3
    assert row["n_dense_macs"] == 2 * 3 * 5 * (4 + 6)
    assert row["n_outputs"] == 2 * 3 * 5 + 2 * 3 * 6


def test_the_attention_of_spikingjelly_is_counted_and_its_neurons_own_products_are_not(listen):
    torch.manual_seed(0)
    attention, sides = layer.SpikingSelfAttention(16, 2), []
    nn.init.ones_(attention.qkv_conv_bn[1].bias)  # so that they fire
    attention.qkv_lif.register_forward_hook(lambda *call: sides.append(call[2].detach()))
    rows = energy_of(listen, attention, 3 * spikes(4, 2, 16, 9))
    assert set(rows) == {"own", "own.qkv_conv_bn.0", "own.proj_conv_bn.0"}
    q, k, v = sides[0].reshape(4, 2, 3, 2, 8, 9).unbind(2)  # [T, B, heads, C, L]
    of_v, of_k = v.count_nonzero() * 8, k.count_nonzero() * 8
    # v kᵀ are counts of several sizes, so that q drives what they are multiplied with.
    assert (v @ k.mT).unique().numel() > 2
    assert rows["own"]["n_sops"] == min(of_v, of_k) + q.count_nonzero() * 8 > 0
    assert rows["own"]["n_macs"] == 0
    assert rows["own"]["n_dense_macs"] == 2 * 4 * 2 * 2 * 8 * 8 * 9
    neurons = neuron.PSN(T=4, surrogate_function=surrogate.ATan())
    assert energy_of(listen, neurons, torch.randn(4, 2, 3)) == {}


class Rounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w):
        return w.sign() * (w.abs() > 0.3)

    @staticmethod
    def backward(ctx, gradient):
        return gradient


class ByHand(nn.Module):
    """Keeps weights, and multiplies with them by itself."""

    def __init__(self, way, *shape):
        super().__init__()
        self.weight, self.way = nn.Parameter(torch.randn(*shape)), way

    def forward(self, x):
        w = Rounded.apply(self.weight)
        if self.way == "linear":
            return functional.linear(x, w)
        if self.way == "@":
            return x @ w.t()
        if self.way == "einsum":
            return torch.einsum("bi,oi->bo", x, w)
        return functional.conv2d(x, w, stride=2, padding=1, groups=2)


@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("way", ["linear", "@", "einsum"])
def test_weights_that_a_module_multiplies_with_by_itself_are_counted(listen, way, trained):
    torch.manual_seed(0)
    x = spikes(7, 6)
    with torch.set_grad_enabled(trained):
        row = energy_of(listen, ByHand(way, 5, 6), x)["own"]
    assert row["n_dense_macs"] == 7 * 6 * 5
    assert (row["n_sops"], row["n_macs"]) == (x.count_nonzero() * 5, 0)
    assert (row["n_inputs"], row["n_outputs"], row["n_leading"]) == (42, 35, 7)


def test_a_convolution_by_hand_is_that_of_a_layer(listen):
    torch.manual_seed(0)
    x = spikes(3, 4, 5, 5)
    row = energy_of(listen, ByHand("conv2d", 6, 2, 3, 3), x)["own"]
    layer = nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2)
    heard = listen(nn.Sequential(layer, snn.Leaky(beta=0.9)))
    layer(x)
    assert row == heard.tables("0")["energy"]


def test_each_weight_of_a_module_has_a_row_of_its_own(listen):
    class Cell(nn.Module):
        def __init__(self):
            super().__init__()
            self.w_in = nn.Parameter(torch.randn(8, 4))
            self.w_rec = nn.Parameter(torch.randn(8, 8))

        def forward(self, x):
            h = torch.zeros(len(x), 8)
            for t in range(x.shape[1]):
                h = torch.tanh(functional.linear(x[:, t], self.w_in) + h @ self.w_rec.t())
            return h

    rows = energy_of(listen, Cell(), spikes(4, 5, 4))
    assert set(rows) == {"own.w_in", "own.w_rec"}
    assert rows["own.w_in"]["n_dense_macs"] == 4 * 5 * 4 * 8
    assert rows["own.w_rec"]["n_dense_macs"] == 4 * 5 * 8 * 8


class Borrows(nn.Module):
    """Uses its part's weight by hand, or calls the part, or only looks at the weight."""

    def __init__(self, way):
        super().__init__()
        self.part, self.way = nn.Linear(6, 5), way

    def forward(self, x):
        if self.way == "by hand":
            return functional.linear(x, self.part.weight.sign())
        return self.part(x) + self.part.weight.mean()


@pytest.mark.parametrize("way", ["by hand", "called"])
@pytest.mark.parametrize("trained", [True, False])
def test_a_parts_weight_is_counted_once(listen, way, trained):
    with torch.set_grad_enabled(trained):
        rows = energy_of(listen, Borrows(way), spikes(7, 6))
    assert {n: r["n_dense_macs"] for n, r in rows.items()} == {"own.part": 7 * 6 * 5}


def test_experts_in_one_tensor_are_weights_of_the_module(listen):
    class Experts(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(3, 6, 5))

        def forward(self, x):
            return torch.bmm(x, Rounded.apply(self.weight))

    x = spikes(3, 7, 6)
    row = energy_of(listen, Experts(), x)["own"]
    assert row["n_sops"] == x.count_nonzero() * 5
    assert row["n_dense_macs"] == 3 * 7 * 6 * 5
    assert row["n_leading"] == 0  # there are three experts, not three samples


def test_a_block_around_attention_counts_nothing_twice(listen):
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.out = Scores("@"), nn.Linear(5, 5)

        def forward(self, q, k):
            scores = self.out(self.inner(q, k))
            return scores @ scores.mT

    rows = energy_of(listen, Block(), (spikes(2, 3, 4), spikes(2, 5, 4)))
    dense = {name: row["n_dense_macs"] for name, row in rows.items()}
    assert dense == {"own.inner": 2 * 3 * 5 * 4, "own.out": 2 * 3 * 5 * 5, "own": 2 * 3 * 3 * 5}


def test_a_layer_within_may_have_no_shape_yet(listen):
    class Lazy(nn.Module):
        def __init__(self):
            super().__init__()
            self.part = nn.LazyLinear(5)

        def forward(self, x):
            return self.part(x) @ x.mT

    rows = energy_of(listen, Lazy(), spikes(2, 5, 5))
    assert {name: r["n_dense_macs"] for name, r in rows.items()} == {"own": 250, "own.part": 250}


def test_a_run_counts_attention_and_additions_of_ternary_weights(tmp_path):
    torch.manual_seed(0)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.scores = ByHand("linear", 16, 6), Scores("@")

        def forward(self, x):
            return self.scores(self.first(x), self.first(x))

    net = Net()
    watch = spikewatch.attach(net, dir=tmp_path, every=1)
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    zero = float((net.first.weight.abs() <= 0.3).float().mean())
    net(torch.randn(7, 3, 6)).sum().backward()
    optimizer.step()
    watch.close()
    store = spikewatch.open_store(tmp_path)
    rows = {r["layer"]: r for r in store.sql("SELECT * FROM energy").iter_rows(named=True)}
    assert rows["scores"]["n_macs"] == 7 * 3 * 3 * 16
    assert rows["first"]["n_macs"] == 0
    assert rows["first"]["n_additions"] == pytest.approx(2 * 7 * 3 * 6 * 16 * (1 - zero))
