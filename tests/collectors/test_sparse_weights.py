"""Weights in sparse tensors: their operations are counted, and what is not is told of."""

import pytest
import torch
from torch import nn

from .own_neurons import Heaviside


N_IN, N_OUT = 8, 6


def entries():
    torch.manual_seed(0)
    return (torch.rand(N_OUT, N_IN) < 0.3).nonzero().T.contiguous()


class SparseConn(nn.Module):
    """As btorch has it: the entries are a parameter, and their places do not change."""

    def __init__(self, multiply):
        super().__init__()
        self.in_features, self.out_features, self.kind = N_IN, N_OUT, [multiply]
        self.register_buffer("places", entries())
        self.magnitude = nn.Parameter(torch.rand(self.places.shape[1]))

    def forward(self, x):
        weight = torch.sparse_coo_tensor(
            self.places, self.magnitude, (N_OUT, N_IN), check_invariants=True
        )
        return self.kind[0](weight, x)


WAYS = {
    "sparse.mm": lambda w, x: torch.sparse.mm(w, x.T).T,
    "mm": lambda w, x: torch.mm(w, x.T).T,
    "@": lambda w, x: (w @ x.T).T,
    "sparse.addmm": lambda w, x: torch.sparse.addmm(torch.zeros(N_OUT, len(x)), w, x.T).T,
    "weight behind": lambda w, x: x @ w.t(),
}


@pytest.mark.parametrize("how", WAYS)
def test_an_input_reaches_as_many_outputs_as_it_has_entries(listen, how):
    spikes = []
    act = Heaviside()
    act.register_forward_hook(lambda _m, _x, out: spikes.append(out.detach()))
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, N_IN), act, SparseConn(WAYS[how]))
    heard = listen(net)
    net(torch.randn(5, 4)).sum().backward()
    row = heard.tables("2")["energy"]
    each = torch.bincount(entries()[1], minlength=N_IN)
    assert row["n_sops"] == (spikes[0].sum(0) * each).sum() > 0
    assert row["n_dense_macs"] == 5 * entries().shape[1]
    assert row["n_outputs"] == 5 * N_OUT


class Gathers(SparseConn):
    """Multiplies entry by entry, which nobody sees."""

    def forward(self, x):
        out, inputs = self.places
        return torch.zeros(len(x), N_OUT).index_add(1, out, x[:, inputs] * self.magnitude)


def test_a_layer_of_which_no_product_is_seen_is_told_of(listen):
    net = nn.Sequential(nn.Linear(4, N_IN), Heaviside(), Gathers(None))
    heard = listen(net)
    net(torch.randn(5, 4)).sum().backward()
    assert "energy" not in heard.tables("2")
    assert [m for name, m in heard.notes if name == "2" and "missing in the energy" in m]


class Embeds(nn.Module):
    """Has a weight that it adds, and no sizes: nothing is missing of it."""

    def __init__(self):
        super().__init__()
        self.position = nn.Parameter(torch.zeros(5, N_IN))

    def forward(self, x):
        return x + self.position


def test_of_a_layer_that_multiplies_nothing_nothing_is_told(listen):
    net = nn.Sequential(nn.Linear(4, N_IN), Embeds(), Heaviside())
    heard = listen(net)
    net(torch.randn(5, 4)).sum().backward()
    assert "energy" not in heard.tables("1")
    assert heard.notes == []
