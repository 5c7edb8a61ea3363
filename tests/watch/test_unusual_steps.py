"""Steps that are not one forward pass, one backward pass and one `optimizer.step()`."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from .little_nets import OwnNeuron, TernaryLinear


class Neuron(OwnNeuron):
    def forward(self, x):
        self.mem = None
        return super().forward(x)


class Fails(nn.Module):
    """As where memory runs out, or a batch is bad."""

    fails = False

    def forward(self, x):
        if self.fails:
            raise RuntimeError("out of memory")
        return x


class SAM(torch.optim.Optimizer):
    """As github.com/davda54/sam has it: neither of its two parts is a `step` of its own."""

    def __init__(self, parameters, base, **kwargs):
        super().__init__(parameters, kwargs)
        self.base_optimizer = base(self.param_groups, **kwargs)
        self.param_groups = self.base_optimizer.param_groups

    def held(self):
        return [p for g in self.param_groups for p in g["params"] if p.grad is not None]

    @torch.no_grad()
    def first_step(self):
        norm = torch.stack([p.grad.norm() for p in self.held()]).norm()
        for p in self.held():
            self.state[p]["old_p"] = p.data.clone()
            p.add_(0.05 * p.grad / norm)
        self.zero_grad()

    @torch.no_grad()
    def second_step(self):
        for p in self.held():
            p.data = self.state[p]["old_p"]
        self.base_optimizer.step()
        self.zero_grad()


class Gan(nn.Module):
    def __init__(self):
        super().__init__()
        self.made = nn.Sequential(nn.Linear(8, 16), Neuron(), nn.Linear(16, 8))
        self.judged = nn.Sequential(nn.Linear(8, 16), Neuron(), nn.Linear(16, 1))


def build(*more):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 6), Neuron(), TernaryLinear(6, 2), *more)


def notes(stored):
    return " ".join(
        stored("SELECT message FROM events WHERE kind = 'note' AND layer = ''")["message"]
    )


def n_obs(stored, layer="1"):
    return stored(f"SELECT step, n_obs FROM spikes WHERE layer = '{layer}' ORDER BY step").rows()


def test_steps_on_gradients_used_before_are_steps_without_a_row_and_nothing_is_said_unseen(
    watched, stored, caplog
):
    net = build()
    watch = watched(net)
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
    for _ in range(5):
        optimizer.zero_grad()
        net(torch.rand(4, 8)).sum().backward()
        optimizer.step()
        optimizer.step()
    watch.close()
    assert watch.step == 10
    assert n_obs(stored) == [(step, 4) for step in range(0, 10, 2)]
    assert "no backward pass has come between" in notes(stored)
    assert not caplog.records


def test_the_two_passes_of_sam_are_samples_of_one_step(watched, stored):
    net = build()
    watch = watched(net)
    optimizer = SAM(net.parameters(), torch.optim.SGD, lr=0.1)
    for _ in range(4):
        x = torch.rand(4, 8)
        net(x).sum().backward()
        optimizer.first_step()
        net(x).sum().backward()
        optimizer.second_step()
    watch.close()
    assert n_obs(stored) == [(step, 8) for step in range(4)]


def train_gan(net, *, n_critic, n_rounds, cut=False):
    torch.manual_seed(0)
    of_maker, of_judge = (torch.optim.SGD(m.parameters(), 1e-3) for m in (net.made, net.judged))
    for _ in range(n_rounds):
        for _ in range(n_critic):
            of_judge.zero_grad()
            fake = net.made(torch.rand(16, 8)).detach()
            (net.judged(fake).mean() - net.judged(torch.rand(16, 8)).mean()).backward()
            of_judge.step()
        of_maker.zero_grad()
        fake = net.made(torch.rand(16, 8))
        if cut:
            fake = (fake - net.made[0].bias.sum()).detach() + net.made[0].bias.sum()
        (-net.judged(fake).mean()).backward()
        of_maker.step()


@pytest.mark.parametrize("every", [2, 3, 6])
def test_a_generator_of_which_no_step_is_observed_is_not_called_detached_and_that_is_told(
    watched, stored, caplog, every
):
    net = Gan()
    watch = watched(net, every=every)
    train_gan(net, n_critic=5, n_rounds=40)
    watch.close()
    rows = stored("SELECT DISTINCT step % 6 FROM spikes").rows()
    assert len(rows) == 6 // every  # every n-th step, and never the sixth
    fired = stored("FROM alerts WHERE rule = 'detached-layer' AND state = 'firing'")
    assert fired.is_empty()
    (told,) = [r.getMessage() for r in caplog.records if "takes turns" in r.getMessage()]
    assert "'made.0.weight'" in told
    assert "'judged.0.weight'" not in told


@pytest.mark.parametrize("every", [1, 7])
def test_a_generator_that_is_cut_off_is_called_detached(watched, stored, caplog, every):
    net = Gan()
    watch = watched(net, every=every)
    train_gan(net, n_critic=5, n_rounds=20 * every, cut=True)
    watch.close()
    fired = stored("SELECT layer FROM alerts WHERE rule = 'detached-layer' AND state = 'firing'")
    assert fired["layer"].unique().to_list() == ["made.1"]
    assert "takes turns" not in caplog.text


def test_a_forward_pass_that_raises_is_not_counted(watched, stored):
    net = build(fails := Fails())
    watch = watched(net)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    for step in range(4):
        x, fails.fails = torch.rand(4, 8), step == 2
        try:
            loss = net(x).sum()
        except RuntimeError:
            fails.fails = False
            loss = net(x[:2]).sum()
        loss.backward()
        optimizer.step()
    watch.close()
    assert n_obs(stored) == [(0, 4), (1, 4), (2, 2), (3, 4)]
    assert "a forward pass raised" in notes(stored)


def test_a_step_in_which_one_of_several_forward_passes_raises_has_no_row(watched, stored):
    net = build(fails := Fails())
    watch = watched(net)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    for step in range(4):
        for part in range(3):
            fails.fails = (step, part) == (2, 1)
            try:
                net(torch.rand(4, 8)).sum().backward()
            except RuntimeError:
                continue
        optimizer.step()
    watch.close()
    assert n_obs(stored) == [(0, 12), (1, 12), (3, 12)]


def test_a_part_that_raises_leaves_its_step_without_a_row(watched, stored):
    net = build(fails := Fails())
    watch = watched(net)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    for step in range(4):
        for fails.fails in (step == 2, False):
            x = torch.rand(4, 8)
            try:
                for part in net:
                    x = part(x)
                x.sum().backward()
            except RuntimeError:
                continue
        optimizer.step()
    watch.close()
    assert n_obs(stored) == [(0, 8), (1, 8), (3, 8)]


def test_a_batch_of_an_evaluation_that_raises_is_not_counted(watched, stored):
    net = build(fails := Fails())
    watch = watched(net)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    net(torch.rand(4, 8)).sum().backward()
    optimizer.step()
    with torch.no_grad():
        for fails.fails in (True, False):
            try:
                net(torch.rand(6, 8))
            except RuntimeError:
                continue
    net(torch.rand(4, 8)).sum().backward()
    optimizer.step()
    watch.close()
    rows = stored("SELECT phase, n_obs FROM spikes WHERE layer = '1' ORDER BY phase, step").rows()
    assert rows == [("eval", 6), ("train", 4), ("train", 4)]


def test_a_checkpoint_that_stops_its_second_pass_early_has_not_raised(watched, stored):
    net = build()
    watch = watched(net)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    for _ in range(3):
        checkpoint(net, torch.rand(4, 8), use_reentrant=False).sum().backward()
        optimizer.step()
    watch.close()
    assert n_obs(stored) == [(step, 4) for step in range(3)]
    assert "raised" not in notes(stored)


def test_a_pass_within_the_handling_of_an_exception_has_not_raised(watched, stored):
    net = build()
    watch = watched(net)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    for _ in range(3):
        try:
            raise ValueError("a bad batch")
        except ValueError:
            net(torch.rand(4, 8)).sum().backward()
        optimizer.step()
    watch.close()
    assert n_obs(stored) == [(step, 4) for step in range(3)]
