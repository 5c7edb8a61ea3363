"""Layers that are added, replaced, moved or taken out after `attach()`."""

import copy
import pickle

import pytest
import sinabs.layers
import snntorch as snn
import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn
from torch.nn.utils import parametrize, prune

from spikewatch.alerts.check import alerts_of
from spikewatch.alerts.loading import find_ruleset
from spikewatch.alerts.replay import replay


class Blocks(nn.Module):
    """Spiking layers on a sequence [T, B, 16], with a head."""

    def __init__(self, widths=(12,)):
        super().__init__()
        self.blocks = nn.ModuleList()
        for n in widths:
            self.grow(n)
        self.head = layer.Linear(widths[-1], 4, step_mode="m")

    def grow(self, n, act=neuron.LIFNode):
        wide = self.blocks[-1][0].out_features if len(self.blocks) else 16
        fc = layer.Linear(wide, n, step_mode="m")
        self.blocks.append(nn.Sequential(fc, act(step_mode="m")))
        if hasattr(self, "head"):
            self.head = layer.Linear(n, 4, step_mode="m")

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.head(x).mean(0)


def fit(net, n_steps, *, change=None, at=4, seed=0, spikes=None):
    """Train; at step `at` the model is changed, and its optimizer made anew."""
    torch.manual_seed(seed)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    losses = []
    for step in range(n_steps):
        if step == at and change is not None:
            change(net)
            functional.invalidate_reset_cache(net)
            optimizer = torch.optim.Adam(net.parameters(), 1e-2)
        x, y = 3 * torch.rand(4, 8, 16), torch.randint(0, 4, (8,))
        loss = nn.functional.cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        functional.reset_net(net)
        for module in net.modules():
            if isinstance(module, sinabs.layers.StatefulLayer):
                module.reset_states()
        losses.append(loss.item())
        if spikes is not None:
            spikes.end()
    return losses


class Spikes:
    """Spikes of layers by step, counted by a plain hook."""

    def __init__(self):
        self.by_step, self._now = [], {}

    def count(self, name, module):
        def hook(_module, _inputs, output):
            self._now[name] = self._now.get(name, 0) + int(output.sum())

        module.register_forward_hook(hook)

    def end(self):
        self.by_step.append(self._now)
        self._now = {}


def hooks_of(module):
    return {
        name: (dict(m._forward_hooks), dict(m._forward_pre_hooks), sorted(vars(m)))
        for name, m in module.named_modules()
    }


@pytest.fixture(name="net")
def _net():
    torch.manual_seed(0)
    return Blocks()


def steps_of(stored, table="spikes"):
    rows = stored(f"SELECT layer, step FROM {table} WHERE phase = 'train' ORDER BY step").rows()
    return {name: [s for n, s in rows if n == name] for name, _ in rows}


def notes(stored):
    return " ".join(stored("SELECT message FROM events WHERE kind = 'note'")["message"])


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


class MeanOverTime(nn.Module):
    def forward(self, x):
        return x.mean(0)


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


def test_what_a_ternary_parametrization_makes_of_a_plain_layer_is_seen(watched, stored):
    class Ternary(nn.Module):
        def forward(self, w):
            t = w.sign() * (w.abs() > 0.05)
            return w + (t - w).detach()

    torch.manual_seed(0)
    net = Blocks()

    def quantize(net):
        parametrize.register_parametrization(net.blocks[0][0], "weight", Ternary())

    watch = watched(net)
    fit(net, 12, change=quantize)
    watch.close()
    assert steps_of(stored, "weights") == {"blocks.0.0": list(range(4, 12))}
    assert steps_of(stored)["blocks.0.1"] == list(range(12))
    removed = stored("SELECT count(*) AS n FROM events WHERE kind = 'removed'")["n"].item()
    assert removed == 0  # the layer is still the same, and was in no table of weights


def test_weights_that_are_replaced_or_pruned_are_followed(watched, stored):
    class TernaryLinear(nn.Linear):
        def forward(self, x):
            w = self.weight
            t = w.sign() * (w.abs() > 0.5 * w.abs().mean())
            return nn.functional.linear(x, w + (t - w).detach(), self.bias)

    torch.manual_seed(0)
    net = nn.Sequential(TernaryLinear(16, 12), neuron.LIFNode(step_mode="m"), MeanOverTime())
    net.append(nn.Linear(12, 4))

    def renew(net):
        few = torch.where(torch.rand(12, 16) < 0.9, 1e-3, 1.0)
        net[0].weight = nn.Parameter(few * torch.randn(12, 16).sign())

    def cut(net):
        prune.random_unstructured(net[3], "weight", 0.5)
        prune.l1_unstructured(net[0], "weight", 0.25)

    watch = watched(net)
    fit(net, 4, change=renew, at=2)
    fit(net, 6, change=cut, at=2)
    watch.close()
    rows = stored("SELECT step, n_weight_zero FROM weights WHERE layer = '0' ORDER BY step")
    assert rows["step"].to_list() == list(range(10))
    zeros = rows["n_weight_zero"].to_list()
    assert zeros[1] < 96 < 150 < zeros[2]
    assert {2, 6, 7} <= set(steps_of(stored, "estimator")["0"])
    assert {2, 6, 7} <= set(steps_of(stored, "latent")["0"])
    flips = stored("SELECT step FROM transitions WHERE layer = '0' ORDER BY step")["step"]
    assert flips.to_list() == [1, 3, 4, 5, 6, 7, 8, 9]  # what another parameter was is no flip
    updates = stored("SELECT update_ratio FROM latent WHERE layer = '0' AND step >= 6")
    assert all(r > 0 for r in updates["update_ratio"])


