"""Several processes, and several threads: nothing is counted twice, nobody waits for anybody."""

import copy
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from torch import nn

from spikewatch.layers import named_modules

from .conftest import train
from .little_nets import N_STEPS, build


BATCH = 800  # 3200 observations a step: a verdict after each


@pytest.mark.slow
@pytest.mark.parametrize("way", ["ddp", "fsdp2"])
def test_two_ranks_train_as_without_us_and_merge_exactly(tmp_path, stored, way):
    script = Path(__file__).with_name("two_ranks.py")
    environment = os.environ | {"WORLD_SIZE": "2", "SPIKEWATCH_ON_ERROR": "raise"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", str(script), way, str(tmp_path)],
            env=environment | {"RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for rank in ranks:
        _, errors = rank.communicate(timeout=100)
        assert rank.returncode == 0, errors
    everything = [(rank, n, step) for rank in (0, 1) for n in ("1", "2") for step in range(3)]
    for run, of_ranks in (("inner", (0, 1)), ("outer", (0, 1)), ("one", (0,))):
        expected = [row for row in everything if row[0] in of_ranks]
        for table, layer, count in (
            ("spikes", "act", f"n_obs = {BATCH * N_STEPS}"),
            ("weights", "fc", "n_weights > 0"),
        ):
            got = stored(
                f"SELECT rank, layer[-1], step FROM {table} WHERE run = '{run}' AND {count} "
                f"AND layer LIKE '{layer}_' ORDER BY ALL"
            )
            assert got.rows() == expected, (run, table)
    assert stored("SELECT * FROM events WHERE kind = 'fault'").is_empty()


@pytest.mark.slow
def test_who_is_dead_on_all_ranks_is_known_exactly(tmp_path, stored):
    """A neuron that is silent on one rank's data only is not dead; bitmaps tell, rates do not."""
    script = """
import os, torch, spikewatch
from torch import nn
from little_nets import OwnNeuron
rank = int(os.environ["RANK"])
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.act = OwnNeuron()
    def forward(self, x):
        self.act.mem = None
        return self.act(x)
net = Net()
with spikewatch.attach(net, run="r", dir=os.environ["FOLDER"], every=1, quiet=True):
    x = torch.full((3000, 10), 2.0)
    x[:, 0] = 0.0  # silent on both
    x[:, 1 + rank] = 0.0  # and one on each
    net(x)
"""
    here = str(Path(__file__).parent)
    for rank in "01":
        environment = os.environ | {
            "RANK": rank, "WORLD_SIZE": "2", "FOLDER": str(tmp_path), "PYTHONPATH": here
        }  # fmt: skip
        subprocess.run([sys.executable, "-c", script], env=environment, check=True, timeout=60)
    got = stored("SELECT rank, dead_frac, silent FROM spikes ORDER BY rank")
    assert got["dead_frac"].to_list() == [0.2, 0.2]
    merged = stored("SELECT bit_count(bit_and(silent)) AS n FROM spikes")
    assert merged["n"].item() == 1


def replicated(net, inputs):
    """What `nn.DataParallel` does on several devices: replicas, in threads of their own."""
    replicas = [replica(net) for _ in inputs]
    outputs = [None] * len(inputs)
    grad, barrier = torch.is_grad_enabled(), threading.Barrier(len(inputs))

    def work(i):
        barrier.wait()
        with torch.set_grad_enabled(grad):
            outputs[i] = replicas[i](inputs[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return torch.cat(outputs)


def replica(net):
    """As `torch.nn.parallel.replicate` makes one, which needs a GPU; parameters stay shared."""
    copies = {id(m): m._replicate_for_data_parallel() for m in net.modules()}
    for module in net.modules():
        twin = copies[id(module)]
        for name, child in module._modules.items():
            twin._modules[name] = copies[id(child)]
        for name, parameter in module._parameters.items():
            setattr(twin, name, parameter)
        for name, buffer in module._buffers.items():
            twin._buffers[name] = buffer
    return copies[id(net)]


class Feed(nn.Module):
    """Stands for `nn.DataParallel`: each half of the batch goes to a replica."""

    def __init__(self, net):
        super().__init__()
        self.module = net

    def forward(self, x):
        return replicated(self.module, x.chunk(2))


@pytest.mark.parametrize("attach_to", ["the replicated model", "the wrapper"])
def test_replicas_in_threads_are_counted_as_one_of_them(watched, stored, attach_to):
    """Each step stands for one replica's share of the batch, and says how much that was."""
    expected, got = build("own"), build("own")
    results = []
    for net in (expected, got):
        wrapper = Feed(net)
        if net is got:
            watch = watched(net if attach_to == "the replicated model" else wrapper)
        for module in net.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0  # threads draw in any order
        optimizer = torch.optim.SGD(net.parameters(), 0.1)
        torch.manual_seed(0)
        for _ in range(4):
            out = wrapper(torch.rand(10, 8))
            out.square().sum().backward()
            optimizer.step()
            results.append(out.detach())
    for a, b in zip(results[:4], results[4:], strict=True):
        # Threads add up gradients in any order.
        torch.testing.assert_close(a, b)
    watch.close()
    rows = stored("SELECT step, n_obs, layer FROM spikes ORDER BY step, layer").rows()
    prefix = "" if attach_to == "the replicated model" else "module."
    assert rows == [(s, 5 * N_STEPS, f"{prefix}act{i}") for s in range(4) for i in (1, 2)]
    assert stored("SELECT * FROM events WHERE kind = 'fault'").is_empty()
    notes = stored("SELECT message FROM events WHERE kind = 'note'")["message"]
    assert any("those of one of them" in m for m in notes)


def test_data_parallel_without_a_gpu_passes_the_call_on(watched, stored, net):
    wrapper = nn.DataParallel(net)
    watch = watched(wrapper)
    train(wrapper, n_steps=2)
    watch.close()
    assert set(stored("SELECT layer FROM spikes")["layer"]) == {"lif1", "lif2"}


def test_two_threads_train_two_models_and_each_has_its_own_rows(watched, stored):
    nets = {name: build("own") for name in "ab"}
    watches = [watched(net, run=name) for name, net in nets.items()]

    def work(net):
        optimizer = torch.optim.SGD(net.parameters(), 0.1)
        for _ in range(5):
            net(torch.rand(5, 8)).sum().backward()
            optimizer.step()

    threads = [threading.Thread(target=work, args=(net,)) for net in nets.values()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for watch in watches:
        watch.close()
    got = stored(
        "SELECT run, layer, count(*) AS n, sum(n_obs) AS s FROM spikes GROUP BY ALL ORDER BY ALL"
    )
    assert got.rows() == [(run, act, 5, 100) for run in "ab" for act in ("act1", "act2")]


class Wrapped(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module


def test_names_are_without_what_wrappers_add_and_keep_what_users_chose():
    net = Wrapped(nn.Sequential(nn.Linear(2, 2)))
    assert list(named_modules(nn.DataParallel(copy.deepcopy(net)))) == [
        "", "module", "module.0"
    ]  # fmt: skip
    compiled = torch.compile(net, backend="eager")
    assert list(named_modules(compiled)) == ["", "module", "module.0"]
    net.module[0] = torch.compile(net.module[0], backend="eager")
    assert list(named_modules(net)) == ["", "module", "module.0"]
    assert named_modules(net)["module.0"] is net.module[0]._orig_mod


def test_layers_named_by_hand_are_named_as_they_are_shown(watched):
    net = nn.Sequential(nn.Linear(2, 2), nn.Identity())
    wrapper = nn.DataParallel(net)
    watch = watched(wrapper, layers={"1": "B*"})
    assert [layer.name for layer in watch.layers] == ["1"]
