"""snnTorch's own neurons, in its own style of loop, against figures taken from the tensors."""

import pytest
import snntorch as snn
import torch
from snntorch import surrogate, utils
from torch import nn


@pytest.fixture(autouse=True)
def _no_neurons_of_other_tests():
    """snnTorch keeps every neuron ever made in a list, and resets all of them at once."""
    snn.SpikingNeuron.init()


def test_a_loop_over_time_counts_every_step_and_sample(listen):
    torch.manual_seed(0)
    net = nn.ModuleDict({"fc": nn.Linear(8, 5), "lif": snn.Leaky(beta=0.9)})
    heard = listen(net)
    mem, seen = net["lif"].init_leaky(), []
    for x in 3 * torch.rand(7, 4, 8):
        spikes, mem = net["lif"](net["fc"](x), mem)
        seen.append(spikes)
    spikes = torch.stack(seen)
    row = heard.flush("lif", "spikes")
    assert row["n_obs"] == 7 * 4
    assert row["n_neurons"] == 5
    assert row["n_spikes"] == spikes.count_nonzero() > 0
    assert row["n_positive"] == row["n_spikes"] == row["sum_abs_spike"]
    assert row["n_nonfinite_spikes"] == 0


@pytest.mark.parametrize("threshold", [0.5, 1.0])
def test_the_surrogate_slope_is_the_analytic_one(listen, threshold):
    torch.manual_seed(1)
    lif = snn.Leaky(beta=0.8, threshold=threshold, spike_grad=surrogate.atan(alpha=2.0))
    net = nn.Sequential(lif)
    heard = listen(net)
    mem, slopes = lif.init_leaky(), []
    for current in torch.randn(6, 3, 4, requires_grad=True):
        _, mem = lif(current, mem)
        u = lif.mem.detach() - threshold
        slopes.append(1 / (1 + (torch.pi * u) ** 2))
    expected = torch.stack(slopes)
    row = heard.flush("0", "gradients")
    assert row["n_sg"] == expected.numel()
    assert row["sum_sg"] == pytest.approx(expected.sum().item(), rel=1e-5)
    assert row["n_sg_active"] == (expected > 0.01).sum()
    assert row["n_carrying"] == (expected > 0.01).any(0).any(0).sum()
    assert row["n_sg_neurons"] == 4


def test_the_gradient_at_the_spikes_is_autograds(listen):
    torch.manual_seed(2)
    lif = snn.Leaky(beta=0.5, init_hidden=True)
    net = nn.Sequential(nn.Linear(6, 3), lif)
    heard = listen(net)
    outputs = [net(x) for x in torch.rand(5, 2, 6)]
    for spikes in outputs:
        spikes.retain_grad()
    weight = torch.randn(5, 2, 3)
    (torch.stack(outputs) * weight).sum().backward()
    row = heard.flush("1", "gradients")
    expected = sum(s.grad.square().sum().item() for s in outputs)
    assert row["n_grad"] == 30
    assert row["sum_sq_grad"] == pytest.approx(expected, rel=1e-6)


def test_bare_tensors_and_synaptic_tuples_are_both_read(listen):
    net = nn.Sequential(snn.Leaky(beta=0.9, init_hidden=True), snn.Synaptic(0.9, 0.8))
    heard = listen(net)
    spikes = net[0](torch.full((2, 3), 2.0))
    net[1](5 * spikes)
    assert heard.flush("0", "spikes")["n_spikes"] == 6
    assert heard.flush("1", "spikes")["n_obs"] == 2


def test_evaluation_is_kept_apart(listen):
    net = nn.Sequential(snn.Leaky(beta=0.9, init_hidden=True))
    heard = listen(net)
    with torch.no_grad():
        net(torch.full((3, 2), 2.0))
    assert heard.flush("0", "spikes", "train") is None
    assert heard.flush("0", "spikes", "eval")["n_obs"] == 3


def test_real_valued_neurons_are_left_out(listen):
    net = nn.Sequential(snn.AssociativeLeaky(4, 2, 2, 4), snn.Leaky(beta=0.9))
    assert list(listen(net).observers) == ["1"]