def test_a_group_that_an_optimizer_is_given_later_ends_steps(net, watched, stored):
    watch = watched(net)
    other = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([other], 0.1)
    other.grad = torch.ones(1)
    optimizer.step()  # it has none of the model's parameters yet
    optimizer.add_param_group({"params": list(net.parameters())})
    for _ in range(5):
        for _ in range(2):
            net(torch.rand(4, 8, 16)).sum().backward()
            functional.reset_net(net)
        optimizer.step()
    assert watch.step == 5


def test_parts_that_a_loop_calls_by_themselves_may_change_as_well(watched, stored):
    torch.manual_seed(0)
    net = nn.ModuleDict({"fc": nn.Linear(16, 8), "act": snn.Leaky(beta=0.9, init_hidden=True)})
    watch = watched(net)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    for step in range(10):
        if step == 4:
            net["act2"] = snn.Leaky(beta=0.8, init_hidden=True)
        functional_reset(net)
        for _ in range(3):
            x = net["act"](net["fc"](torch.rand(8, 16)))
            if "act2" in net:
                x = net["act2"](x)
        x.sum().backward()
        optimizer.step()
    watch.close()
    steps = steps_of(stored)
    assert steps["act"] == list(range(10))
    assert steps["act2"][0] in (4, 5)


def functional_reset(net):
    for module in net.values():
        if isinstance(module, snn.Leaky):
            module.reset_mem()


def test_a_step_mode_that_is_switched_is_followed(net, watched, stored):
    watch = watched(net)
    fit(net, 3)
    functional.set_step_mode(net, "s")
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    for _ in range(3):
        x = 3 * torch.rand(4, 8, 16)
        torch.stack([net.head(net.blocks[0](v)) for v in x]).sum().backward()
        optimizer.step()
        functional.reset_net(net)
    watch.close()
    rows = stored("SELECT n_neurons, n_obs FROM spikes ORDER BY step").rows()
    assert set(rows) == {(12, 32)}
    assert len(rows) == 6


class Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad / (1 + x.abs()) ** 2


class OwnBlock(nn.Module):
    """A block of a user's, whose neuron is a function within its forward."""

    def __init__(self, n_in, n_out):
        super().__init__()
        self.fc = nn.Linear(n_in, n_out)

    def forward(self, x):
        return Spike.apply(self.fc(x) - 0.1)


class OwnNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([OwnBlock(16, 12), OwnBlock(12, 12)])
        self.head = nn.Linear(12, 4)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.head(x).mean(0)


def test_neurons_that_are_functions_in_blocks_that_come_later_are_told_apart(watched, stored):
    def swap(net):
        net.blocks[0] = OwnBlock(16, 12)
        net.blocks.append(OwnBlock(12, 12))

    torch.manual_seed(0)
    net = OwnNet()
    watch = watched(net)
    fit(net, 14, change=swap, at=6)
    watch.close()
    steps = steps_of(stored)
    assert steps["blocks.1"] == list(range(14))
    assert steps["blocks.2"][-1] == steps["blocks.0"][-1] == 13
    assert steps["blocks.2"][0] in (6, 7)
    assert set(steps) == {"blocks.0", "blocks.1", "blocks.2"}


def test_an_evaluation_sees_the_layers_that_have_come_before_it(net, watched, stored):
    watch = watched(net)
    fit(net, 3)
    net.grow(10)
    functional.invalidate_reset_cache(net)
    net.eval()
    with torch.no_grad():
        net(3 * torch.rand(4, 8, 16))
    functional.reset_net(net)
    net.train()
    fit(net, 2)
    watch.close()
    rows = stored("SELECT phase, step, layer FROM spikes WHERE step >= 3 ORDER BY ALL").rows()
    names = ["blocks.0.1", "blocks.1.1"]
    assert rows == [
        *(("eval", 3, name) for name in names),
        *(("train", step, name) for step in (3, 4) for name in names),
    ]


def test_what_was_evaluated_before_a_layer_went_is_kept(watched, stored):
    torch.manual_seed(0)
    net = Blocks((12, 12))
    watch = watched(net)
    fit(net, 3)
    net.eval()
    with torch.no_grad():
        net(3 * torch.rand(4, 8, 16))
    net.train()
    del net.blocks[1]
    functional.invalidate_reset_cache(net)
    functional.reset_net(net)
    fit(net, 2)
    watch.close()
    rows = stored("SELECT step, layer FROM spikes WHERE phase = 'eval' ORDER BY ALL").rows()
    assert rows == [(3, "blocks.0.1"), (3, "blocks.1.1")]
    assert steps_of(stored)["blocks.0.1"] == [0, 1, 2, 3, 4]


def test_a_model_that_is_another_one_in_each_step_is_asked_about_ever_more_rarely(
    net, watched, stored
):
    watch = watched(net)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    for _ in range(40):
        net.blocks[0][1] = neuron.LIFNode(step_mode="m")
        net(3 * torch.rand(4, 8, 16)).sum().backward()
        optimizer.step()
    watch.close()
    n = stored("SELECT count(*) AS n FROM events WHERE kind = 'removed'")["n"].item()
    assert 3 <= n <= 7


def test_a_checkpoint_is_called_for_by_the_names_of_parameters_that_came_later(net, watched):
    calls = []
    watched(net, on_checkpoint=calls.append)

    def grow(net):
        net.grow(10)
        net.blocks[1][0].weight.register_hook(lambda grad: grad * float("nan"))

    fit(net, 6, change=grow)
    assert [c["layer"] for c in calls if c["rule"] == "non-finite-gradient"] == ["blocks.1.0"]
