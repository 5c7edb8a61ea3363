"""Layers that are added, replaced, moved or taken out after `attach()`."""

import copy
import pickle

import pytest
import sinabs.layers
import torch
from spikingjelly.activation_based import layer, neuron
from torch import nn

from spikewatch.alerts.check import alerts_of
from spikewatch.alerts.loading import find_ruleset
from spikewatch.alerts.replay import replay

from .growing import Blocks, MeanOverTime, Spikes, fit, hooks_of, notes, steps_of


@pytest.fixture(name="net")
def _net():
    torch.manual_seed(0)
    return Blocks()


def test_layers_that_are_appended_are_watched_from_the_next_observed_step_on(net, watched, stored):
    spikes = Spikes()

    def grow(net):
        net.grow(10)
        spikes.count("blocks.1.1", net.blocks[1][1])

    watch = watched(net)
    fit(net, 12, change=grow, spikes=spikes)
    watch.close()
    steps = steps_of(stored)
    assert steps["blocks.0.1"] == list(range(12))
    assert steps["blocks.1.1"] == list(range(4, 12))
    rows = stored("SELECT step, n_spikes FROM spikes WHERE layer = 'blocks.1.1' ORDER BY step")
    assert rows["n_spikes"].to_list() == [spikes.by_step[s]["blocks.1.1"] for s in range(4, 12)]
    assert 4 in steps_of(stored, "energy")["blocks.1.0"]
    assert steps_of(stored, "gradients")["blocks.1.1"][0] == 4
    assert "'blocks.1.1'" in notes(stored)
    assert "step 4" in notes(stored)
    depths = stored('SELECT layer, arg_max(depth, "at") AS d FROM layers GROUP BY 1 ORDER BY d')
    assert depths["layer"].to_list() == ["blocks.0.1", "blocks.1.1"]
    assert [x.name for x in watch.layers] == ["blocks.0.1", "blocks.1.1"]


def test_a_layer_that_comes_late_is_read_closely_at_once(net, watched, stored):
    watch = watched(net)
    fit(net, 14, change=lambda net: net.grow(10), at=12)
    watch.close()
    assert steps_of(stored, "energy")["blocks.1.0"] == [12]
    close = "SELECT step FROM gradients WHERE layer = 'blocks.1.1' AND sg_mean IS NOT NULL"
    assert stored(close)["step"].to_list() == [12]


def test_a_layer_that_another_one_replaces_goes_on_with_that_one(net, watched, stored, caplog):
    def replace(net):
        net.blocks[0][1] = neuron.ParametricLIFNode(step_mode="m")

    watch = watched(net)
    fit(net, 14, change=replace)
    watch.close()
    assert steps_of(stored)["blocks.0.1"] == list(range(14))
    types = stored('SELECT "type" FROM layers WHERE layer = \'blocks.0.1\' ORDER BY "at"')
    assert types["type"].to_list() == ["LIFNode", "ParametricLIFNode"]
    decays = stored("SELECT step FROM dynamics WHERE layer = 'blocks.0.1' ORDER BY step")["step"]
    assert 4 in decays.to_list()
    assert "not called" not in caplog.text
    assert "ParametricLIFNode" in notes(stored)


def test_a_layer_of_another_width_is_counted_anew_under_its_name(net, watched, stored):
    def widen(net):
        net.blocks[0][0] = layer.Linear(16, 20, step_mode="m")
        net.blocks[0][1] = neuron.LIFNode(step_mode="m")
        net.head = layer.Linear(20, 4, step_mode="m")

    watch = watched(net)
    fit(net, 12, change=widen)
    watch.close()
    rows = stored("SELECT step, n_neurons FROM spikes WHERE layer = 'blocks.0.1' ORDER BY step")
    assert rows["n_neurons"].to_list() == [12] * 4 + [20] * 8
    assert "counting began anew" not in notes(stored)  # that is said of one layer with two shapes


def test_a_layer_that_is_taken_out_is_told_and_not_missed(watched, stored, caplog):
    torch.manual_seed(0)
    net = Blocks((12, 12))

    def shrink(net):
        del net.blocks[1]

    watch = watched(net)
    removed = net.blocks[1]
    fit(net, 14, change=shrink)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in removed.modules())
    assert [x.name for x in watch.layers] == ["blocks.0.1"]
    watch.close()
    assert steps_of(stored)["blocks.1.1"] == list(range(4))
    assert "not called" not in caplog.text
    removed_at = stored("SELECT layer, step FROM events WHERE kind = 'removed'").rows()
    assert set(removed_at) == {("blocks.1.0", 4), ("blocks.1.1", 4)}
    assert "'blocks.1.1'" in notes(stored)


