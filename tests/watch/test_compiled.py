"""torch.compile: no graph break, no more graphs than without us, and nothing silently unseen."""

import time

import pytest
import torch
from torch import nn

import spikewatch
from spikewatch.zoo.digits import DigitsNet

from .little_nets import OwnNeuron


# The compiler's own, with and without us.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf"),
]
N_TRAIN = 8


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.act = nn.Linear(8, 8), OwnNeuron()

    def forward(self, x):
        self.act.mem = None
        return self.act(3 * self.fc(x))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = Block(), Block(), Block()

    def forward(self, x):
        """With a product of its own, as attention has."""
        x = x + 0.1 * (x[None] @ x[None].mT @ x[None])[0]
        return self.c(self.b(self.a(x)))


def compiled(what):
    return torch.compile(what, backend="aot_eager", fullgraph=True)


def whole(net):
    return compiled(net)


def whole_in_place(net):
    net.compile(backend="aot_eager", fullgraph=True)
    return net


def forward_only(net):
    net.forward = compiled(net.forward)
    return net


def block(net):
    net.b = compiled(net.b)
    return net


def block_in_place(net):
    net.b.compile(backend="aot_eager", fullgraph=True)
    return net


def neuron(net):
    net.b.act = compiled(net.b.act)
    return net


def neuron_in_place(net):
    net.b.act.compile(backend="aot_eager", fullgraph=True)
    return net


