"""SpikingJelly 2.0's own neurons, single-step and multi-step."""

import pytest
import torch
from spikingjelly.activation_based import functional, layer, monitor, neuron, surrogate
from torch import nn


@pytest.mark.parametrize("mode", ["s", "m"])
def test_single_step_and_multi_step_give_the_same_figures(listen, mode):
    torch.manual_seed(0)
    net = nn.Sequential(layer.Linear(6, 5), neuron.LIFNode(tau=2.0))
    functional.set_step_mode(net, mode)
    heard = listen(net)
    x = 4 * torch.rand(8, 3, 6)
    out = net(x) if mode == "m" else torch.stack([net(frame) for frame in x])
    out.sum().backward()
    rows = heard.tables("1")
    spikes, gradients = rows["spikes"], rows["gradients"]
    assert (spikes["n_obs"], spikes["n_neurons"]) == (24, 5)
    assert spikes["n_spikes"] == out.count_nonzero() > 0
    assert gradients["n_sg"] == 8 * 3 * 5
    assert gradients["n_sg_neurons"] == 5


def test_the_slope_is_that_of_the_membrane_before_the_reset(listen):
    torch.manual_seed(1)
    node = neuron.IFNode(surrogate_function=surrogate.ATan(alpha=2.0), v_reset=None)
    heard = listen(nn.Sequential(node))
    currents, v, expected = torch.rand(6, 2, 3, requires_grad=True), torch.zeros(2, 3), 0.0
    for current in currents:
        spikes = node(current)
        u = v + current.detach()
        expected += (1 / (1 + (torch.pi * (u - 1.0)) ** 2)).sum().item()
        v = u - spikes.detach()
    assert heard.flush("0", "gradients")["sum_sg"] == pytest.approx(expected, rel=1e-5)


def test_the_rate_agrees_with_spikingjellys_own_monitor(listen):
    torch.manual_seed(2)
    net = nn.Sequential(layer.Linear(6, 9), neuron.ParametricLIFNode(), layer.Linear(9, 4))
    functional.set_step_mode(net, "m")
    heard = listen(net)
    theirs = monitor.OutputMonitor(net, neuron.BaseNode, lambda s: s.mean().item())
    net(5 * torch.rand(10, 4, 6))
    row = heard.flush("1", "spikes")
    rate = row["n_spikes"] / (row["n_obs"] * row["n_neurons"])
    assert rate == pytest.approx(theirs.records[0], rel=1e-6)
    theirs.remove_hooks()


def test_a_lone_neuron_is_one_layer_and_its_surrogate_is_none(listen):
    assert list(listen(neuron.LIFNode()).observers) == [""]


def test_the_readout_is_not_a_spiking_layer(listen):
    net = nn.Sequential(neuron.LIFNode(), neuron.NonSpikingLIFNode())
    assert list(listen(net).observers) == ["0"]


def test_neurons_that_pass_their_potential_on_are_left_out_but_for_graded_spikes(listen):
    def liaf(act, *, above):
        return neuron.LIAFNode(act=act, threshold_related=above)

    relu, leaky = nn.functional.relu, nn.functional.leaky_relu
    net = nn.Sequential(
        liaf(leaky, above=False), liaf(leaky, above=True), liaf(relu, above=False),
        liaf(relu, above=True), liaf(torch.relu, above=True), liaf(nn.ReLU(), above=True),
    )  # fmt: skip
    assert list(listen(net).observers) == ["3", "4", "5"]


def test_the_surrogate_of_a_readout_is_no_layer_that_is_never_called(listen):
    class NonSpikingLIFNode(neuron.SimpleLIFNode):  # as the examples for DQN and PPO write it
        def single_step_forward(self, x):
            self.neuronal_charge(x)
            return self.v

    net = nn.Sequential(neuron.IFNode(), NonSpikingLIFNode(tau=2.0, decay_input=True))
    assert list(listen(net).observers) == ["0"]


def test_a_neuron_that_was_made_to_return_its_potential_is_no_spiking_layer(listen):
    class Readout(neuron.LIFNode):
        def single_step_forward(self, x):
            self.v = self.v + (x - self.v) / self.tau
            return self.v

    torch.manual_seed(0)
    net = nn.Sequential(neuron.IFNode(), nn.Linear(8, 8), Readout())
    heard = listen(net)
    net(4 * torch.rand(16, 8))
    assert heard.flush("2", "spikes") is None
    assert heard.flush("0", "spikes")["n_spikes"] > 0
    assert [(x.name, x.kind) for x in heard.confirmed] == [("2", "candidate")]
    assert "many values" in heard.confirmed[0].note


