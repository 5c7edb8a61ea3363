"""Contract 1: a watched training is, bit for bit, the training without us."""

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from .little_nets import NETS, OwnNeuron, build, fit


def state_of(net):
    return [p for p in net.state_dict().values() if isinstance(p, torch.Tensor)]


def assert_same(got, expected):
    assert len(got) == len(expected)
    for a, b in zip(got, expected, strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)


@pytest.mark.parametrize(("name", "every"), [("own", 1), *((name, 3) for name in NETS)])
def test_outputs_gradients_weights_and_random_numbers_are_those_without_us(
    watched, stored, name, every
):
    bare, net = build(name), build(name)
    expected = fit(bare, n_steps=7)
    random = torch.get_rng_state()
    watch = watched(net, every=every)
    got = fit(net, n_steps=7)
    assert torch.equal(torch.get_rng_state(), random)
    assert_same(got, expected)
    assert_same(state_of(net), state_of(bare))
    watch.close()
    rows = stored("SELECT count(*) AS n, count(DISTINCT layer) AS layers FROM spikes")
    assert rows.row(0) == (2 * len(range(0, 7, every)), 2)
    assert stored("SELECT * FROM events WHERE kind = 'fault'").is_empty()


def test_a_stochastic_surrogate_draws_the_trainings_own_numbers(watched, stored):
    """Reading σ′ would draw some of those that the backward pass draws: it is left out."""

    class Noisy(torch.autograd.Function):
        @staticmethod
        def forward(ctx, u):
            return (u > 0.1).to(u.dtype)

        @staticmethod
        def backward(ctx, gradient):
            return gradient * torch.rand_like(gradient)

    class NoisyNeuron(OwnNeuron):
        def forward(self, x):
            return Noisy.apply(x - self.threshold)

    def make():
        return nn.Sequential(build("own"), NoisyNeuron(), nn.Linear(3, 3))

    expected = fit(make(), n_steps=4)
    random, net = torch.get_rng_state(), make()
    watch = watched(net)
    assert_same(fit(net, n_steps=4), expected)
    assert torch.equal(torch.get_rng_state(), random)
    watch.close()
    notes = stored("SELECT layer FROM events WHERE message LIKE '%draws random numbers%'")
    assert notes["layer"].to_list() == ["1"]


def edited(net):
    """Have what `act1` returns changed in place by its caller."""
    act = net.get_submodule("act1")
    kind = type(act)

    class Edited(kind):
        def __call__(self, *args, **kwargs):
            output = kind.__call__(self, *args, **kwargs)  # hooks run in here
            (output[0] if isinstance(output, tuple) else output).mul_(0.5)[0].zero_()
            return output

    act.__class__ = Edited
    return net


@pytest.mark.parametrize("name", NETS)
def test_spikes_may_be_changed_in_place_and_are_counted_before(watched, stored, name):
    """The figures are those of what the layer returned; the caller changes it later."""
    before = []

    def count(_module, _args, output):
        before.append((output[0] if isinstance(output, tuple) else output).count_nonzero())

    expected = fit(edited(build(name)), n_steps=2)
    net = edited(build(name))
    net.get_submodule("act1").register_forward_hook(count)
    watch = watched(net)
    assert_same(fit(net, n_steps=2), expected)
    watch.close()
    got = stored("SELECT n_spikes FROM spikes WHERE layer = 'act1' ORDER BY step")["n_spikes"]
    assert got.sum() == sum(before) > 0


@pytest.mark.parametrize(
    ("name", "dtype"), [("spikingjelly-m", torch.bfloat16), ("own", torch.float64)]
)
def test_a_model_of_another_precision_keeps_it(watched, stored, name, dtype):
    def fit_converted(net):
        net = net.to(dtype)
        optimizer = torch.optim.SGD(net.parameters(), 0.1)
        torch.manual_seed(0)
        told = []
        for _ in range(3):
            scores = net(2 * torch.rand(5, 8, dtype=dtype))
            scores.square().mean().backward()
            optimizer.step()
            told.append(scores.detach())
        return told

    bare, net = build(name), build(name)
    expected = fit_converted(bare)
    watch = watched(net)
    assert_same(fit_converted(net), expected)
    assert_same(state_of(net), state_of(bare))
    watch.close()
    got = stored("SELECT n_obs, n_spikes, mfr FROM spikes")
    assert set(got["n_obs"]) == {20}
    assert stored("SELECT sg_mean FROM gradients")["sg_mean"].null_count() == 0


@pytest.mark.parametrize(
    ("name", "dtype"), [("own", torch.float16), *((name, torch.bfloat16) for name in NETS)]
)
def test_mixed_precision_with_a_scaled_loss_is_the_same(watched, stored, name, dtype):
    def fit_mixed(net):
        optimizer = torch.optim.SGD(net.parameters(), 0.1)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
        torch.manual_seed(0)
        told = []
        for _ in range(3):
            with torch.autocast("cpu", dtype):
                scores = net(2 * torch.rand(5, 8))
                loss = scores.float().square().mean()
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            told += [scores.detach(), torch.tensor(scaler.get_scale())]
        return told

    bare, net = build(name), build(name)
    expected = fit_mixed(bare)
    watch = watched(net)
    assert_same(fit_mixed(net), expected)
    assert_same(state_of(net), state_of(bare))
    watch.close()
    assert stored("SELECT count(*) AS n FROM spikes")["n"].item() == 6


@pytest.mark.parametrize("name", NETS)
def test_what_listens_to_the_users_operations_does_not_hear_ours(watched, name):
    class Ear(TorchFunctionMode):
        def __init__(self):
            super().__init__()
            self.heard = []

        def __torch_function__(self, function, types, args=(), kwargs=None):
            self.heard.append(getattr(function, "__name__", str(function)))
            return function(*args, **(kwargs or {}))

    def heard(net):
        with Ear() as ear:
            fit(net, n_steps=3)
        return ear.heard

    expected, net = heard(build(name)), build(name)
    watched(net)
    assert heard(net) == expected
