"""From one line in a training to rows in DuckDB."""

import signal
import subprocess
import sys
import textwrap

import duckdb
import polars as pl
import pytest
import torch

import spikewatch
from spikewatch.alerts.rule import Rule
from spikewatch.errors import AttachError, StoreError

from .conftest import make_net, train


def rows(folder, query):
    with spikewatch.open_store(folder) as store:
        return store.sql(query)


def test_every_observed_step_has_a_row_for_each_layer(net, tmp_path):
    with spikewatch.attach(net, dir=tmp_path, every=1, quiet=True) as watch:
        train(net, n_steps=5, watch=watch)
    got = rows(tmp_path, "SELECT step, layer, n_obs, n_neurons FROM spikes ORDER BY ALL")
    assert got.rows() == [
        (step, layer, 8 * 32, n) for step in range(5) for layer, n in (("lif1", 12), ("lif2", 4))
    ]


def test_the_figures_are_those_of_the_tensors(net, tmp_path):
    seen = {}
    for name in ("lif1", "lif2"):
        getattr(net, name).register_forward_hook(
            lambda _m, _a, out, name=name: seen.setdefault(name, []).append(out[0].detach().clone())
        )
    with spikewatch.attach(net, dir=tmp_path, every=1, quiet=True):
        train(net, n_steps=16)
    got = rows(tmp_path, "SELECT * FROM spikes ORDER BY layer, step")
    for name, calls in seen.items():
        spikes = torch.stack(calls).view(16, 8, 32, -1)
        layer = got.filter(layer=name)
        by_hand = spikes.ne(0).float().mean((1, 2, 3)).tolist()
        assert layer["mfr"].to_list() == pytest.approx(by_hand)
        for step in range(16):
            # 12 steps of 256 observations are the first to reach 2995.
            window = spikes[max(0, step - 11) : step + 1]
            silent = window.ne(0).sum((0, 1, 2)) == 0
            dead = None if step < 11 else silent.double().mean().item()
            assert layer["dead_frac"][step] == dead


def test_an_interval_skips_the_steps_between(net, tmp_path):
    with spikewatch.attach(net, dir=tmp_path, every=4, quiet=True):
        train(net, n_steps=10)
    got = rows(tmp_path, "SELECT DISTINCT step FROM spikes ORDER BY step")
    assert got["step"].to_list() == [0, 4, 8]


def test_logged_scalars_belong_to_the_step_that_ended(net, tmp_path):
    with spikewatch.attach(net, dir=tmp_path, every=1, quiet=True) as watch:
        losses = train(net, n_steps=4, watch=watch)
    got = rows(tmp_path, "SELECT step, name, value FROM scalars ORDER BY step")
    assert got["step"].to_list() == [0, 1, 2, 3]
    assert got["value"].to_list() == pytest.approx(losses)


def test_the_table_of_layers_is_printed(net, tmp_path, capsys):
    with spikewatch.attach(net, run="hello", dir=tmp_path):
        pass
    printed = capsys.readouterr().out
    assert "watches 2 layers, run 'hello'" in printed
    assert "snntorch.Leaky" in printed


def test_a_run_name_that_is_taken_gets_a_number(tmp_path):
    names = []
    for _ in range(2):
        with spikewatch.attach(make_net(), run="a", dir=tmp_path, quiet=True) as watch:
            names.append(watch.run)
    assert names == ["a", "a-2"]


def test_attaching_twice_is_refused(net, tmp_path):
    with (
        spikewatch.attach(net, run="first", dir=tmp_path, quiet=True),
        pytest.raises(AttachError, match="'first'"),
    ):
        spikewatch.attach(net, dir=tmp_path, quiet=True)


def test_the_watch_of_a_model_is_found_from_a_part_of_it_and_from_a_wrapper(net, tmp_path):
    wrapper = torch.nn.Sequential(net)
    assert spikewatch.watch_of(net) is None
    with spikewatch.attach(net, dir=tmp_path, quiet=True) as watch:
        for model in (net, wrapper, net.fc1):
            assert spikewatch.watch_of(model) is watch
        assert spikewatch.watch_of(make_net()) is None
    assert spikewatch.watch_of(net) is None