def test_alerts_of_a_layer_that_is_taken_out_end_and_replay_says_the_same(
    watched, stored, tmp_path
):
    import spikewatch

    torch.manual_seed(0)
    net = Blocks((12, 12))
    with torch.no_grad():
        net.blocks[1][0].weight.zero_()
        net.blocks[1][0].bias.fill_(-1)
    rules = tmp_path / "rules.toml"
    rules.write_text('[[rule]]\nname = "silent"\nexpr = "mfr < 0.001"\n', "utf-8")

    def shrink(net):
        del net.blocks[1]

    watch = watched(net, run="x", rules=rules)
    fit(net, 40, change=shrink, at=20)
    watch.close()
    fired = stored(
        "SELECT rule, state, step FROM alerts WHERE layer = 'blocks.1.1' "
        "AND state IN ('firing', 'resolved') AND rule = 'silent' ORDER BY \"at\""
    ).rows()
    assert [f[1] for f in fired] == ["firing", "resolved"]
    assert fired[1][2] == 20
    last = stored(
        "SELECT arg_max(state, step) AS state FROM alerts WHERE layer = 'blocks.1.1' GROUP BY rule"
    )
    assert "firing" not in last["state"].to_list()
    with spikewatch.open_store(tmp_path) as store:
        key = ["phase", "step", "rule", "layer", "state"]
        again = replay(store, "x", find_ruleset(rules).rules).alerts.sort(key)
        assert again.equals(alerts_of(store, "x").sort(key))


def test_what_a_kept_layer_gets_from_new_neurons_that_fire_several_times_is_counted(
    watched, stored
):
    spikes = Spikes()

    def replace(net):
        net[1] = sinabs.layers.IAF()
        spikes.count("spikes", net[1])

    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 12), neuron.LIFNode(step_mode="m"), nn.Linear(12, 4))
    net.append(MeanOverTime())
    with torch.no_grad():
        net[0].weight.abs_()
    watch = watched(net)
    fit(net, 6, change=replace, spikes=spikes)
    watch.close()
    sops = stored("SELECT step, n_sops FROM energy WHERE layer = '2' AND step >= 4 ORDER BY step")
    n_spikes = [4 * spikes.by_step[step]["spikes"] for step in (4, 5)]
    assert n_spikes[0] > 4 * 4 * 8 * 12  # more than one for each neuron and time step
    assert sops["n_sops"].to_list() == n_spikes


def test_names_that_an_insertion_shifts_are_those_of_the_model_as_it_is(watched, stored):
    torch.manual_seed(0)
    net = nn.Sequential(
        layer.Linear(16, 12, step_mode="m"),
        neuron.LIFNode(step_mode="m"),
        layer.Linear(12, 4, step_mode="m"),
        neuron.IFNode(step_mode="m"),
    )
    model = nn.Sequential(net, MeanOverTime())

    def insert(model):
        model[0].insert(1, neuron.ParametricLIFNode(step_mode="m"))

    watch = watched(model)
    fit(model, 12, change=insert)
    watch.close()
    steps = steps_of(stored)
    assert steps == {
        "0.1": list(range(12)),
        "0.3": list(range(4)),
        "0.2": list(range(4, 12)),
        "0.4": list(range(4, 12)),
    }
    now = stored('SELECT layer, arg_max("type", "at") AS type FROM layers GROUP BY 1 ORDER BY 1')
    assert dict(now.rows())["0.1"] == "ParametricLIFNode"


def test_a_layer_that_moves_keeps_its_name_where_no_other_takes_it(net, watched, stored):
    def move(net):
        net.body = net.blocks
        del net._modules["blocks"]
        type(net).blocks = property(lambda self: self.body)

    watch = watched(net)
    try:
        fit(net, 10, change=move)
    finally:
        del Blocks.blocks
    watch.close()
    assert steps_of(stored) == {"blocks.0.1": list(range(10))}
    assert "removed" not in stored("SELECT DISTINCT kind FROM events")["kind"].to_list()


def test_a_training_that_grows_is_the_same_bit_for_bit(watched):
    def grow(net):
        net.grow(10, act=neuron.ParametricLIFNode)

    torch.manual_seed(0)
    bare = fit(Blocks(), 12, change=grow)
    torch.manual_seed(0)
    net = Blocks()
    watched(net)
    assert fit(net, 12, change=grow) == bare


def test_detach_leaves_new_old_and_removed_modules_as_they_were(watched):
    torch.manual_seed(0)
    net = Blocks((12, 12))
    new = nn.Sequential(layer.Linear(12, 12, step_mode="m"), neuron.LIFNode(step_mode="m"))
    old, removed = hooks_of(net), net.blocks[1]
    before = hooks_of(new), hooks_of(removed)

    def replace(net):
        net.blocks[1] = new

    watch = watched(net)
    fit(net, 6, change=replace)
    watch.detach()
    assert hooks_of(net) == old
    assert (hooks_of(new), hooks_of(removed)) == before


def test_copies_of_a_model_that_has_grown_train_on_without_us(net, watched):
    watch = watched(net)
    fit(net, 6, change=lambda net: net.grow(10))
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert twin.state_dict().keys() == net.state_dict().keys()
        n = watch.step
        fit(twin, 2)
        assert watch.step == n
