"""Functions of the user's that make no spikes, though what they return may pass for some."""

import pytest
import snntorch as snn
import torch
from torch import nn


class Reverse(torch.autograd.Function):
    """Gradient reversal, as domain-adversarial training uses it."""

    @staticmethod
    def forward(ctx, x, strength):
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        return -ctx.strength * gradient, None


class Scale(torch.autograd.Function):
    """The same of a copy."""

    @staticmethod
    def forward(ctx, x, strength):
        ctx.strength = strength
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return ctx.strength * gradient, None


class L2Wrap(torch.autograd.Function):
    """RWKV's, which SpikeGPT has taken over: a loss, whose gradient is told of the logits too."""

    @staticmethod
    def forward(ctx, loss, logits):
        ctx.save_for_backward(logits)
        return loss

    @staticmethod
    def backward(ctx, gradient):
        return gradient, 1e-4 * ctx.saved_tensors[0]


class Applied(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function.apply(x, 1.0)


class Net(nn.Module):
    def __init__(self, *, function, in_module, returns_loss):
        super().__init__()
        self.fc1, self.lif, self.fc2 = nn.Linear(8, 40), snn.Leaky(beta=0.8), nn.Linear(40, 3)
        self.between = Applied(function) if in_module else None
        self.function, self.returns_loss = function, returns_loss

    def forward(self, x, y):
        spikes, _ = self.lif(self.fc1(x), self.lif.init_leaky())
        between = self.between(spikes) if self.between else self.function.apply(spikes, 1.0)
        logits = self.fc2(between)
        loss = nn.functional.cross_entropy(logits, y)
        return L2Wrap.apply(loss, logits) if self.returns_loss else loss


@pytest.mark.parametrize("returns_loss", [False, True])
@pytest.mark.parametrize("in_module", [False, True])
@pytest.mark.parametrize("function", [Reverse, Scale])
def test_what_is_handed_on_and_a_loss_are_no_spikes(
    watched, stored, function, in_module, returns_loss
):
    torch.manual_seed(0)
    net = Net(function=function, in_module=in_module, returns_loss=returns_loss)
    optimizer, watch = torch.optim.Adam(net.parameters()), watched(net)
    for _ in range(12):
        optimizer.zero_grad()
        net(4 * torch.rand(16, 8), torch.randint(0, 3, (16,))).backward()
        optimizer.step()
    watch.close()
    assert stored("SELECT DISTINCT layer FROM spikes")["layer"].to_list() == ["lif"]
    named = stored("SELECT layer FROM layers WHERE kind = 'spiking'")
    assert set(named["layer"]) == {"lif"}
    assert stored("SELECT rule FROM alerts WHERE state = 'firing'").rows() == []
