"""Copies of a watched model: saved, pickled, averaged, forked and spawned."""

import copy
import io
import multiprocessing
import pickle
import subprocess
import sys
import textwrap

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset

import spikewatch
from spikewatch.zoo.digits import DigitsNet

from .conftest import train
from .little_nets import OwnNeuron, build, fit


def digits_step(net):
    net(torch.rand(2, 64)).sum().backward()


def reloaded(thing):
    file = io.BytesIO()
    torch.save(thing, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize(
    "copied", [reloaded, copy.deepcopy, lambda n: pickle.loads(pickle.dumps(n))]
)
def test_a_copy_of_the_whole_model_works_and_is_not_watched(watched, stored, copied):
    net = DigitsNet()  # snnTorch's neurons cannot be pickled, with or without us
    watch = watched(net)
    digits_step(net)
    twin = copied(net)
    assert twin(torch.rand(3, 64)).shape == (3, 10)
    digits_step(twin)
    torch.optim.SGD(twin.parameters(), 0.1).step()
    assert watch.step == 0
    watch.close()
    got = stored("SELECT DISTINCT n_obs FROM spikes")
    assert got["n_obs"].to_list() == [2 * net.n_steps]


def test_a_copy_can_be_watched_by_itself(watched, stored):
    net = DigitsNet()
    first = watched(net, run="first")
    twin = copy.deepcopy(net)
    second = watched(twin, run="second")
    digits_step(twin)
    first.close()
    second.close()
    assert stored("SELECT run FROM runs ORDER BY run")["run"].to_list() == ["first", "second"]
    assert set(stored("SELECT run FROM spikes")["run"]) == {"second"}


@pytest.mark.parametrize("name", ["spikingjelly-m", "norse", "own"])
def test_an_averaged_model_is_the_same_and_is_not_watched(watched, stored, name):
    def averaged(net, watch=None):
        ema = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.9))
        if watch:  # snnTorch's and sinabs' states change their shape: they cannot be averaged
            watches.append(watch(net))
        for _ in range(2):
            fit(net, n_steps=1)
            ema.update_parameters(net)
        with torch.no_grad():
            return ema(torch.rand(4, 8))

    def averaged_late(net):
        watches.append(watched(net))
        return averaged(net)

    watches = []
    expected = averaged(build(name))
    assert torch.equal(averaged(build(name), watched), expected)
    assert torch.equal(averaged_late(build(name)), expected)
    for watch in watches:
        watch.close()
    assert set(stored("SELECT n_obs FROM spikes")["n_obs"]) == {20}


def test_the_state_dict_is_untouched_and_loads_either_way(watched):
    bare, net = DigitsNet(), DigitsNet()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    watched(net)
    after = net.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[k], before[k]) for k in before)
    bare.load_state_dict(after)
    net.load_state_dict(bare.state_dict())
    digits_step(net)


class Squares(Dataset):
    """Data that a watched model makes, in the worker."""

    def __init__(self, net, watch):
        self.net, self.watch = net, watch

    def __len__(self):
        return 6

    def __getitem__(self, index):
        digits_step(self.net)
        torch.optim.SGD(self.net.parameters(), 0.1).step()
        self.watch.log(loss=float(index))
        with torch.no_grad():
            return self.net(torch.full((2, 64), float(index)))


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_worker_of_a_data_loader_writes_nothing(watched, stored):
    net = DigitsNet()
    watch = watched(net)
    loader = DataLoader(Squares(net, watch), num_workers=2, multiprocessing_context="fork")
    for _ in loader:
        pass
    digits_step(net)
    watch.close()
    assert set(stored("SELECT step, n_obs FROM spikes").rows()) == {(0, 2 * net.n_steps)}
    assert stored("SELECT * FROM scalars").is_empty()
    assert set(stored("SELECT kind FROM events")["kind"]) == {"attached", "detached", "closed"}


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_fork_while_we_hold_a_lock_does_not_hang(watched):
    """The child inherits locks that nobody will give back."""
    net = DigitsNet()
    watch = watched(net)

    def child():
        digits_step(net)
        torch.optim.SGD(net.parameters(), 0.1).step()
        watch.log(loss=1.0)
        watch.detach()
        watch.close()

    process = multiprocessing.get_context("fork").Process(target=child)
    with watch._recorder._wake:
        process.start()
    process.join(20)
    alive = process.is_alive()
    process.kill()
    assert not alive
    assert process.exitcode == 0


SPAWN = """
    import torch, spikewatch
    from spikewatch.watch import open_watches
    from torch import multiprocessing as mp
    from spikewatch.zoo.digits import DigitsNet

    def work(net, queue):
        out = net(torch.rand(2, 64))
        out.sum().backward()
        queue.put(len(open_watches()))

    if __name__ == "__main__":
        net = DigitsNet()
        with spikewatch.attach(net, dir="runs", every=1, quiet=True):
            net(torch.rand(2, 64)).sum().backward()
            net.zero_grad()
            context = mp.get_context("spawn")
            queue = context.Queue()
            worker = context.Process(target=work, args=(net, queue))
            worker.start()
            print("watches in the worker:", queue.get(timeout=60))
            worker.join()
"""


@pytest.mark.slow
def test_a_model_can_be_sent_to_a_spawned_worker(tmp_path):
    script = tmp_path / "spawn.py"
    script.write_text(textwrap.dedent(SPAWN))
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert "watches in the worker: 0" in done.stdout, done.stderr
    with spikewatch.open_store(tmp_path / "runs") as store:
        assert store.sql("SELECT DISTINCT n_obs FROM spikes")["n_obs"].to_list() == [16]


def test_a_model_that_is_loaded_anew_goes_on_in_a_second_run(watched, stored, net):
    watched(net, run="a").close()
    twin = type(net)()
    twin.load_state_dict(net.state_dict())
    watch = watched(twin, run="a")
    train(twin, n_steps=2)
    watch.close()
    got = stored("SELECT run, count(*) AS n FROM spikes GROUP BY run")
    assert got.rows() == [("a-2", 4)]


def test_a_hook_of_ours_in_a_copy_holds_nothing_of_the_watch(watched):
    net = nn.Sequential(DigitsNet())
    watched(net)
    for module in copy.deepcopy(net).modules():
        for hooks in (module._forward_hooks, module._forward_pre_hooks):
            assert all(hook._body is None for hook in hooks.values())


def test_a_model_that_was_saved_while_it_was_watched_is_loaded_without_us(watched):
    net = nn.Sequential(nn.Linear(8, 6), OwnNeuron())
    watched(net)
    net(torch.rand(3, 8)).sum().backward()
    whole = pickle.dumps(net)
    assert b"spikewatch" not in whole
    x = torch.rand(3, 8)
    assert torch.equal(pickle.loads(whole)(x), net(x))
