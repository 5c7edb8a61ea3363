"""Evaluations: a phase of their own, of which whole samples are observed."""

import polars as pl
import pytest
import snntorch as snn
import torch
from snntorch import utils
from torch import nn

import spikewatch
from spikewatch.sampling import Fixed

from .conftest import train


def rows(folder, query):
    with spikewatch.open_store(folder) as store:
        return store.sql(query)


def test_evaluation_is_a_phase_of_its_own(net, tmp_path):
    with spikewatch.attach(net, dir=tmp_path, every=1, quiet=True):
        train(net, n_steps=2)
        net.eval()
        with torch.no_grad():
            for _ in range(3):
                net(torch.rand(5, 16))
        net.train()
        train(net, n_steps=1)
    got = rows(
        tmp_path,
        "SELECT phase, step, n_obs FROM spikes WHERE layer = 'lif1' ORDER BY step, phase",
    )
    assert got.rows() == [
        ("train", 0, 256), ("train", 1, 256), ("eval", 2, 3 * 5 * 8), ("train", 2, 256)
    ]  # fmt: skip


@pytest.mark.parametrize("every", [7, "auto"])
def test_an_evaluation_between_steps_that_are_not_observed_is(net, tmp_path, every):
    def evaluate():
        net.eval()
        with torch.no_grad():
            net(torch.rand(5, 16))
        net.train()

    with spikewatch.attach(net, dir=tmp_path, every=every, quiet=True) as watch:
        train(net, n_steps=11)
        evaluate()
        train(net, n_steps=10)
        assert watch.step == 21
    got = rows(tmp_path, "SELECT step, n_obs FROM spikes WHERE phase = 'eval' AND layer = 'lif1'")
    assert got.rows() == [(11, 5 * 8)]


def test_two_evaluations_in_one_step_make_one_row(net, tmp_path):
    def evaluate():
        net.eval()
        with torch.no_grad():
            net(torch.rand(5, 16))
        net.train()

    with spikewatch.attach(net, dir=tmp_path, every=1, quiet=True):
        train(net, n_steps=1)
        evaluate()
        net(torch.rand(5, 16))  # a training forward whose step is yet to come
        evaluate()
        train(net, n_steps=1)
    got = rows(tmp_path, "SELECT step, n_obs FROM spikes WHERE phase = 'eval' AND layer = 'lif1'")
    assert got.rows() == [(1, 2 * 5 * 8)]


class Stepwise(nn.Sequential):
    """A net that keeps its state, and is called by the loop at each time step."""

    def __init__(self):
        super().__init__(
            nn.Linear(20, 50),
            snn.Leaky(beta=0.9, init_hidden=True),
            nn.Linear(50, 10),
            snn.Leaky(beta=0.9, init_hidden=True),
        )
        torch.manual_seed(0)
        # So that each neuron fires from the second or third time step on, and none before.
        nn.init.uniform_(self[0].weight, 0.05, 0.07)
        nn.init.zeros_(self[0].bias)

    def run(self, n_steps):
        utils.reset(self)
        return sum(self(torch.rand(64, 20)) for _ in range(n_steps))


def train_stepwise(net, *, n_steps, n_time_steps=10):
    optimizer = torch.optim.SGD(net.parameters(), 1e-4)
    net.train()
    for _ in range(n_steps):
        optimizer.zero_grad()
        net.run(n_time_steps).mean().backward()
        optimizer.step()


def evaluate_stepwise(net, *, n_batches, n_time_steps=10):
    """Returns the mean firing rate of the first layer, and how many spikes it has a sample."""
    rates = []
    handle = net[1].register_forward_hook(lambda _m, _a, s: rates.append(s.mean().item()))
    net.eval()
    with torch.no_grad():
        for _ in range(n_batches):
            net.run(n_time_steps)
    handle.remove()
    return sum(rates) / len(rates)


_EVALUATED = """
    SELECT s.step, s.n_obs, s.mfr, s.dead_frac, sum_ttfs_length_steps / n_ttfs_pairs AS length,
        ttfs_censored_frac, n_sops / n_samples AS sops, n_samples
    FROM spikes s LEFT JOIN timing t USING (phase, step, layer)
    LEFT JOIN energy e ON e.phase = s.phase AND e.step = s.step AND e.layer = '2'
    WHERE s.phase = 'eval' AND s.layer = '1' ORDER BY s.step
"""


