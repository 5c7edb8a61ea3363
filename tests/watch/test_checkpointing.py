"""Activation checkpointing runs blocks twice; each observation is counted once.

The same figures come out as without checkpoints: events from the first pass, gradients and σ′ from
the one that the backward pass goes through.
"""

import functools

import polars as pl
import pytest
import torch
from torch import nn
from torch.autograd.graph import save_on_cpu
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    checkpoint_sequential,
    create_selective_checkpoint_contexts,
)
from torch.utils.flop_counter import FlopCounterMode

from .little_nets import OwnNeuron, TernaryLinear, build, fit


N_STEPS, BATCH = 4, 5


class Net(nn.Module):
    """Two layers, each over all its time steps, and how its two blocks are run."""

    def __init__(self, run):
        super().__init__()
        self.run = run
        self.fc1, self.act1 = TernaryLinear(8, 6), OwnNeuron()
        self.fc2, self.act2 = nn.Linear(6, 6), OwnNeuron()

    def block(self, fc, act):
        def sequence(x):
            act.mem = None
            return torch.stack([act(fc(frame)) for frame in x])

        return sequence

    def forward(self, x):
        first, second = self.block(self.fc1, self.act1), self.block(self.fc2, self.act2)
        return self.run(first, second, 4 * x)


def plain(first, second, x):
    return second(first(x))


def each(first, second, x, **how):
    return checkpoint(second, checkpoint(first, x, **how), **how)


def only_first(first, second, x, **how):
    return second(checkpoint(first, x, **how))


def nested(first, second, x, **how):
    return checkpoint(lambda x: each(first, second, x, **how), x, **how)


def selective(first, second, x):
    def policy(_context, op, *_args, **_kwargs):
        keep = op == torch.ops.aten.addmm.default
        return CheckpointPolicy.MUST_SAVE if keep else CheckpointPolicy.PREFER_RECOMPUTE

    contexts = functools.partial(create_selective_checkpoint_contexts, policy)
    return checkpoint(
        lambda x: plain(first, second, x), x, use_reentrant=False, context_fn=contexts
    )


def offloaded(first, second, x):
    with save_on_cpu():
        return plain(first, second, x)


def sequential(first, second, x):
    return checkpoint_sequential([first, second], 2, x, use_reentrant=False)


REENTRANT, NOT = {"use_reentrant": True}, {"use_reentrant": False}
WAYS = {
    "reentrant": functools.partial(each, **REENTRANT),
    "non-reentrant": functools.partial(each, **NOT),
    "only the first": functools.partial(only_first, **NOT),
    "nested, reentrant": functools.partial(nested, **REENTRANT),
    "nested, non-reentrant": functools.partial(nested, **NOT),
    "to its end": functools.partial(each, **NOT, early_stop=False),
    "selective": selective,
    "sequential": sequential,
    "offloaded": offloaded,
}


def trained(run):
    torch.manual_seed(0)
    net = Net(run)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)

    def train():
        torch.manual_seed(1)
        weights = torch.arange(1.0, N_STEPS + 1).view(-1, 1, 1)  # gradients differ by time
        for _ in range(3):
            (weights * net(torch.rand(N_STEPS, BATCH, 8, requires_grad=True))).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        return list(net.parameters())

    return net, train


