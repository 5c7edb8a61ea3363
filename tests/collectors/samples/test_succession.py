"""One neuron of whole sequences at several places of a model."""

import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import nn


N_STEPS, BATCH = 4, 5


class Net(nn.Module):
    """A neuron that is reset before its second call, maybe: behind the first one, or a twin."""

    def __init__(self, *, chained, n_second=8, resets=True):
        super().__init__()
        torch.manual_seed(0)
        self.chained, self.resets = chained, resets
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8 if chained else 6, n_second)
        self.act = neuron.LIFNode(step_mode="m", surrogate_function=surrogate.ATan())
        self.norm = layer.BatchNorm2d(8, step_mode="m")
        self.out = nn.Linear(n_second, 3)

    def forward(self, x):
        first = self.act(4 * self.a(x))
        if self.resets:
            self.act.reset()
        if self.chained:
            first = self.norm(first[..., None, None]).flatten(2)
        second = self.act(4 * self.b(first if self.chained else x.flip(0)))
        self.act.reset()
        return self.out(second) + first.mean()


def run(net, heard, *, grad=True):
    heard.n_forwards += 1
    with torch.set_grad_enabled(grad):
        net(torch.rand(N_STEPS, BATCH, 6))
    counts = heard.observers["act"].flush("train" if grad else "eval")
    return counts, "timing" in counts.tables


@pytest.mark.parametrize("chained", [True, False])
def test_samples_are_not_counted_at_each_layer_that_shares_a_neuron(listen, chained):
    net = Net(chained=chained)
    heard = listen(net)
    for grad in (True, False):
        counts, is_timed = run(net, heard, grad=grad)
        assert heard.plain(counts.tables["spikes"])["n_obs"] == 2 * N_STEPS * BATCH
        assert is_timed != chained
    assert any("several sites" in text for _, text in heard.notes) == chained


@pytest.mark.parametrize("chained", [True, False])
def test_layers_that_share_a_state_are_no_parts_of_one_sample(listen, chained):
    net = Net(chained=chained, resets=False)
    heard = listen(net)
    for grad in (True, False):
        _, is_timed = run(net, heard, grad=grad)
        assert is_timed != chained
    assert any("several sites" in text for _, text in heard.notes) == chained


def test_before_any_training_it_is_not_known_whether_calls_are_twins(listen):
    net = Net(chained=False)
    heard = listen(net)
    assert not run(net, heard, grad=False)[1]
    assert run(net, heard)[1]
    assert run(net, heard, grad=False)[1]


def test_layers_of_different_widths_that_share_a_neuron_are_timed_apart(listen):
    net = Net(chained=True, n_second=7)
    counts, is_timed = run(net, listen(net))
    assert is_timed
    assert "timing" in counts.sites["@2"].tables


def test_batches_that_follow_one_another_are_timed(listen):
    net = nn.Sequential(layer.Linear(6, 8), neuron.LIFNode(step_mode="m"))
    heard = listen(net)
    for _ in range(3):
        heard.n_forwards += 1
        net(torch.rand(N_STEPS, BATCH, 6))
        functional.reset_net(net)
    assert heard.flush("1", "timing")["n_ttfs_pairs"] == 3 * BATCH * 8