@pytest.mark.parametrize("every", [3, 10, 25, "auto"])
def test_of_a_model_that_a_loop_over_time_calls_whole_samples_are_evaluated(tmp_path, every):
    net = Stepwise()
    with spikewatch.attach(net, dir=tmp_path, every=every, quiet=True):
        for _ in range(3):
            train_stepwise(net, n_steps=20)
            rate = evaluate_stepwise(net, n_batches=30)
        train_stepwise(net, n_steps=1)
    got = rows(tmp_path, _EVALUATED)
    assert got.height == 3 or (every == "auto" and got.height > 0)  # as time allows
    assert all(n % (64 * 10) == 0 for n in got["n_obs"])
    assert got["mfr"].to_list() == pytest.approx([rate] * got.height, rel=0.02)
    assert set(got["length"].drop_nulls()) == {10.0}
    assert got["ttfs_censored_frac"].max() == 0
    assert got["sops"].drop_nulls().to_list() == pytest.approx(
        [rate * 10 * 50 * 10] * got["sops"].drop_nulls().len(), rel=0.02
    )
    assert got["dead_frac"].drop_nulls().sum() == 0


@pytest.mark.parametrize("every", [7, "auto"])
@pytest.mark.parametrize("n_time_steps", [1, 12, 100])
def test_how_long_a_sample_is_shows_before_the_first_step(tmp_path, every, n_time_steps):
    net = Stepwise()
    optimizer = torch.optim.SGD(net.parameters(), 1e-4)
    with spikewatch.attach(net, dir=tmp_path, every=every, quiet=True):
        rate = evaluate_stepwise(net, n_batches=20, n_time_steps=n_time_steps)
        optimizer.step()
    got = rows(tmp_path, _EVALUATED)
    assert got["n_obs"].item() % (64 * n_time_steps) == 0
    assert got["mfr"].item() == pytest.approx(rate, rel=0.02, abs=1e-9)


@pytest.mark.parametrize("n_batches", [2, 4, 7])
def test_an_evaluation_before_the_optimizer_is_made_leaves_training_its_steps(tmp_path, n_batches):
    net = Stepwise()
    with spikewatch.attach(net, dir=tmp_path, every=1, quiet=True) as watch:
        evaluate_stepwise(net, n_batches=n_batches)
        n = watch.step
        train_stepwise(net, n_steps=4)
        assert watch.step == n + 4
    trained = rows(tmp_path, _EVALUATED.replace("'eval'", "'train'"))
    assert trained.select("step", "n_obs", "length", "n_samples").rows() == [
        (n + i, 640, 10, 64) for i in range(4)
    ]
    assert rows(tmp_path, _EVALUATED)["length"].to_list() == [10] * (n + 1)


@pytest.mark.parametrize("every", [1, 3])
def test_where_nothing_is_trained_each_sample_is_a_step(tmp_path, every):
    net = Stepwise()
    with spikewatch.attach(net, dir=tmp_path, every=every, quiet=True):
        evaluate_stepwise(net, n_batches=10)
    got = rows(tmp_path, _EVALUATED)
    # The first two are one step: that the first is over shows in the second.
    if every == 1:
        assert got.select("step", "n_obs").rows() == [(0, 1280), *((n, 640) for n in range(1, 9))]
    else:
        assert got.select("step", "n_obs").rows() == [(0, 1280), (2, 640), (5, 640), (8, 640)]


def test_what_an_evaluation_costs_before_any_training_is_paid_for_at_once(tmp_path, monkeypatch):
    spent = []
    monkeypatch.setattr(
        Fixed, "spent", lambda _self, s, on_evaluations=0.0: spent.append((s, on_evaluations))
    )
    net = Stepwise()
    with spikewatch.attach(net, dir=tmp_path, every=1, quiet=True):
        evaluate_stepwise(net, n_batches=2)
        assert sum(s for s, _ in spent) == sum(s for _, s in spent) > 0


