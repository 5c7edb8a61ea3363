"""Contract 1: a watched training is the same training."""

import copy
import io
import pickle

import pytest
import snntorch as snn
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import spikewatch
from spikewatch.zoo.digits import DigitsNet

from .conftest import make_net, train


def test_losses_weights_and_random_numbers_are_bit_identical(watched):
    bare, net = make_net(), make_net()
    expected = train(bare, n_steps=6)
    state_of_random = torch.get_rng_state()
    watched(net)
    assert train(net, n_steps=6) == expected
    assert torch.equal(torch.get_rng_state(), state_of_random)
    for a, b in zip(bare.parameters(), net.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_whole_model_can_be_saved_and_loaded(watched):
    net = DigitsNet()  # snnTorch's neurons cannot be pickled, with or without us
    watched(net)
    net(torch.rand(2, 64)).sum().backward()
    file = io.BytesIO()
    torch.save(net, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    assert loaded(torch.rand(2, 64)).shape == (2, 10)


def test_a_deep_copy_trains_and_is_not_counted(watched, net):
    heard = watched(net)
    train(copy.deepcopy(net), n_steps=2)
    assert heard.step == 0


def test_the_model_can_be_pickled(watched):
    net = DigitsNet()
    watched(net)
    assert pickle.loads(pickle.dumps(net)).state_dict().keys() == net.state_dict().keys()


def test_detach_leaves_hooks_and_attributes_as_they_were(watched, net):
    def trace():
        return {
            name: {k: repr(v) for k, v in vars(m).items() if "hooks" in k or k not in ("mem",)}
            for name, m in net.named_modules()
        }

    before = trace()
    heard = watched(net)
    assert trace() != before
    heard.detach()
    assert trace() == before


def test_the_state_dict_is_untouched(watched, net):
    before = list(net.state_dict())
    watched(net)
    assert list(net.state_dict()) == before


def test_spikes_may_be_changed_in_place(watched):
    net = nn.Sequential(nn.Linear(4, 3), snn.Leaky(beta=0.9, init_hidden=True))
    watched(net)
    spikes = net(torch.rand(5, 4))
    spikes.mul_(0.5)
    spikes.sum().backward()


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_checkpointing_counts_each_observation_once(watched, use_reentrant, tmp_path):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.lif = nn.Linear(4, 3), snn.Leaky(beta=0.9)

        def forward(self, x):
            def block(x):
                return self.lif(self.fc(x), torch.zeros(5, 3))[0]

            return checkpoint(block, x, use_reentrant=use_reentrant)

    net = Net()
    heard = watched(net)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    for _ in range(3):
        net(torch.rand(5, 4, requires_grad=True)).sum().backward()
        optimizer.step()
    heard.close()
    with spikewatch.open_store(tmp_path) as store:
        got = store.sql("SELECT phase, step, n_obs FROM spikes ORDER BY step")
        gradients = store.sql("SELECT n_grad FROM gradients")
    assert got.rows() == [("train", step, 5) for step in range(3)]
    assert gradients["n_grad"].to_list() == [15] * 3


def test_bf16_autocast_works_and_keeps_its_dtype(watched):
    net = nn.Sequential(nn.Linear(4, 3), snn.Leaky(beta=0.9, init_hidden=True))
    with torch.autocast("cpu", torch.bfloat16):
        expected = net(torch.rand(5, 4)).dtype
    net[1].mem = torch.zeros(0)
    watched(net)
    with torch.autocast("cpu", torch.bfloat16):
        assert net(torch.rand(5, 4)).dtype == expected


def test_frozen_parameters_and_inputs_without_gradient_are_fine(watched, net):
    net.requires_grad_(False)
    watched(net)
    net(torch.rand(2, 16))


@pytest.mark.filterwarnings(
    "ignore:.*should not be instantiated:DeprecationWarning"
)  # dynamo's own
def test_a_compiled_model_has_no_graph_break_and_says_that_it_is_not_seen(watched, caplog):
    torch._dynamo.reset()
    net = DigitsNet()
    watched(net)
    counters = torch._dynamo.utils.counters
    counters.clear()
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    for _ in range(4):
        compiled(torch.rand(4, 64)).sum().backward()
        optimizer.step()
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]
    assert any("compile" in record.message for record in caplog.records)


def test_a_fault_in_a_hook_is_told_once_and_training_goes_on(monkeypatch, tmp_path, net, caplog):
    monkeypatch.setenv("SPIKEWATCH_ON_ERROR", "warn")
    with spikewatch.attach(net, dir=tmp_path, every=1, quiet=True) as watch:
        observer = next(o for o in watch._stepping.observers if o.layer.name == "lif1")
        observer._candidate = None  # a broken collector
        train(net, n_steps=4)
    assert sum("could not observe 'lif1'" in r.message for r in caplog.records) == 1
    with spikewatch.open_store(tmp_path) as store:
        assert store.sql("SELECT count(*) AS n FROM events WHERE kind = 'fault'")["n"].item() == 1
        assert store.sql("SELECT count(*) AS n FROM spikes WHERE layer = 'lif2'")["n"].item() == 4


def test_logging_nonsense_never_stops_training(monkeypatch, tmp_path, net):
    monkeypatch.setenv("SPIKEWATCH_ON_ERROR", "warn")
    with spikewatch.attach(net, dir=tmp_path, quiet=True) as watch:
        watch.log(loss="high", gradient=torch.ones(3), fine=1.0)
    with spikewatch.open_store(tmp_path) as store:
        assert store.sql("SELECT name FROM scalars")["name"].to_list() == ["fine"]


def test_a_tap_without_a_watch_is_the_identity():
    tensor = torch.ones(3)
    assert spikewatch.tap("x", tensor) is tensor
