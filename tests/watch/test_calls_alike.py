"""Most calls of a loop over time are read as the one before; what differs is told apart."""

import random

import pytest
import snntorch as snn
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


N_STEPS = 25  # far beyond those that have all readings


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.lif = nn.Linear(8, 6), snn.Leaky(beta=0.8, threshold=0.5)
        self.other = nn.Linear(8, 4)

    def forward(self, x, *, n_steps, reentrant=None):
        mem, total = self.lif.init_leaky(), 0

        def one(x, mem):
            return self.lif(self.fc(x), mem)

        for _ in range(n_steps):
            if reentrant is None:
                spikes, mem = one(x, mem)
            else:
                spikes, mem = checkpoint(one, x, mem, use_reentrant=reentrant)
            total = total + spikes
            total = total + self.lif(self.other(x), torch.zeros(()))[0].sum()
            spikes.data.zero_()  # as a user may: what was made is counted, not what it became
        return total


class Apart:
    """What every step holds, heard by plain hooks of the test's own."""

    def __init__(self, net):
        self.net, self.rows, self.squares, self.now = net, [], [], {}
        self.square = 0.0
        net.lif.register_forward_hook(self.hear)

    def hear(self, _module, _args, output):
        spikes = output[0]
        if spikes.requires_grad:
            spikes.register_hook(self.add_square)
        if torch._C._current_graph_task_id() != -1:
            return  # a checkpoint's second pass
        where = (
            "lif" if spikes.shape[1] == 6 else "lif@2",
            "train" if self.net.training else "eval",
        )
        n, size = self.now.get(where, (0, 0))
        self.now[where] = (n + int(spikes.count_nonzero()), size + len(spikes))

    def add_square(self, gradient):
        self.square += gradient.double().square().sum().item()

    def end(self, step):
        self.rows += [(step, *where, *numbers) for where, numbers in self.now.items()]
        self.squares.append(self.square)
        self.now, self.square = {}, 0.0


@pytest.mark.parametrize("seed", range(3))
def test_whatever_differs_from_call_to_call_is_counted_once(seed, watched, stored):
    torch.manual_seed(seed)
    draw, net = random.Random(seed), Net()
    apart, optimizer = Apart(net), torch.optim.SGD(net.parameters(), 0.1)
    watch = watched(net)
    for step in range(N_STEPS):
        if draw.random() < 0.1:
            net.to(draw.choice([torch.float32, torch.float64]))
        like = net.fc.weight
        if draw.random() < 0.3:
            net.eval()
            with torch.no_grad():
                net(torch.randn(draw.choice([2, 5]), 8).to(like), n_steps=draw.choice([1, 4]))
            net.train()
        x = torch.randn(draw.choice([3, 5]), 8).to(like).requires_grad_()
        again = draw.choice([None, None, None, True, False])
        total = net(x, n_steps=draw.choice([1, 2, 5]), reentrant=again)
        optimizer.zero_grad()
        total.square().sum().backward()
        optimizer.step()
        apart.end(step)
    watch.close()
    counted = stored("SELECT step, layer, phase, n_spikes, n_obs FROM spikes ORDER BY ALL")
    assert counted.rows() == sorted(apart.rows)
    assert len(counted) > 2 * N_STEPS  # there were evaluations, too
    squares = stored("SELECT sum(grad_norm ** 2) AS s FROM gradients GROUP BY step ORDER BY step")
    assert squares["s"].to_list() == pytest.approx(apart.squares, rel=1e-5)