@pytest.mark.parametrize("every", [3, 10])
def test_samples_are_whole_where_training_steps_at_each_time_step(tmp_path, every):
    net = Stepwise()
    with spikewatch.attach(net, dir=tmp_path, every=every, quiet=True):
        for _ in range(2):
            train_stepwise(net, n_steps=30, n_time_steps=1)
            rate = evaluate_stepwise(net, n_batches=12, n_time_steps=6)
    got = rows(tmp_path, _EVALUATED)
    assert all(n % (6 * 64) == 0 for n in got["n_obs"])
    assert got["mfr"].to_list() == pytest.approx([rate] * 2, rel=0.02)
    assert set(got["length"].drop_nulls()) == {6}


def test_what_an_evaluation_takes_is_found_out_once(tmp_path, net):
    with spikewatch.attach(net, dir=tmp_path, every=10, quiet=True):
        for _ in range(2):
            train(net, n_steps=1)
            with torch.no_grad():
                for _ in range(21):
                    net(torch.rand(5, 16))
    got = rows(tmp_path, "SELECT n_obs FROM spikes WHERE phase = 'eval' AND layer = 'lif1'")
    assert got["n_obs"].to_list() == [4 * 5 * 8, 3 * 5 * 8]


def test_evaluations_between_all_steps_leave_training_its_dear_readings(net, tmp_path):
    with spikewatch.attach(net, dir=tmp_path, every=1, quiet=True):
        for _ in range(60):
            net.train()
            train(net, n_steps=1)
            net.eval()
            with torch.no_grad():
                net(torch.rand(5, 16))
    got = rows(tmp_path, "SELECT phase, step FROM membrane WHERE layer = 'lif1' ORDER BY step")
    for phase in ("train", "eval"):
        detailed = got.filter(pl.col("phase") == phase)["step"]
        assert detailed.len() == pytest.approx(8 + 52 // 16, abs=1)
        assert detailed.max() > 40


def test_an_evaluation_amid_a_step_leaves_that_its_readings(net, tmp_path):
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    with spikewatch.attach(net, dir=tmp_path, every=1, quiet=True):
        for _ in range(24):
            optimizer.zero_grad()
            for _ in range(4):
                net(torch.rand(6, 16)).sum().backward()
                with torch.no_grad():
                    net(torch.rand(2, 16))
            optimizer.step()
    got = rows(
        tmp_path,
        "SELECT step, n_samples, n_membrane FROM energy JOIN membrane m USING (phase, step) "
        "WHERE phase = 'train' AND energy.layer = 'fc2' AND m.layer = 'lif1' ORDER BY step",
    )
    assert got["n_samples"].to_list() == [24.0] * got.height
    assert got.height >= 9
    assert got["step"].max() == 15
    assert got["n_membrane"].n_unique() <= 2  # the first step is read at each time step


class Act(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u):
        ctx.save_for_backward(u)
        return (u > 0.5).float()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ((ctx.saved_tensors[0] - 0.5).abs() < 0.5)


class Actor(nn.Module):
    """Neurons that are functions."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.fc1, self.fc2 = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x):
        return sum(Act.apply(self.fc2(Act.apply(self.fc1(x)))) for _ in range(5)) / 5


def test_what_an_actor_does_without_gradients_is_an_evaluation_and_is_told_in_time(
    tmp_path, caplog
):
    net = nn.ModuleDict({"actor": Actor(), "critic": nn.Linear(12, 1)})
    first, second = (torch.optim.SGD(net[n].parameters(), 1e-2) for n in ("critic", "actor"))
    with spikewatch.attach(net, dir=tmp_path, every=1, quiet=True):
        for _ in range(4):
            x = 2 * torch.rand(4, 8)
            with torch.no_grad():
                action = net["actor"](x)
            net["critic"](torch.cat([x, action], 1)).square().mean().backward()
            first.step()
            x = 2 * torch.rand(6, 8)
            net["critic"](torch.cat([x, net["actor"](x)], 1)).mean().backward()
            second.step()
    got = rows(tmp_path, "SELECT DISTINCT phase, n_obs FROM spikes WHERE step > 1 ORDER BY phase")
    assert got.rows() == [("eval", 4 * 5), ("train", 6 * 5)]
    assert "no layer made spikes" not in caplog.text
