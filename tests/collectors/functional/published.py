"""Little networks in the styles in which spiking networks are published without a library."""

import torch
from torch import nn


THRESH, DECAY, LENS = 0.3, 0.5, 0.5
thresh, decay = THRESH, DECAY


class ActFun(torch.autograd.Function):
    """As in STBP (Wu et al. 2018): the distance from the threshold is saved."""

    @staticmethod
    def forward(ctx, input):
        ctx.save_for_backward(input)
        return input.gt(0.0).float()

    @staticmethod
    def backward(ctx, grad_output):
        (input,) = ctx.saved_tensors
        return grad_output.clone() * (input.abs() < LENS).float()


class Apart(torch.autograd.Function):
    """Forward and context apart, as torch.func wants it; the potential itself is saved."""

    @staticmethod
    def forward(potential):
        return potential.gt(thresh).float()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, gradient):
        (potential,) = ctx.saved_tensors
        return gradient * ((potential - thresh).abs() < LENS).float()


act_fun = ActFun.apply  # bound early, as everybody does


def mem_update(layer, inputs, spike, mem):
    mem = mem * (1 - spike) * decay + layer(inputs)
    return act_fun(mem - thresh), mem


class Written(nn.Module):
    """A call for each layer, in a loop over time; the rates are returned."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(6, 9), nn.Linear(9, 4)

    def forward(self, x, n_steps=5):
        mem1 = spike1 = torch.zeros(len(x), 9)
        mem2 = spike2 = total = torch.zeros(len(x), 4)
        for _ in range(n_steps):
            spike1, mem1 = mem_update(self.fc1, x, spike1, mem1)
            spike2, mem2 = mem_update(self.fc2, spike1, spike2, mem2)
            total = total + spike2
        return total / n_steps


class Looped(nn.Module):
    """A loop over layers of one size within a loop over time, from potentials of zero."""

    def __init__(self, n_layers=3):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(n_layers))
        self.act = ActFun.apply

    def forward(self, x, n_steps=5):
        mem = [torch.zeros(len(x), 8) for _ in self.layers]
        for _ in range(n_steps):
            out = x
            for i, layer in enumerate(self.layers):
                spike = self.act(mem[i] - thresh)  # fires on what came in before
                mem[i] = decay * mem[i] * (1 - spike) + layer(out)
                out = spike
        return mem[-1]


class Cell(nn.Module):
    """Called for each time step; its state stands in itself, and comes first in what it returns."""

    def __init__(self, n_in, n_out):
        super().__init__()
        self.fc, self.potential = nn.Linear(n_in, n_out), None

    def forward(self, x):
        last = 0 if self.potential is None else decay * self.potential
        self.potential = last + self.fc(x)
        return self.potential, Apart.apply(self.potential)


class Cells(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = Cell(6, 9), Cell(9, 4)

    def forward(self, x, n_steps=5):
        self.a.potential = self.b.potential = None
        out = 0
        for _ in range(n_steps):
            _, spikes = self.a(x)
            potential, _ = self.b(spikes)
            out = out + potential
        return out


class DroppedOut(nn.Module):
    """A layer with weights, a loop over time and a dropout, as in sparch."""

    def __init__(self, n_in, n_out, p=0.5):
        super().__init__()
        self.W, self.drop = nn.Linear(n_in, n_out), nn.Dropout(p)
        self.threshold, self.spike_fct = thresh, ActFun.apply

    def forward(self, x):
        current, spikes = self.W(x), []
        potential = torch.zeros(len(x), current.shape[2])
        for t in range(x.shape[1]):
            potential = decay * potential + current[:, t]
            spikes.append(self.spike_fct(potential - self.threshold))
        return self.drop(torch.stack(spikes, dim=1))