def test_a_trainable_amplitude_is_reported(listen):
    lif = snn.Leaky(
        beta=0.9, init_hidden=True, graded_spikes_factor=4.0, learn_graded_spikes_factor=True
    )
    heard = listen(nn.Sequential(lif))
    lif(torch.full((2, 3), 2.0))
    row = heard.flush("0", "amplitudes")
    assert row["n_amplitudes"] == 1
    assert row["sum_amplitude"] == 4.0
    assert row["n_amplitudes_out"] == 1


def test_spikes_that_the_loss_does_not_use_have_no_gradient_elements(listen):
    net = nn.ModuleDict({"hidden": snn.Leaky(beta=0.9), "readout": snn.Leaky(beta=0.9)})
    heard = listen(net)
    spikes, _ = net["hidden"](torch.rand(3, 4, requires_grad=True), torch.zeros(3, 4))
    _, mem = net["readout"](spikes, torch.zeros(3, 4))
    mem.sum().backward()
    assert heard.flush("hidden", "gradients")["n_grad"] == 12
    assert heard.flush("readout", "gradients")["n_grad"] == 0


def leaky_by_hand(currents, *, beta, threshold, reset):
    """Potentials before the reset and spikes of a leaky neuron, written down anew."""
    u, s, potentials, spikes = torch.zeros_like(currents[0]), None, [], []
    for current in currents:
        fired = torch.zeros_like(u) if s is None else s
        u = {
            "subtract": beta * u - fired * threshold,
            "zero": beta * (1 - fired) * u,
            "none": beta * u,
        }[reset] + current
        s = (u > threshold).float()
        potentials.append(u)
        spikes.append(s)
    return torch.stack(potentials), torch.stack(spikes)


@pytest.mark.parametrize("reset", ["subtract", "zero", "none"])
def test_the_potential_is_that_before_the_reset(told, dynamics, reset):
    torch.manual_seed(3)
    lif = snn.Leaky(beta=0.8, threshold=0.7, reset_mechanism=reset, init_hidden=True)
    seen, currents = told(lif), torch.rand(6, 2, 5)
    for current in currents:
        lif(current)
    potentials, spikes = leaky_by_hand(currents, beta=0.8, threshold=0.7, reset=reset)
    assert spikes.any()
    torch.testing.assert_close(seen.potentials, potentials)
    assert all(m.pre_reset for m in seen.membranes)
    assert torch.equal(torch.stack(seen.spikes), spikes)
    assert dynamics(lif).reset == reset


def test_without_reset_delay_the_potential_is_that_after_the_reset(told):
    torch.manual_seed(3)
    lif = snn.Leaky(beta=0.8, threshold=0.7, init_hidden=True, reset_delay=False)
    seen, currents = told(lif), torch.rand(6, 2, 5)
    for current in currents:
        lif(current)
    after, expected = torch.zeros(2, 5), []
    for current in currents:
        before = 0.8 * after + current
        after = before - 0.7 * (before > 0.7).float()
        expected.append(after)
    torch.testing.assert_close(seen.potentials, torch.stack(expected))
    assert not any(m.pre_reset for m in seen.membranes)


def two_layers(**settings):
    return nn.ModuleDict(
        {"first": snn.Leaky(beta=0.9, **settings), "fc": nn.Linear(4, 4)}
        | {"second": snn.Leaky(beta=0.9, **settings)}
    )


@pytest.mark.parametrize("trains", [True, False])
@pytest.mark.parametrize("by_keyword", [True, False])
def test_a_sample_starts_where_the_state_that_is_passed_is_fresh(told, trains, by_keyword):
    torch.manual_seed(0)
    net = two_layers()
    first, second = told(net["first"]), told(net["second"])
    with torch.set_grad_enabled(trains):
        for _ in range(2):  # the first layer's input has no gradient: nothing in the graph tells
            mem_1, mem_2 = net["first"].init_leaky(), net["second"].init_leaky()
            for x in torch.rand(5, 3, 4):
                if by_keyword:
                    spikes, mem_1 = net["first"](x, mem=mem_1)
                    _, mem_2 = net["second"](net["fc"](spikes), mem=mem_2)
                else:
                    spikes, mem_1 = net["first"](x, mem_1)
                    _, mem_2 = net["second"](net["fc"](spikes), mem_2)
    assert first.starts == second.starts == [True, False, False, False, False] * 2


