"""Classes that users derive from SpikingJelly's neurons, with dynamics of their own."""

import pytest
import torch
from spikingjelly.activation_based import neuron, surrogate
from torch import nn


class InSeconds(neuron.SimpleLIFNode):
    """As networks with short-term plasticity write it: τ and the time step are in seconds."""

    def __init__(self):
        super().__init__(tau=0.02, decay_input=False)
        self.dt = 0.001

    def neuronal_charge(self, x):
        self.v = self.v - self.v * (self.dt / self.tau) + x


def test_a_time_constant_that_a_users_own_charge_reads_in_seconds_is_no_decay(listen):
    node = InSeconds()
    heard = listen(nn.Sequential(node))
    node(torch.rand(3, 4, requires_grad=True))
    row = heard.flush("0", "dynamics")
    assert row["sum_threshold"] == 1.0
    assert "n_decays" not in row


class Selective(neuron.BaseNode):
    """Decay, gain and threshold are made of the input; the constructor's threshold is none."""

    def __init__(self):
        super().__init__(v_threshold=1.0, v_reset=None, surrogate_function=surrogate.Sigmoid())

    def single_step_forward(self, x, beta, v_th):
        u = beta * self.v + x
        spike = self.surrogate_function(u - v_th)
        self.v = u - spike * v_th
        return spike


class Fixed(neuron.LIFNode):
    """Its own loop over time, by a decay and a threshold that are written there."""

    def __init__(self):
        super().__init__(tau=2.0, v_threshold=0.9, step_mode="m")
        self.decay_factor = 0.25

    def forward(self, x):
        u, out = torch.zeros_like(x[0]), []
        for current in x:
            u = u * self.decay_factor + current
            out.append(self.surrogate_function(u - 0.5))
        return torch.stack(out)


def test_what_a_users_own_forward_does_not_act_by_is_not_stored(listen, dynamics):
    selective, fixed = Selective(), Fixed()
    for node in (selective, fixed):
        told = dynamics(node)
        assert (told.threshold, told.decay, told.reset, told.reset_to) == (None, None, None, None)
    heard = listen(nn.Sequential(fixed))
    fixed(2 * torch.rand(4, 3, 5, requires_grad=True))
    tables = heard.tables("0")
    assert tables["spikes"]["n_spikes"] > 0
    assert "membrane" not in tables


class Looped(neuron.SimpleLIFNode):
    def forward(self, x):
        return torch.stack([self.single_step_forward(frame) for frame in x])


class Restarted(neuron.LIFNode):
    def multi_step_forward(self, x):
        self.reset()
        return super().multi_step_forward(self._scaled(x))

    def _scaled(self, x):
        return 2 * x


class Plain(neuron.LIFNode):
    def __init__(self):
        super().__init__(tau=4.0, v_threshold=0.5, v_reset=None)


@pytest.mark.parametrize(
    "node",
    [
        Looped(tau=4.0, decay_input=True, v_threshold=0.5, v_reset=None),
        Restarted(tau=4.0, v_threshold=0.5, v_reset=None),
        Plain(),
    ],
)
def test_what_the_librarys_own_code_acts_by_is_told_of_a_users_class_as_well(dynamics, node):
    told = dynamics(node)
    assert (told.threshold, told.decay, told.reset) == (0.5, 0.75, "subtract")


class Factor(neuron.SimpleLIFNode):
    def __init__(self, decay):
        super().__init__(tau=2.0, decay_input=False)
        self.decay = decay

    def neuronal_charge(self, x):
        self.v = self.v * self.decay + x


def test_a_decay_that_a_users_own_charge_names_is_told_where_it_can_be_one(listen):
    for decay, n_decays in ((0.3, 1), (25.0, None)):
        node = Factor(decay)
        heard = listen(nn.Sequential(node))
        node(torch.rand(3, 4, requires_grad=True))
        assert heard.flush("0", "dynamics").get("n_decays") == n_decays


class WithAdaptation(neuron.SimpleIFNode):
    """A τ, but of the threshold."""

    def __init__(self):
        super().__init__()
        self.tau = 0.1


class ParametricLIFNode(neuron.SimpleBaseNode):
    """A user's own, of the library's name."""

    def neuronal_charge(self, x):
        self.v = self.v * 0.5 + x


def test_names_and_attributes_of_a_users_class_are_not_taken_for_the_librarys(dynamics):
    assert dynamics(WithAdaptation()).decay is None
    assert dynamics(ParametricLIFNode()).decay is None


class Folded(neuron.SimpleLIFNode):
    """Of step mode "m", though time is in the batch, as where all other layers know of none."""

    def forward(self, x):
        self.reset()
        frames = x.view(5, -1, *x.shape[1:])
        return torch.cat([self.single_step_forward(frame) for frame in frames])


def test_time_that_a_users_class_folds_into_the_batch_is_told_from_the_samples(listen):
    torch.manual_seed(0)
    node = Folded(2.0, decay_input=False, step_mode="m")
    heard = listen(nn.Sequential(node))
    out = node(2 * torch.rand(5 * 3, 2, 4, 4, requires_grad=True))
    tables = heard.tables("0")
    assert (tables["spikes"]["n_obs"], tables["spikes"]["n_neurons"]) == (15, 32)
    fired = out.detach().unflatten(0, (5, 3)) != 0
    assert tables["timing"]["n_ttfs_pairs"] == 3 * 32
    assert tables["timing"]["sum_ttfs_steps"] == fired.float().argmax(0)[fired.any(0)].sum()
    with torch.no_grad():
        node(2 * torch.rand(5 * 3, 2, 4, 4))
    assert heard.tables("0", "eval")["spikes"]["n_neurons"] == 32


def test_a_users_loop_over_time_is_seen_in_a_class_of_single_steps(listen):
    node = Looped(tau=4.0, decay_input=True)
    heard = listen(nn.Sequential(node))
    node(torch.rand(5, 3, 4, requires_grad=True))
    spikes = heard.flush("0", "spikes")
    assert (spikes["n_obs"], spikes["n_neurons"]) == (15, 4)


def test_a_sequence_put_together_of_slices_is_no_batch(listen):
    class Sliced(neuron.SimpleLIFNode):
        def multi_step_forward(self, x):
            return torch.cat([self.single_step_forward(x[t : t + 1]) for t in range(len(x))])

    node = Sliced(2.0, decay_input=False, step_mode="m")
    heard = listen(nn.Sequential(node))
    node(torch.rand(5, 3, 4, requires_grad=True))
    spikes = heard.flush("0", "spikes")
    assert (spikes["n_obs"], spikes["n_neurons"]) == (15, 4)