def test_a_training_that_goes_on_counts_its_steps_on(net, tmp_path):
    with spikewatch.attach(net, dir=tmp_path, every=2, first_step=501, quiet=True) as watch:
        watch.log(before=1.0)
        train(net, n_steps=3, watch=watch)
        assert watch.step == 504
    got = rows(tmp_path, "SELECT DISTINCT step FROM spikes ORDER BY step")
    assert got["step"].to_list() == [501, 503]
    got = rows(tmp_path, "SELECT step, name FROM scalars ORDER BY ALL")
    assert got.rows() == [(501, "before"), (501, "loss"), (502, "loss"), (503, "loss")]


@pytest.mark.parametrize("step", [-1, 1.5, True, None])
def test_a_first_step_that_is_none_is_refused(net, tmp_path, step):
    with pytest.raises(AttachError, match="`first_step` was"):
        spikewatch.attach(net, dir=tmp_path, first_step=step)


@pytest.mark.parametrize(("actions", "may"), [(("log",), False), (("log", "stop"), True)])
def test_it_is_known_beforehand_whether_a_rule_can_stop_the_training(net, tmp_path, actions, may):
    rule = Rule(name="r", expr="mfr > 2", actions=actions)
    with spikewatch.attach(net, dir=tmp_path, quiet=True, rules=[rule]) as watch:
        assert watch.may_stop is may
    with spikewatch.attach(net, dir=tmp_path, quiet=True) as watch:
        assert not watch.may_stop


def test_something_else_than_a_model_is_refused(tmp_path):
    with pytest.raises(AttachError, match="was given a list"):
        spikewatch.attach([1, 2], dir=tmp_path)


def test_a_folder_that_is_a_file_is_refused(net, tmp_path):
    (tmp_path / "runs").write_text("not a folder")
    with pytest.raises(StoreError, match="runs"):
        spikewatch.attach(net, dir=tmp_path / "runs", quiet=True)


def test_an_exception_in_training_is_recorded_and_the_rows_before_it_are_kept(net, tmp_path):
    with (
        pytest.raises(ZeroDivisionError),
        spikewatch.attach(net, dir=tmp_path, every=1, quiet=True),
    ):
        train(net, n_steps=3)
        raise ZeroDivisionError
    events = rows(tmp_path, "SELECT message FROM events WHERE kind = 'exception'")
    assert "ZeroDivisionError" in events["message"].item()
    assert rows(tmp_path, "SELECT max(step) AS s FROM spikes")["s"].item() == 2


def test_a_tap_belongs_to_the_model_whose_forward_runs_also_between_observed_steps(tmp_path):
    class Net(torch.nn.Module):
        def __init__(self, n_hidden):
            super().__init__()
            self.fc = torch.nn.Linear(4, n_hidden)

        def forward(self, x):
            return spikewatch.tap("hidden", (self.fc(x) > 0).float() * self.fc(x)).sum()

    nets = Net(8), Net(16)
    optimizers = [torch.optim.SGD(net.parameters(), 0.01) for net in nets]
    with (
        spikewatch.attach(nets[0], run="often", dir=tmp_path, every=1, quiet=True),
        spikewatch.attach(nets[1], run="seldom", dir=tmp_path, every=1000, quiet=True),
    ):
        for _ in range(20):
            for net in nets:
                net(torch.rand(2, 4)).backward()
            for optimizer in optimizers:
                optimizer.step()
    got = rows(tmp_path, "SELECT run, n_neurons, count(*) AS n FROM spikes GROUP BY ALL ORDER BY 1")
    assert got.rows() == [("often", 8, 20), ("seldom", 16, 1)]


def test_a_functional_neuron_is_watched_by_a_tap(tmp_path):
    class Spike(torch.autograd.Function):
        @staticmethod
        def forward(ctx, u):
            return (u > 0).float()

        @staticmethod
        def backward(ctx, gradient):
            return gradient

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = torch.nn.Linear(16, 6)

        def forward(self, x):
            return spikewatch.tap("hidden", Spike.apply(self.fc(x))).sum()

    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with spikewatch.attach(net, dir=tmp_path, every=1, quiet=True):
        net(torch.randn(32, 16)).backward()
        optimizer.step()
    got = rows(tmp_path, "SELECT layer, n_obs, n_neurons FROM spikes")
    assert got.rows() == [("hidden", 32, 6)]
    assert rows(tmp_path, "SELECT kind FROM layers")["kind"].to_list() == ["tap"]