# What is compiled, and the layers that hooks still see.
WAYS = [
    (whole, ""), (whole_in_place, ""), (forward_only, ""),
    (block, "ac"), (block_in_place, "ac"), (neuron, "ac"), (neuron_in_place, "ac"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def _fresh():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


def trained(prepare, attach=None, *, late=False, n_steps=N_TRAIN):
    """Train; number of graphs after each step, and the weights in the end."""
    torch.manual_seed(0)
    net = Net()
    if attach and not late:
        attach(net)
    call = prepare(net)
    if attach and late:
        attach(net)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    graphs = []
    for _ in range(n_steps):
        call(torch.rand(4, 8)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert not torch._dynamo.utils.counters["graph_break"]
    return graphs, [p.detach() for p in net.parameters()]


def warnings_of(caplog):
    return [r.getMessage() for r in caplog.records if r.name == "spikewatch"]


@pytest.mark.parametrize("late", [False, True], ids=["attached before", "attached after"])
@pytest.mark.parametrize(("way", "seen"), WAYS)
def test_no_more_graphs_than_without_us_and_what_is_not_seen_is_told_once(
    watched, stored, caplog, way, seen, late
):
    """Observers' hooks come and go with each third step."""
    expected, weights = trained(way)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    watches = []
    graphs, got = trained(way, lambda net: watches.append(watched(net, every=3)), late=late)
    assert graphs == expected
    for a, b in zip(got, weights, strict=True):
        assert torch.equal(a, b)
    watches[0].close()
    rows = stored("SELECT layer, step FROM spikes ORDER BY ALL").rows()
    assert rows == [(f"{name}.act", step) for name in seen for step in (0, 3, 6)]
    (warning,) = warnings_of(caplog)
    assert "torch.compile" in warning
    assert ("'b.act': not called" in warning) is bool(seen)
    assert stored("SELECT * FROM events WHERE kind = 'fault'").is_empty()


def test_a_model_that_is_compiled_after_some_steps_is_told_of_too(watched, stored, caplog):
    """Its layers were seen once, and are not any more."""
    watch = None

    def later(net):
        nonlocal watch
        watch = watched(net)
        calls = 0

        def call(x):
            nonlocal calls
            calls += 1
            if calls == 4:
                block_in_place(net)
            return net(x)

        return call

    trained(later)
    watch.close()
    assert len([w for w in warnings_of(caplog) if "'b.act': not called" in w]) == 1
    steps = stored("SELECT step FROM spikes WHERE layer = 'b.act' ORDER BY step")["step"]
    assert steps.to_list() == [0, 1, 2]


def test_graph_breaks_of_the_users_own_stay_as_many(watched, caplog):
    def broken(net):
        def forward(x):
            x = net.a(x)
            torch._dynamo.graph_break()
            return net.c(net.b(x))

        net.forward = forward
        return torch.compile(net, backend="aot_eager")

    def count(attach):
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        net = Net()
        if attach:
            watched(net, every=2)
        call, optimizer = broken(net), torch.optim.SGD(net.parameters(), 0.1)
        for _ in range(5):
            call(torch.rand(4, 8)).sum().backward()
            optimizer.step()
        counters = torch._dynamo.utils.counters
        return counters["stats"]["unique_graphs"], dict(counters["graph_break"])

    bare, with_us = count(attach=False), count(attach=True)
    assert with_us == bare
    assert any("torch.compile" in w for w in warnings_of(caplog))


@pytest.mark.parametrize("how", ["the method", "a function that calls it"])
def test_a_compiled_optimizer_still_ends_steps(watched, stored, how):
    """No hook tells of its steps; the weights' versions do."""
    net = Net()
    watch = watched(net)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    step = torch.compile(
        optimizer.step if how == "the method" else lambda: optimizer.step(), backend="aot_eager"
    )
    for _ in range(4):
        for _ in range(2):  # gradient accumulation
            net(torch.rand(4, 8)).sum().backward()
        step()
        optimizer.zero_grad()
    watch.close()
    rows = stored("SELECT step, n_obs FROM spikes WHERE layer = 'a.act' ORDER BY step").rows()
    assert rows == [(step, 8) for step in range(4)]


def test_a_training_step_that_is_compiled_whole_is_told_while_it_runs(watched, caplog):
    """Not one hook of ours is called; the thread that writes sees the weights change."""
    net = Net()
    watched(net)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)

    @torch.compile(backend="aot_eager")
    def step(x):
        net(x).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    deadline = time.monotonic() + 30
    while not warnings_of(caplog) and time.monotonic() < deadline:
        step(torch.rand(4, 8))
    (warning,) = warnings_of(caplog)
    assert "no forward pass of it is seen" in warning


class Ternary(nn.Linear):
    """Its quantizer, or its whole product, is compiled, as many quantization libraries do it."""

    @staticmethod
    def quantized(w):
        kept = w.abs() > 0.7 * w.abs().mean()
        ternary = torch.where(kept, w.sign(), torch.zeros_like(w)) * w.abs().mean()
        return w + (ternary - w).detach()

    def forward(self, x):
        return nn.functional.linear(x, type(self).quantized(self.weight), self.bias)


class TernaryProduct(Ternary):
    def forward(self, x):
        return type(self).product(x, self.weight, self.bias)

    @staticmethod
    def product(x, w, b):
        return nn.functional.linear(x, Ternary.quantized(w), b)


@pytest.mark.parametrize(("base", "part"), [(Ternary, "quantized"), (TernaryProduct, "product")])
def test_a_compiled_quantizer_is_compiled_no_more_often(watched, stored, caplog, base, part):
    """The function mode that looks at weights is on around it in every step, or in none."""

    def prepare(attach):
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        torch.manual_seed(0)
        kind = type("Quantized", (base,), {part: staticmethod(compiled(getattr(base, part)))})
        net = nn.Sequential(kind(8, 8), nn.ReLU(), kind(8, 8))
        watch = watched(net, every=3) if attach else None
        optimizer = torch.optim.SGD(net.parameters(), 0.1)
        graphs = []
        for _ in range(N_TRAIN):
            net(torch.rand(4, 8)).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
        if watch:
            watch.close()
        return graphs

    assert prepare(attach=True) == prepare(attach=False)
    rows = stored("SELECT layer, step FROM weights ORDER BY ALL").rows()
    if base is Ternary:
        assert rows == [(name, step) for name in "02" for step in (0, 3, 6)]
    else:
        assert not rows
        assert any("ternary weights" in w for w in warnings_of(caplog))


@pytest.mark.parametrize("how", ["trace", "export"])
def test_a_watched_model_can_be_traced_and_exported_and_nothing_of_ours_is_in_it(watched, how):
    def captured(net):
        x = torch.rand(2, 64)
        net.eval()  # batch norm's counter differs between traces
        if how == "trace":
            return str(torch.jit.trace(net, x).graph)
        return str(torch.export.export(net, (x,)).graph)

    torch.manual_seed(0)
    bare = DigitsNet()
    torch.manual_seed(0)
    net = DigitsNet()
    watch = watched(net)
    assert captured(net).count("\n") == captured(bare).count("\n")
    assert watch.step == 0


@pytest.mark.slow
def test_the_inductor_sees_no_difference(watched):
    """Compiled to machine code by the default backend; weights agree bit for bit."""

    def default(net):
        return torch.compile(net, fullgraph=True)

    graphs, weights = trained(default, n_steps=3)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    got_graphs, got = trained(default, watched, n_steps=3)
    assert got_graphs == graphs
    for a, b in zip(got, weights, strict=True):
        assert torch.equal(a, b)


def test_a_tap_in_a_compiled_forward_is_left_out_of_the_graph(watched):
    class Tapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = Block()

        def forward(self, x):
            return spikewatch.tap("tapped", self.block(x))

    net = Tapped()
    watched(net)
    compiled(net)(torch.rand(2, 8)).sum().backward()
    assert not torch._dynamo.utils.counters["graph_break"]