@pytest.mark.parametrize("trains", [True, False])
def test_a_sample_starts_after_a_reset_of_the_hidden_state(told, trains):
    torch.manual_seed(0)
    net = two_layers(init_hidden=True)
    second = told(net["second"])
    with torch.set_grad_enabled(trains):
        for _ in range(2):
            utils.reset(nn.Sequential(*net.values()))  # it looks at direct children only
            for x in torch.rand(4, 3, 4):
                net["second"](net["fc"](net["first"](x)))
        net["second"](torch.rand(7, 4))  # a batch of another size: snnTorch begins anew
    assert second.starts == [True, False, False, False] * 2 + [True]


def test_truncated_backpropagation_starts_no_sample(told):
    torch.manual_seed(0)
    lif = snn.Leaky(beta=0.9, init_hidden=True)
    seen = told(lif)
    for x in torch.rand(6, 2, 3, requires_grad=True):
        lif(x)
        snn.Leaky.detach_hidden()
    assert seen.starts == [True] + [False] * 5


@pytest.mark.parametrize(
    ("neuron", "decay"),
    [
        (snn.Leaky(beta=0.9), 0.9),
        (snn.Leaky(beta=1.3, learn_beta=True), 1.0),  # clamped where it acts
        (snn.Synaptic(alpha=0.8, beta=0.6), 0.6),
        (snn.Lapicque(beta=0.5), None),
        (snn.Lapicque(R=5.0, C=2.0, time_step=1.0), 0.9),
        (snn.RLeaky(beta=0.7, linear_features=4), 0.7),
        (snn.RSynaptic(alpha=0.5, beta=0.4, linear_features=4), 0.4),
        (snn.StateLeaky(beta=0.5, channels=4), None),
        (snn.LeakyParallel(4, 4, beta=0.75, bias=False, learn_beta=True), 0.75),
    ],
)
def test_the_decay_is_what_a_charge_decays_by(dynamics, neuron, decay):
    told_decay = dynamics(neuron).decay
    if decay is not None:
        assert told_decay.flatten()[0].item() == pytest.approx(decay)
    pulse = torch.zeros(2, 1, 4)
    pulse[0] = 0.2
    if isinstance(neuron, snn.StateLeaky):
        _, mem = neuron(pulse)
        assert mem[1, 0, 0] / mem[0, 0, 0] == pytest.approx(told_decay.item())
    elif isinstance(neuron, snn.Leaky | snn.Lapicque):
        mem = torch.zeros(1, 4)
        charges = [mem := neuron(x, mem)[1] for x in pulse]
        assert (charges[1] / charges[0]).flatten()[0].item() == pytest.approx(
            told_decay.flatten()[0].item()
        )


def test_threshold_surrogate_and_trainable_parameters_are_the_neurons_own(dynamics):
    lif = snn.Leaky(
        beta=torch.tensor([0.1, 0.9]),
        threshold=0.5,
        learn_beta=True,
        learn_threshold=True,
        spike_grad=surrogate.fast_sigmoid(slope=10),
    )
    found = dynamics(lif)
    assert found.threshold == 0.5
    assert torch.equal(found.decay, lif.beta)
    assert found.surrogate == "fast_sigmoid(slope=10)"
    assert found.learnable == {"beta": lif.beta, "threshold": lif.threshold}
    assert not found.decay.requires_grad
    assert dynamics(snn.Leaky(beta=0.9)).surrogate == "atan(alpha=2)"
    assert dynamics(snn.LeakyParallel(2, 2)).surrogate == "ATan"
    assert not dynamics(snn.Leaky(beta=0.9)).learnable


EVERY = {
    "Leaky": lambda: snn.Leaky(0.9, init_hidden=True, output=True),
    "Synaptic": lambda: snn.Synaptic(0.9, 0.8, init_hidden=True),
    "Alpha": lambda: snn.Alpha(0.9, 0.8, init_hidden=True),
    "Lapicque": lambda: snn.Lapicque(0.5, threshold=0.4, init_hidden=True),
    "RLeaky": lambda: snn.RLeaky(0.9, linear_features=4, init_hidden=True),
    "RSynaptic": lambda: snn.RSynaptic(0.9, 0.8, linear_features=4, init_hidden=True),
    "SLSTM": lambda: snn.SLSTM(4, 4, threshold=0.05, init_hidden=True),
    "DeltaLeaky": lambda: snn.DeltaLeaky(0.5, beta=0.9, init_hidden=True),
    "SConv2dLSTM": lambda: snn.SConv2dLSTM(
        2, 3, 3, max_pool=2, threshold=0.05, init_hidden=True, output=True
    ),
    "StateLeaky": lambda: snn.StateLeaky(0.9, channels=4),
    "LinearLeaky": lambda: snn.LinearLeaky(0.9, 4, 4, threshold=0.2),
    "LeakyParallel": lambda: snn.LeakyParallel(4, 4, beta=0.9, threshold=0.1),
}