def test_containers_that_pass_spikes_on_are_not_taken_for_neurons(listen):
    torch.manual_seed(0)
    net = layer.OTTTSequential(
        layer.Linear(6, 8), neuron.OTTTLIFNode(v_threshold=0.1), layer.Linear(8, 3)
    )
    heard = listen(net)
    net(torch.rand(4, 6))
    assert [n for n, o in heard.observers.items() if o.layer.kind != "synapse"] == ["1"]
    assert heard.flush("1", "spikes")["n_neurons"] == 8


def test_neurons_outside_the_base_class_are_found(listen):
    net = nn.Sequential(layer.Linear(4, 3), neuron.PSN(T=5, surrogate_function=surrogate.ATan()))
    functional.set_step_mode(net, "m")
    heard = listen(net)
    out = net(torch.randn(5, 2, 4))
    row = heard.flush("1", "spikes")
    assert (row["n_obs"], row["n_neurons"]) == (10, 3)
    assert row["n_spikes"] == out.count_nonzero()


def test_ternary_spikes_are_counted_by_sign(listen):
    torch.manual_seed(3)
    node = neuron.TernaryIFNode()
    heard = listen(nn.Sequential(node))
    out = torch.stack([node(x) for x in 3 * torch.randn(6, 2, 4)])
    row = heard.flush("0", "spikes")
    assert row["n_positive"] == (out > 0).sum()
    assert row["n_spikes"] - row["n_positive"] == (out < 0).sum() > 0


def test_slopes_in_bfloat16_are_added_up_in_full_precision(listen):
    torch.manual_seed(4)
    node = neuron.IFNode(surrogate_function=surrogate.ATan(alpha=2.0), step_mode="m")
    heard = listen(nn.Sequential(node))
    x = torch.rand(4, 64, 100).bfloat16().requires_grad_()
    node(x)
    row = heard.flush("0", "gradients")
    functional.reset_net(node)
    full = listen(nn.Sequential(node))
    node(x.detach().float().requires_grad_())
    full = full.flush("0", "gradients")
    assert row["sum_sg"] == pytest.approx(full["sum_sg"], rel=5e-3)


def classifier():
    return nn.Sequential(
        layer.Linear(6, 8),
        neuron.LIFNode(surrogate_function=surrogate.ATan()),
        layer.Linear(8, 3),
        neuron.LIFNode(tau=4.0, v_threshold=0.1, surrogate_function=surrogate.ATan()),
    )


def test_a_training_in_the_tutorials_style_starts_a_sample_after_each_reset(listen, told):
    torch.manual_seed(0)
    net = classifier()
    heard, seen = listen(net), told(net[3])
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        rate = sum(net(x) for x in 5 * torch.rand(4, 5, 6)) / 4
        nn.functional.mse_loss(rate, torch.eye(3)[torch.randint(3, (5,))]).backward()
        optimizer.step()
        functional.reset_net(net)
    assert seen.starts == [True, False, False, False] * 3
    tables, spikes = heard.tables("3"), torch.stack(seen.spikes)
    assert tables["spikes"]["n_obs"] == 3 * 4 * 5
    assert tables["spikes"]["n_spikes"] == spikes.sum() > 0
    slopes = 1 / (1 + (torch.pi * torch.stack(seen.saved)) ** 2)
    assert tables["gradients"]["sum_sg"] == pytest.approx(slopes.sum().item(), rel=1e-5)


def test_without_a_reset_the_sample_goes_on_unless_the_batch_changes(told):
    node = neuron.LIFNode()
    seen = told(node)
    with torch.no_grad():
        for x in torch.rand(3, 2, 4):
            node(x)
        functional.detach_net(node)
        node(torch.rand(2, 4))
        node(torch.rand(5, 4))
    assert seen.starts == [True, False, False, False, True]


def sequences(heard, node, lengths, *, resets=False):
    """Pass sequences of so many time steps through a neuron; what is counted of them."""
    functional.reset_net(node)
    start, total = 0, 0.0
    x = 3 * torch.rand(8, 5, 6, generator=torch.Generator().manual_seed(0))
    for n in lengths:
        spikes = node(x[start : start + n].requires_grad_())
        total, start = total + spikes.square().sum(), start + n
        if resets:
            functional.reset_net(node)
    total.backward()
    counts = heard.observers["0"].flush("train").tables
    return {table: heard.plain(counters) for table, counters in counts.items()}


def test_a_sequence_given_in_parts_is_one_sample(listen):
    node = neuron.LIFNode(tau=4.0, surrogate_function=surrogate.ATan(), step_mode="m")
    heard = listen(nn.Sequential(node))
    whole = sequences(heard, node, [8])
    for lengths in ([4, 4], [1, 5, 2]):
        parts = sequences(heard, node, lengths)
        assert parts["timing"] == whole["timing"]
        assert parts["gradients"]["sum_sq_grad_last"] == pytest.approx(
            whole["gradients"]["sum_sq_grad_last"]
        )
        assert parts["gradients"]["sum_sq_grad_first"] == pytest.approx(
            whole["gradients"]["sum_sq_grad_first"]
        )


