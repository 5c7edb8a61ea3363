"""First and last layer, and how much of a model is ternary."""

import pytest
import torch
from torch import nn
from torch.nn import functional

import spikewatch
from spikewatch.collectors.quantized.place import places
from spikewatch.zoo.sttn import STTNLinear
from spikewatch.zoo.ternary_linear import EightBitLinear, TernaryLinear, ternarize


def ste(w):
    return w + (ternarize(w) - w).detach()


class Linear(nn.Linear):
    def forward(self, x):
        return functional.linear(x, ste(self.weight), self.bias)


class Table(nn.Embedding):
    def forward(self, tokens):
        return functional.embedding(tokens, ste(self.weight))


class Recurrent(nn.Module):
    """Keeps two matrices, beside layers."""

    def __init__(self):
        super().__init__()
        self.w_in, self.w_rec = (nn.Parameter(torch.randn(8, 8)) for _ in range(2))
        self.b = nn.Parameter(torch.zeros(8))
        self.embedding, self.head = nn.Embedding(10, 8), nn.Linear(8, 10)

    def forward(self, tokens):
        x = self.embedding(tokens)
        h = torch.zeros_like(x[:, 0])
        w_in, w_rec = ste(self.w_in), ste(self.w_rec)
        for token in x.unbind(1):
            h = torch.tanh(token @ w_in.t() + h @ w_rec.t() + self.b)
        return self.head(h)


class Listed(nn.Module):
    """Keeps its matrices in a list, and in a dict within a list."""

    def __init__(self):
        super().__init__()
        self.ws = nn.ParameterList([torch.randn(8, 8) for _ in range(2)])
        self.blocks = nn.ModuleList(
            [nn.ParameterDict({"w": torch.randn(8, 8), "b": torch.ones(8)})]
        )
        self.out = nn.Linear(8, 10)

    def forward(self, x):
        for w in self.ws:
            x = functional.linear(x, ste(w)).relu()
        return self.out(x @ ste(self.blocks[0]["w"]).t() + self.blocks[0]["b"])


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.inner = Table(10, 8), nn.Linear(8, 8)
        self.head = TernaryLinear(8, 10, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens):
        return self.head(self.inner(self.embedding(tokens)))


class Experts(nn.Module):
    """Of three ternary experts the second is called in the first step alone."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(8, 8), nn.Linear(8, 4)
        self.experts, self.n_calls = nn.ModuleList(Linear(8, 8) for _ in range(3)), 0

    def forward(self, x):
        x, self.n_calls = self.first(x), self.n_calls + 1
        used = self.experts if self.n_calls == 1 else self.experts[::2]
        return self.last(sum(expert(x) for expert in used))


def rows(net, folder, *, inputs, n_steps=2):
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    with spikewatch.attach(net, dir=folder, every=1, quiet=True):
        for _ in range(n_steps):
            net(inputs).square().mean().backward()
            optimizer.step()
    with spikewatch.open_store(folder) as store:
        found = store.sql(
            "SELECT layer, step, model_ternary_frac, is_first_layer, is_last_layer, "
            "n_learnable_scales FROM weights ORDER BY step, layer"
        )
    return found.rows(named=True)


def share(found):
    """The one that all rows tell."""
    (told,) = {r["model_ternary_frac"] for r in found}
    return told


def test_the_first_and_the_last_layer_are_known_and_embeddings_are_layers():
    net = nn.ModuleDict(
        {
            "embedding": nn.Embedding(10, 8),
            "norm": nn.LayerNorm(8),
            "inner": TernaryLinear(8, 8),
            "head": EightBitLinear(8, 10),
        }
    )
    found = places(net)
    assert {n: (p.first, p.last) for n, p in found.items()} == {
        "embedding": (True, False),
        "inner": (False, False),
        "head": (False, True),
    }
    assert {p.census.n_weights for p in found.values()} == {224}


def test_matrices_under_other_names_count_and_are_neither_first_nor_last_beside_layers(tmp_path):
    torch.manual_seed(0)
    found = rows(Recurrent(), tmp_path, inputs=torch.randint(10, (4, 5)))
    assert {r["layer"] for r in found} == {"w_in", "w_rec"}
    assert share(found) == pytest.approx(128 / (128 + 160))
    assert {(r["is_first_layer"], r["is_last_layer"]) for r in found} == {(0, 0)}
    assert {r["n_learnable_scales"] for r in found} == {None}


def test_weights_in_lists_and_dicts_of_parameters_are_layers(tmp_path):
    torch.manual_seed(0)
    found = rows(Listed(), tmp_path, inputs=torch.randn(4, 8))
    assert [r["layer"] for r in found if r["step"] == 1] == ["blocks.0.w", "ws.0", "ws.1"]
    assert share(found) == pytest.approx(192 / (192 + 80))
    assert [r["layer"] for r in found if r["is_first_layer"]] == ["ws.0", "ws.0"]
    assert {r["n_learnable_scales"] for r in found} == {None}


def test_a_weight_that_two_layers_share_counts_once(tmp_path):
    torch.manual_seed(0)
    found = rows(Tied(), tmp_path, inputs=torch.randint(10, (4,)))
    assert [r["layer"] for r in found if r["step"] == 1] == ["embedding", "head"]
    assert share(found) == pytest.approx(80 / 144)


def test_a_layer_that_is_not_called_in_a_step_is_ternary_all_the_same(tmp_path):
    torch.manual_seed(0)
    found = rows(Experts(), tmp_path, inputs=torch.randn(4, 8))
    assert [sum(r["step"] == step for r in found) for step in (0, 1)] == [3, 2]
    assert share(found) == pytest.approx(192 / (192 + 64 + 32))


def test_both_kernels_of_a_pair_are_ternary_weights_of_the_model(tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 8), STTNLinear(8, 8), nn.Linear(8, 4))
    found = rows(net, tmp_path, inputs=torch.randn(4, 8))
    assert {r["layer"] for r in found} == {"1.linear_1+linear_2"}
    assert share(found) == pytest.approx(128 / (128 + 64 + 32))