@pytest.mark.parametrize("name", EVERY)
def test_every_neuron_is_counted_and_its_potential_is_what_the_surrogate_saw(listen, told, name):
    torch.manual_seed(5)
    neuron = EVERY[name]()
    heard, seen = listen(nn.Sequential(neuron)), told(neuron)
    whole = name in ("StateLeaky", "LinearLeaky", "LeakyParallel")
    shape = (2, 4, 4) if name == "SConv2dLSTM" else (4,)
    x = 2 * torch.rand(5, 3, *shape, requires_grad=True)
    outputs = [neuron(x)] if whole else [neuron(frame) for frame in x]
    spikes = [o[0] if isinstance(o, tuple) else o for o in outputs]
    row = heard.flush("0", "spikes")
    assert row["n_obs"] == 15
    assert row["n_spikes"] == sum(s.count_nonzero().item() for s in spikes) > 0
    assert seen.starts == [True] * len(seen.starts) if whole else [True, *[False] * 4]
    saved = seen.saved if whole else seen.saved[: len(outputs)]
    if seen.membranes[0] is None:
        assert name in ("SConv2dLSTM", "LeakyParallel")
        return
    threshold = 0.5 if name == "DeltaLeaky" else neuron.threshold
    for membrane, at_node in zip(seen.membranes, saved, strict=True):
        assert membrane.pre_reset
        torch.testing.assert_close(membrane.potential - threshold, at_node)


def test_surrogates_that_give_nan_or_a_negative_slope_are_told(listen):
    """As two of snnTorch 1.0 do: `sigmoid` far below the threshold, `triangular` above it."""
    nan = snn.Leaky(beta=0.5, spike_grad=surrogate.sigmoid(slope=25), init_hidden=True)
    negative = snn.Leaky(beta=0.5, spike_grad=surrogate.triangular(), init_hidden=True)
    heard = listen(nn.ModuleList([nan, negative]))
    nan(torch.full((2, 3), -4.0, requires_grad=True))
    negative(torch.full((2, 3), 2.0, requires_grad=True))
    assert heard.flush("0", "gradients")["n_sg_nonfinite"] > 0
    assert heard.flush("1", "gradients")["n_sg_negative"] > 0


class Tutorial(nn.Module):
    """As in snnTorch's tutorials: states made in forward, a loop over time, a readout."""

    def __init__(self):
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(6, 9), snn.Leaky(beta=0.95)
        self.fc2, self.lif2 = nn.Linear(9, 3), snn.Leaky(beta=0.95, reset_mechanism="none")

    def forward(self, x):
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
        recorded = []
        for _ in range(8):
            spk1, mem1 = self.lif1(self.fc1(x), mem1)
            _, mem2 = self.lif2(self.fc2(spk1), mem2)
            recorded.append(mem2)
        return torch.stack(recorded)


def test_a_training_in_the_tutorials_style_is_counted(listen, told):
    torch.manual_seed(7)
    net = Tutorial()
    heard, seen = listen(net), told(net.lif1)
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3, betas=(0.9, 0.999))
    for _ in range(3):
        mem = net(2 * torch.rand(5, 6))
        loss = sum(nn.functional.cross_entropy(m, torch.tensor([0, 1, 2, 0, 1])) for m in mem)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    hidden, readout = heard.tables("lif1"), heard.tables("lif2")
    spikes, u = torch.stack(seen.spikes), seen.potentials
    assert seen.starts == [True, *[False] * 7] * 3
    assert (hidden["spikes"]["n_obs"], hidden["spikes"]["n_neurons"]) == (3 * 8 * 5, 9)
    assert hidden["spikes"]["n_spikes"] == spikes.sum() > 0
    slopes = 1 / (1 + (torch.pi * (u - 1)) ** 2)
    assert hidden["gradients"]["sum_sg"] == pytest.approx(slopes.sum().item(), rel=1e-5)
    assert hidden["gradients"]["n_grad"] == spikes.numel()
    assert readout["gradients"]["n_grad"] == 0  # its spikes are thrown away