def test_sequences_with_a_reset_in_between_or_in_another_step_are_samples_of_their_own(listen):
    node = neuron.LIFNode(tau=4.0, surrogate_function=surrogate.ATan(), step_mode="m")
    heard = listen(nn.Sequential(node))
    assert sequences(heard, node, [4, 4], resets=True)["timing"]["n_ttfs_pairs"] == 2 * 5 * 6
    for _ in range(2):  # it is never reset
        node(torch.rand(4, 5, 6))
        row = heard.flush("0", "timing")
        assert (row["n_ttfs_pairs"], row["sum_ttfs_length_steps"]) == (5 * 6, 4 * 5 * 6)


def test_which_part_of_a_sample_a_sequence_is_is_unknown_between_the_dear_readings(listen):
    node = neuron.LIFNode(tau=4.0, surrogate_function=surrogate.ATan(), step_mode="m")
    heard = listen(nn.Sequential(node))
    sequences(heard, node, [4, 4])
    heard.detailed = False
    heard.observers["0"].stop()
    heard.observers["0"].start(heard)
    gradients = sequences(heard, node, [4, 4])["gradients"]
    assert gradients["sum_sq_grad"] > 0
    assert gradients["sum_sq_grad_first"] is gradients["sum_sq_grad_last"] is None


def test_a_reset_by_subtraction_is_undone_and_one_to_a_value_is_not(told):
    torch.manual_seed(0)
    for v_reset in (None, 0.0):
        node = neuron.LIFNode(tau=2.0, v_threshold=0.6, v_reset=v_reset)
        seen = told(node)
        for x in 2 * torch.rand(5, 3, 4, requires_grad=True):
            node(x)
        before = torch.stack(seen.saved) + 0.6
        fired = torch.stack(seen.spikes) > 0
        assert fired.any()
        assert {m.pre_reset for m in seen.membranes} == {v_reset is None}
        if v_reset is None:
            torch.testing.assert_close(seen.potentials, before)
        else:
            assert torch.equal(seen.potentials == 0, fired)
            torch.testing.assert_close(seen.potentials[~fired], before[~fired])


def test_of_a_sequence_the_potential_is_that_of_the_last_step_or_of_all_that_are_stored(told):
    torch.manual_seed(0)
    for stored in (False, True):
        node = neuron.IFNode(v_reset=None, step_mode="m", store_v_seq=stored)
        seen = told(node)
        node(2 * torch.rand(5, 3, 4, requires_grad=True))
        before = torch.stack(seen.saved) + 1
        (membrane,) = seen.membranes
        assert membrane.pre_reset
        torch.testing.assert_close(membrane.potential, before if stored else before[-1])


def test_counts_of_spikes_are_undone_as_counts(told):
    node = neuron.ILIFNode(tau=2.0)
    seen = told(node)
    node(torch.tensor([[0.4, 1.2, 3.4]]))
    assert seen.spikes[0].tolist() == [[0.0, 1.0, 3.0]]
    torch.testing.assert_close(seen.potentials[0], torch.tensor([[0.4, 1.2, 3.4]]))


@pytest.mark.parametrize(
    ("node", "decay"),
    [
        (neuron.LIFNode(tau=4.0, decay_input=False), 0.75),
        (neuron.LIFNode(tau=4.0), 0.75),
        (neuron.ParametricLIFNode(init_tau=5.0, decay_input=False), 0.8),
        (neuron.CUBALIFNode(c_decay=0.0, v_decay=0.3), 0.3),
        (neuron.KLIFNode(tau=4.0, decay_input=False), 0.75),
        (neuron.ComplementaryLIFNode(tau=4.0), 0.75),
        (neuron.TernaryLIFNode(tau=5.0), 0.8),
        (neuron.ILIFNode(tau=2.0), 0.5),
        (neuron.IFNode(), None),
    ],
)
def test_the_decay_is_what_a_charge_decays_by(dynamics, node, decay):
    found = dynamics(node).decay
    assert found == (None if decay is None else pytest.approx(decay))
    charges = []
    for x in (torch.full((1, 2), 0.2), torch.zeros(1, 2)):
        node(x)
        charges.append(node.v.flatten()[0].item())
    assert charges[1] / charges[0] == pytest.approx(1.0 if decay is None else decay)