FIGURES = """
    SELECT s.layer, s.step, n_obs, n_spikes, n_grad, grad_norm, grad_time_ratio, n_sg, sg_mean
    FROM spikes AS s JOIN gradients USING (run, layer, step) WHERE run = '{}' ORDER BY ALL
"""


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")  # nested ones
@pytest.mark.parametrize("way", WAYS)
def test_figures_and_training_are_those_without_checkpoints(watched, stored, way):
    rows = {}
    for run, how in (("plain", plain), ("checkpointed", WAYS[way])):
        expected = trained(how)[1]()
        net, train = trained(how)
        watch = watched(net, run=run)
        for got, want in zip(train(), expected, strict=True):
            assert torch.equal(got, want)
        watch.close()
        rows[run] = stored(FIGURES.format(run))
    got, want = rows["checkpointed"], rows["plain"]
    exact = ["layer", "step", "n_obs", "n_spikes", "n_grad", "n_sg"]
    assert got.select(exact).rows() == want.select(exact).rows()
    assert set(want["n_obs"]) == {N_STEPS * BATCH}
    assert want["sg_mean"].null_count() == 0
    for name in ("grad_norm", "grad_time_ratio", "sg_mean"):
        assert got[name].to_list() == pytest.approx(want[name].to_list(), rel=1e-5)


def test_ternary_weights_in_a_checkpoint_are_counted_once_a_step(watched, stored):
    net, train = trained(WAYS["non-reentrant"])
    watch = watched(net)
    train()
    watch.close()
    got = stored("SELECT layer, step, n_weights FROM weights ORDER BY step")
    assert got.rows() == [("fc1", step, 48) for step in range(3)]


def selective_of(block, x, names):
    def policy(_context, op, *_args, **_kwargs):
        keep = op.name().partition(".")[0].partition("::")[2] in names
        return CheckpointPolicy.MUST_SAVE if keep else CheckpointPolicy.PREFER_RECOMPUTE

    contexts = functools.partial(create_selective_checkpoint_contexts, policy)
    return checkpoint(block, x, use_reentrant=False, context_fn=contexts)


conv_selective = functools.partial(selective_of, names=("convolution",))


@pytest.mark.parametrize(
    "names", [("mm", "addmm"), ("abs",), ("sum", "abs"), ("gt", "ne", "mul"), ("sub", "add")]
)
def test_no_operation_of_ours_is_kept_by_a_selective_checkpoint(watched, names):
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.fc1, self.fc2 = nn.Linear(16, 16), TernaryLinear(16, 16)
            self.act1, self.act2 = OwnNeuron(), OwnNeuron()

        def whole(self, x):
            self.act1.mem = self.act2.mem = None
            s = [self.act2(self.fc2(self.act1(self.fc1(x + t)) - 0.1).abs() * 2) for t in range(2)]
            return torch.stack(s).sum(0) + 0.1

        def forward(self, x):
            return selective_of(self.whole, x, names)

    def train(net):
        optimizer = torch.optim.SGD(net.parameters(), 0.1)
        torch.manual_seed(1)
        for _ in range(4):
            net(2 * torch.rand(4, 16)).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        return list(net.parameters())

    expected, net = train(Block()), Block()
    watched(net)
    for got, want in zip(train(net), expected, strict=True):
        assert torch.equal(got, want)


