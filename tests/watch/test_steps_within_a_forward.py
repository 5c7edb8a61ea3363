"""Truncated backpropagation through time within the model's own forward, and samples cut off."""

import pytest
import torch
from torch import nn

from .little_nets import Spike


N_TIMES, CHUNK, BATCH = 20, 5, 8


class Layer(nn.Module):
    def __init__(self, n_in, n_out):
        super().__init__()
        self.dense, self.n_out = nn.Linear(n_in, n_out), n_out

    def begin(self):
        self.mem = self.spike = torch.zeros(BATCH, self.n_out)

    def cut(self):
        self.mem, self.spike = self.mem.detach(), self.spike.detach()

    def forward(self, x):
        self.mem = 0.8 * self.mem + self.dense(x) - 0.5 * self.spike
        self.spike = Spike.apply(self.mem - 0.5)
        return self.mem, self.spike


class Net(nn.Module):
    """As DH-SNN's: it is given its optimizer."""

    def __init__(self, *, by_hand):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.by_hand = Layer(6, 20), Layer(20, 4), by_hand

    def forward(self, frames, optimizer, chunk=CHUNK):
        layers = (self.a, self.b)
        for layer in layers:
            layer.begin()
        total = 0.0
        for t, x in enumerate(frames):
            for layer in layers:
                x = (layer.forward if self.by_hand else layer)(x)[1]
            total = total + x.square().mean()
            if t % chunk == chunk - 1:
                optimizer.zero_grad()
                total.backward()
                optimizer.step()
                total = 0.0
                for layer in layers:
                    layer.cut()


def train(net, *, n, chunk):
    optimizer = torch.optim.SGD(net.parameters(), 1e-3)
    for _ in range(n):
        net(4 * torch.rand(N_TIMES, BATCH, 6), optimizer, chunk)


@pytest.mark.parametrize("by_hand", [True, False], ids=["layer.forward(x)", "layer(x)"])
def test_steps_that_end_within_the_models_forward_begin_no_sample(watched, stored, by_hand):
    net = Net(by_hand=by_hand)
    watch = watched(net)
    train(net, n=5, chunk=CHUNK)
    watch.close()
    n_steps = 5 * N_TIMES // CHUNK
    rows = stored("SELECT step, n_obs FROM spikes WHERE layer = 'a' ORDER BY step").rows()
    assert rows == [(step, CHUNK * BATCH) for step in range(n_steps)]
    assert stored("SELECT * FROM timing WHERE n_ttfs_pairs > 0").is_empty()
    energy = stored("SELECT n_samples FROM energy WHERE layer = 'b.dense'")["n_samples"]
    assert set(energy) == {None}
    notes = stored("SELECT message FROM events WHERE layer = 'a' AND message LIKE '%step to step%'")
    assert notes.height == 1


@pytest.mark.parametrize("by_hand", [True, False], ids=["layer.forward(x)", "layer(x)"])
def test_one_step_at_the_end_of_the_models_forward_leaves_its_samples_whole(
    watched, stored, by_hand
):
    net = Net(by_hand=by_hand)
    watch = watched(net)
    train(net, n=4, chunk=N_TIMES)
    watch.close()
    got = stored(
        "SELECT step, n_samples, sum_time_steps FROM energy WHERE layer = 'b.dense' ORDER BY step"
    )
    # Whether more steps would come in the first forward pass was not known yet.
    whole = (BATCH, BATCH * N_TIMES)
    assert got.rows() == [(0, None, None), *((step, *whole) for step in (1, 2, 3))]
    assert stored("SELECT * FROM events WHERE message LIKE '%step to step%'").is_empty()