def test_threshold_reset_surrogate_and_trainable_parameters_are_the_nodes_own(dynamics):
    plain = dynamics(neuron.IFNode(v_threshold=0.7, surrogate_function=surrogate.ATan(alpha=3.0)))
    assert (plain.threshold, plain.reset, plain.surrogate) == (0.7, "zero", "ATan(alpha=3)")
    assert dynamics(neuron.LIFNode(v_reset=None)).reset == "subtract"
    trained = neuron.ParametricLIFNode()
    assert dynamics(trained).learnable == {"w": trained.w}
    gated = neuron.GatedLIFNode(T=3, inplane=4, init_v_threshold=0.25)
    assert dynamics(gated).threshold.flatten().tolist() == pytest.approx([0.25] * 4)
    clamped = neuron.DSRIFNode(v_threshold=0.5)
    with torch.no_grad():
        clamped.v_threshold.fill_(-3.0)
    assert dynamics(clamped).threshold == pytest.approx(0.01)
    assert dynamics(neuron.PSN(T=2)).reset == "none"


class WithThreshold(neuron.SimpleLIFNode):
    """As users write it who train a threshold of their own."""

    def __init__(self):
        super().__init__(tau=2.0, decay_input=True, v_threshold=0.5)
        self.dynamic_threshold = nn.Parameter(torch.tensor(0.5))

    def neuronal_fire(self):
        return self.surrogate_function(self.v - self.dynamic_threshold)


class WithSurrogate(WithThreshold):
    def neuronal_fire(self):
        return surrogate.ATan()(self.v - self.v_threshold)


def test_of_a_class_that_fires_by_a_threshold_of_its_own_theirs_is_not_stored(listen):
    net = nn.Sequential(WithThreshold(), nn.Linear(4, 4), WithSurrogate())
    heard = listen(net)
    net(torch.rand(8, 4))
    first, second = heard.tables("0"), heard.tables("2")
    assert "n_thresholds" not in first["dynamics"]
    assert "membrane" not in first
    assert second["dynamics"]["sum_threshold"] == 0.5
    assert second["membrane"]["n_membrane"] == 32


def test_surrogates_that_layers_share_are_left_alone(listen):
    torch.manual_seed(0)
    net = nn.Sequential(layer.Linear(6, 5), neuron.LIFNode(), layer.Linear(5, 4), neuron.LIFNode())
    shared = net[1].surrogate_function
    assert shared is net[3].surrogate_function
    heard = listen(net)
    assert not shared._forward_hooks
    assert not shared._forward_pre_hooks
    net(5 * torch.rand(3, 6))
    assert heard.flush("1", "gradients")["n_sg"] == 15
    assert heard.flush("3", "gradients")["n_sg"] == 12


SEQUENCES = {
    "GatedLIF": (lambda: neuron.GatedLIFNode(T=4), (2, 3, 3)),
    "DSRIF": (lambda: neuron.DSRIFNode(T=4, v_threshold=1.0), (6,)),
    "DSRLIF": (lambda: neuron.DSRLIFNode(T=4, v_threshold=0.1), (6,)),
    "MaskedPSN": (lambda: neuron.MaskedPSN(k=2, T=4, step_mode="m"), (6,)),
    "SlidingPSN": (lambda: neuron.SlidingPSN(k=2, step_mode="m"), (6,)),
    "MPBNLIF": (lambda: neuron.MPBNLIFNode(out_features=6, step_mode="m"), (6,)),
    "STBIF": (lambda: neuron.STBIFNode(0.5, level=8, step_mode="m"), (6,)),
    "ILCIF": (lambda: neuron.ILCIFNode(act_dim=2, dec_pop_dim=3), (6,)),
    "ILCCUBALIF": (lambda: neuron.ILCCUBALIFNode(act_dim=2, dec_pop_dim=3), (6,)),
    "NoisyCUBALIF": (lambda: neuron.NoisyCUBALIFNode(num_node=6, T=4), (6,)),
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_neurons_of_whole_sequences_are_counted_and_told_of(listen, told, dynamics, name):
    torch.manual_seed(6)
    make, shape = SEQUENCES[name]
    node = make()
    if name == "NoisyCUBALIF":
        node.reset_noise(1)
    heard, seen = listen(nn.Sequential(node)), told(node)
    with torch.set_grad_enabled(name != "STBIF"):  # for inference only
        node(3 * torch.rand(4, 5, *shape, requires_grad=True))
    row = heard.flush("0", "spikes", "eval" if name == "STBIF" else "train")
    (spikes,) = seen.spikes
    assert row["n_obs"] == 4 * 5
    assert row["n_neurons"] == torch.tensor(shape).prod()
    assert row["n_spikes"] == spikes.count_nonzero() > 0
    assert dynamics(node).reset in ("subtract", "zero", "none", None)
    if seen.membranes[0] is not None:
        assert seen.membranes[0].potential.shape in (spikes.shape, spikes.shape[1:])