SCRIPT = """
    import torch, snntorch as snn, spikewatch
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(16, 12), snn.Leaky(beta=0.9, init_hidden=True))
    spikewatch.attach(net, every=1)
    opt = torch.optim.SGD(net.parameters(), 0.1)
    for step in range(20):
        snn.utils.reset(net)
        loss = sum(net(torch.rand(32, 16)).mean() for _ in range(5))
        opt.zero_grad(); loss.backward(); opt.step()
        if step == 9: {at_9}
"""


@pytest.mark.parametrize(
    ("at_9", "state", "code"),
    [
        ("pass", "finished", 0),
        ("raise RuntimeError('out of luck')", "failed", 1),
        # As Ctrl-C does it: a shell that loops over trainings stops only if it is died of.
        ("raise KeyboardInterrupt", "failed", -signal.SIGINT),
    ],
)
def test_a_script_with_one_added_line_needs_no_close(tmp_path, at_9, state, code):
    script = textwrap.dedent(SCRIPT.replace("{at_9}", at_9)).replace("snn.utils", "snn_utils")
    script = script.replace("import torch,", "import snntorch.utils as snn_utils, torch,")
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == code, done.stderr
    with spikewatch.open_store(tmp_path / "spikewatch-runs") as store:
        runs = store.runs()
        assert runs["state"].to_list() == [state]
        last = store.sql("SELECT max(step) AS s, count(*) AS n FROM spikes")
    n_steps = 20 if state == "finished" else 10
    assert last.row(0) == (n_steps - 1, n_steps)


def test_off_sample_steps_leave_no_rows_and_no_gradient_hooks(net, tmp_path):
    with spikewatch.attach(net, dir=tmp_path, every=1000, quiet=True):
        train(net, n_steps=3)
        spikes, _ = net.lif1(net.fc1(torch.rand(2, 16)), net.lif1.init_leaky())
        assert not spikes._backward_hooks
    assert rows(tmp_path, "SELECT count(DISTINCT step) AS n FROM spikes")["n"].item() == 1


def test_gradients_arrive_with_the_step_that_made_them(net, tmp_path):
    with spikewatch.attach(net, dir=tmp_path, every=1, quiet=True):
        train(net, n_steps=3)
    got = rows(tmp_path, "SELECT step, layer, grad_norm, sg_mean FROM gradients")
    assert got.height == 6
    assert got.filter(pl.col("grad_norm").is_null() | pl.col("sg_mean").is_null()).is_empty()


def test_closing_feeds_duckdb_so_that_any_duckdb_client_can_read_it(net, tmp_path):
    with spikewatch.attach(net, dir=tmp_path, every=1, quiet=True):
        train(net, n_steps=2)
    with duckdb.connect(str(tmp_path / "spikewatch.duckdb"), read_only=True) as con:
        assert con.sql("SELECT count(*) FROM spikes").fetchall() == [(4,)]


def test_candidates_that_all_turn_out_to_make_no_spikes_are_told_aloud(tmp_path, caplog):
    class Round(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.round()

        @staticmethod
        def backward(ctx, gradient):
            return gradient

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = torch.nn.Linear(16, 6)

        def forward(self, x):
            return self.fc(Round.apply(x)).sum()

    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with spikewatch.attach(net, dir=tmp_path, every=1, quiet=True):
        for _ in range(2):
            net(torch.randn(32, 16)).backward()
            optimizer.step()
    assert sum("spikewatch.tap('name', spikes)" in r.message for r in caplog.records) == 1


def test_a_step_that_never_began_has_no_row(tmp_path):
    class Ternary(torch.nn.Linear):
        def quant_weight(self):
            scale = self.weight.abs().mean()
            return scale * (self.weight / scale).round().clamp(-1, 1)

        def forward(self, x):
            return torch.nn.functional.linear(x, self.quant_weight())

    net = torch.nn.Sequential(Ternary(40, 30))
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with spikewatch.attach(net, dir=tmp_path, every=1, quiet=True):
        for _ in range(3):
            net(torch.rand(4, 40)).square().sum().backward()
            optimizer.step()
    assert rows(tmp_path, "SELECT step FROM weights ORDER BY step")["step"].to_list() == [0, 1, 2]
