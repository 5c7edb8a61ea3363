"""What has few levels, and is no ternary layer for that."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from spikewatch.collectors.quantized.levels import judge


class Plain(nn.Linear):
    """A class of a user's own, so that its weights are looked at."""


class Table(nn.Embedding):
    """The same of an embedding."""


class Mask(nn.Linear):
    """Weights {0, α}: each is there or not."""

    def forward(self, x):
        w = self.weight
        q = (w > w.mean()).to(w.dtype) * w.abs().mean()
        return functional.linear(x, w + (q - w).detach(), self.bias)


class CausalMean(nn.Module):
    """A mask, kept as a buffer, that tokens are multiplied with."""

    def __init__(self):
        super().__init__()
        mask = torch.tril(torch.ones(16, 16))
        self.register_buffer("weight_mask", mask / mask.sum(1, keepdim=True))
        self.out = Plain(16, 16)

    def forward(self, x):
        return self.out(self.weight_mask @ x)


def kinds(heard):
    return {x.name: (x.kind, x.note) for x in heard.confirmed}


def steps(heard, net, x, optimizer, *, n=3):
    for step in range(n):
        heard.step = step
        optimizer.zero_grad()
        net(x).square().mean().backward()
        optimizer.step()
        for observer in heard.observers.values():
            observer.flush("train")


@pytest.mark.parametrize("sign", [1, -1])
def test_zeros_and_one_other_value_are_one_bit(sign):
    assert str(judge(sign * torch.eye(50))) == "1 bit, one scale"


def test_few_weights_of_one_sign_by_chance_are_looked_for_their_opposites():
    torch.manual_seed(0)
    weight = torch.zeros(2000, 2000)
    places = torch.randperm(4_000_000)[:6000]
    weight.view(-1)[places] = torch.randn(6000).sign()
    assert judge(weight).form == "ternary"


def test_a_kernel_whose_rows_are_each_of_one_sign_is_ternary():
    rows = torch.eye(8).repeat(1, 4)
    signs = torch.tensor([1.0, -1, 1, -1, 1, -1, 1, -1])
    assert judge(rows * signs[:, None]).form == "ternary"


def test_weights_that_are_there_or_not_are_quantized_and_not_ternary(listen):
    torch.manual_seed(0)
    net = nn.Sequential(Mask(40, 30))
    heard = listen(net)
    net(torch.randn(2, 40)).sum().backward()
    assert kinds(heard) == {"0": ("quantized", "1 bit, one scale")}
    assert heard.flush("0", "weights") is None


def test_a_table_of_one_hot_codes_and_a_layer_that_begins_as_the_identity_are_not_ternary(listen):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.plain, self.own = nn.Embedding(17, 17), Table(17, 17)
            self.linear, self.mine = nn.Linear(17, 17), Plain(17, 17)
            for m in self.children():
                nn.init.eye_(m.weight)

        def forward(self, x):
            return self.mine(self.linear(self.plain(x) + self.own(x)))

    net = Net()
    heard = listen(net)
    assert list(heard.observers) == ["own", "mine"]
    net(torch.randint(17, (4,)))
    assert {kind for kind, _ in kinds(heard).values()} == {"quantized"}


def test_a_mask_that_is_kept_as_a_buffer_is_no_layer(listen):
    net = nn.Sequential(CausalMean())
    heard = listen(net)
    net(torch.randn(3, 16, 16)).sum().backward()
    assert kinds(heard) == {}


@pytest.mark.parametrize("idle", [0, 20])
def test_weights_that_began_at_zero_have_few_levels_after_one_update_of_adam_by_chance(
    listen, idle
):
    torch.manual_seed(0)
    net = nn.Sequential(Plain(40, 30), nn.ReLU(), Plain(30, 4))
    nn.init.zeros_(net[2].weight)
    with torch.no_grad():
        net[0].bias[:idle] = -100  # these neurons are never on, so that some weights stay at 0
    heard = listen(net)
    x = torch.randn(64, 40)
    steps(heard, net, x, torch.optim.Adam(net.parameters(), 1e-3), n=5)
    assert kinds(heard) == {}


def test_a_score_that_only_chooses_which_weights_are_zero_is_not_their_latent_weight(listen):
    class Chosen(nn.Linear):
        """Of weights ±α that stay as they are, learned scores choose the half that counts."""

        def __init__(self):
            super().__init__(40, 30, bias=False)
            self.scores = nn.Parameter(torch.rand(30, 40))
            self.weight = nn.Parameter(0.1 * self.weight.detach().sign(), requires_grad=False)

        def forward(self, x):
            hard = (self.scores > self.scores.median()).float()
            return functional.linear(x, self.weight * (self.scores + (hard - self.scores).detach()))

    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(40, 40), Chosen())
    heard = listen(net)
    net(torch.randn(2, 40)).sum().backward()
    assert kinds(heard) == {"1": ("ternary", "one scale")}


def test_a_latent_weight_of_other_signs_is_none(listen):
    class Rotated(nn.Linear):
        """Ternary are the rotated weights: those that are kept have other signs."""

        def __init__(self):
            super().__init__(64, 64, bias=False)
            self.register_buffer("turn", torch.linalg.qr(torch.randn(64, 64)).Q)

        def forward(self, x):
            w = self.weight @ self.turn
            q = w.sign() * (w.abs() > 0.7 * w.abs().mean())
            return functional.linear(x @ self.turn, w + (q - w).detach())

    torch.manual_seed(0)
    net = nn.Sequential(Rotated())
    heard = listen(net)
    net(torch.randn(2, 64)).sum().backward()
    assert kinds(heard) == {"0": ("ternary", "one scale")}
    assert "n_latent" not in heard.flush("0", "latent")