def test_a_mode_hears_nothing_of_attaching(watched):
    class Hears(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            heard.append(func)
            return func(*args, **(kwargs or {}))

    heard, net = [], nn.Sequential(nn.Linear(8, 6), OwnNeuron(), TernaryLinear(6, 3))
    with Hears():
        watched(net)
    assert heard == []


def test_a_counter_of_operations_does_not_count_ours(watched):
    def flops(net):
        net.act.mem = None
        with FlopCounterMode(display=False) as counter:
            net.fc2(net.act(net.fc1(torch.rand(3, 8)))).sum().backward()
        return counter.get_total_flops()

    net = nn.Module()
    net.fc1, net.act, net.fc2 = nn.Linear(8, 6), OwnNeuron(), TernaryLinear(6, 3)
    expected = flops(net)
    watched(net)
    assert [flops(net) for _ in range(3)] == [expected] * 3


@pytest.mark.parametrize("padding", ["zeros", "circular"])
@pytest.mark.parametrize(
    "how",
    [
        functools.partial(checkpoint, **REENTRANT),
        functools.partial(checkpoint, **NOT),
        conv_selective,
    ],
    ids=["reentrant", "non-reentrant", "selective"],
)
def test_a_checkpointed_convolution_trains_as_without_us(watched, stored, how, padding):
    class Convolutions(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            conv = nn.Conv2d(2, 4, 3, padding=1, padding_mode=padding)
            again = nn.Conv2d(4, 3, 3, stride=2, padding_mode=padding)
            self.block = nn.Sequential(conv, OwnNeuron(), again)

        def whole(self, x):
            self.block[1].mem = None
            return self.block(x)

        def forward(self, x):
            return how(self.whole, x)

    def train(net):
        optimizer = torch.optim.SGD(net.parameters(), 0.1)
        torch.manual_seed(1)
        for _ in range(3):
            net(torch.rand(5, 2, 8, 8, requires_grad=True)).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        return list(net.parameters())

    expected, net = train(Convolutions()), Convolutions()
    watch = watched(net)
    for got, want in zip(train(net), expected, strict=True):
        assert torch.equal(got, want)
    watch.close()
    got = stored("SELECT n_dense_macs FROM energy WHERE layer = 'block.0' AND step = 0").item()
    taps = 9 * 64 if padding == "circular" else 22 * 22
    assert got == 5 * 2 * 4 * taps


@pytest.mark.parametrize("how", [REENTRANT, NOT], ids=["reentrant", "non-reentrant"])
def test_a_checkpoint_for_each_time_step_is_run_again_from_the_last_one(watched, stored, how):
    """Blocks are run again in the opposite order; where that is not seen, there is no ratio."""

    class Stepwise(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.act = nn.Linear(8, 6), OwnNeuron()

        def forward(self, x, *, again=True):
            def step(frame):
                if self.act.mem is not None:
                    self.act.mem = self.act.mem.detach()
                return self.act(self.fc(frame))

            self.act.mem = None
            frames = [checkpoint(step, f, **how) if again else step(f) for f in 4 * x]
            return torch.stack(frames)

    weights = torch.arange(1.0, N_STEPS + 1).view(-1, 1, 1)
    ratios = {}
    for again in (False, True):
        net = Stepwise()
        watch = watched(net, run=str(again))
        (
            weights * net(torch.rand(N_STEPS, BATCH, 8, requires_grad=True), again=again)
        ).sum().backward()
        watch.close()
        got = stored(f"SELECT n_grad, grad_time_ratio AS r FROM gradients WHERE run = '{again}'")
        assert got["n_grad"].item() == N_STEPS * BATCH * 6
        ratios[again] = got["r"].item()
    assert ratios[False] == pytest.approx(1 / N_STEPS)
    assert ratios[True] == (None if how is REENTRANT else ratios[False])


@pytest.mark.parametrize("name", ["snntorch-hidden", "spikingjelly-s", "spikingjelly-m", "norse"])
@pytest.mark.parametrize("how", [REENTRANT, NOT], ids=["reentrant", "non-reentrant"])
def test_whole_networks_of_the_libraries_can_be_checkpointed(watched, stored, name, how):
    class Checkpointed(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, x):
            return checkpoint(self.net, x, **how)

    rows = {}
    for run, wrap in (("plain", lambda n: n), ("checkpointed", Checkpointed)):
        net = wrap(build(name))
        for module in net.modules():
            if "Dropout" in type(module).__name__:
                module.p = 0.0  # σ′ is then known everywhere
        watch = watched(net, run=run)
        fit(net, n_steps=2)
        watch.close()
        query = FIGURES.format(run).replace("s.layer", "replace(s.layer, 'net.', '') AS layer", 1)
        rows[run] = stored(query)
    got, want = rows["checkpointed"], rows["plain"]
    exact = ["layer", "step", "n_obs", "n_spikes", "n_grad"]
    assert got.select(exact).rows() == want.select(exact).rows()
    assert got.filter(pl.col("step") == 0)["sg_mean"].to_list() == pytest.approx(
        want.filter(pl.col("step") == 0)["sg_mean"].to_list(), rel=1e-5
    )
