"""Norse's cells and its modules over time."""

import norse.torch as norse
import pytest
import torch
from norse.torch.functional.coba_lif import CobaLIFParameters
from norse.torch.functional.reset import reset_subtract, reset_value
from norse.torch.module.coba_lif import CobaLIFCell
from norse.torch.module.lif_correlation import LIFCorrelation
from torch import nn


@pytest.mark.parametrize("whole", [False, True])
def test_cells_and_sequences_give_the_same_figures(listen, whole):
    torch.manual_seed(0)
    cell, sequence = norse.LIFCell(), norse.LIF()
    neuron = sequence if whole else cell
    heard = listen(nn.ModuleList([neuron]))
    x = 20 * torch.rand(9, 4, 5, requires_grad=True)
    if whole:
        spikes, _ = neuron(x)
    else:
        state, out = None, []
        for frame in x:
            s, state = neuron(frame, state)
            out.append(s)
        spikes = torch.stack(out)
    spikes.sum().backward()
    rows = heard.tables("0")
    row = rows["spikes"]
    assert (row["n_obs"], row["n_neurons"]) == (36, 5)
    assert row["n_spikes"] == spikes.count_nonzero() > 0
    assert rows["gradients"]["n_sg"] == 180


def test_leaky_integrators_are_left_out(listen):
    net = nn.ModuleList([norse.LICell(), norse.LIBoxCell(), norse.LI(), norse.LIFBoxCell()])
    assert list(listen(net).observers) == ["3"]


def test_the_cell_inside_a_sequential_state_is_found(listen):
    net = norse.SequentialState(nn.Linear(4, 3), norse.LIFCell(), norse.LICell())
    heard = listen(net)
    net(torch.rand(2, 4))
    assert heard.flush("1", "spikes")["n_obs"] == 2


class Classifier(nn.Module):
    """As in Norse's tutorials: a loop over time in forward, a leaky integrator at the end."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 8)
        self.lif = norse.LIFRecurrentCell(8, 5)
        self.readout = norse.LILinearCell(5, 3)

    def forward(self, x):
        hidden = out = None
        for frame in x:
            spikes, hidden = self.lif(self.fc(frame), hidden)
            v, out = self.readout(spikes, out)
        return v


@pytest.mark.parametrize("trains", [True, False])
def test_a_training_in_the_tutorials_style_is_counted_by_sample(listen, told, trains):
    torch.manual_seed(0)
    net = Classifier()
    heard, seen = listen(net), told(net.lif)
    assert heard.spiking == ["lif"]
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    for _ in range(2):
        with torch.set_grad_enabled(trains):
            loss = net(30 * torch.rand(7, 4, 6)).square().mean()
        if trains:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    tables = heard.tables("lif", "train" if trains else "eval")
    spikes = torch.stack(seen.spikes)
    assert seen.starts == [True, *[False] * 6] * 2
    assert (tables["spikes"]["n_obs"], tables["spikes"]["n_neurons"]) == (56, 5)
    assert tables["spikes"]["n_spikes"] == spikes.sum() > 0
    if trains:
        slopes = 1 / (torch.stack(seen.saved).abs() + 1) ** 2  # Norse leaves SuperSpike's α out
        assert tables["gradients"]["sum_sg"] == pytest.approx(slopes.sum().item(), rel=1e-5)


def test_a_lifted_cell_is_called_for_each_step(listen, told):
    torch.manual_seed(0)
    net = norse.SequentialState(norse.Lift(nn.Linear(4, 3)), norse.Lift(norse.LIFCell()))
    cell = net[1].lifted_module
    heard, seen = listen(net), told(cell)
    net(50 * torch.rand(5, 2, 4))
    assert seen.starts == [True, False, False, False, False]
    assert heard.flush("1.lifted_module", "spikes")["n_obs"] == 10


@pytest.mark.parametrize(
    ("cell", "factor"),
    [
        (norse.LIFCell(), 0.9),
        (norse.LIFCell(p=norse.LIFParameters(tau_mem_inv=torch.tensor(300.0))), 0.7),
        (norse.LIFCell(dt=0.002), 0.8),
        (norse.LIFBoxCell(), 0.9),
        (norse.LSNNCell(), 0.9),
        (norse.LIFRefracCell(), 0.9),
        (norse.LIFExCell(), None),
        (norse.IAFCell(), None),
    ],
)
def test_the_decay_is_what_a_charge_decays_by(dynamics, cell, factor):
    found = dynamics(cell)
    assert found.decay == (None if factor is None else pytest.approx(factor))
    assert (found.threshold, found.reset) == (1.0, "zero")
    if factor is not None:
        _, state = cell(torch.zeros(1, 2))
        inner = getattr(state, "lif", state)
        charged = inner._replace(v=torch.full((1, 2), 0.5))
        state = state._replace(lif=charged) if hasattr(state, "lif") else charged
        _, state = cell(torch.zeros(1, 2), state)
        v = getattr(state, "lif", state).v
        assert v.flatten()[0].item() == pytest.approx(0.5 * factor)


def test_surrogate_and_trainable_parameters_are_those_of_p(dynamics):
    trained = nn.Parameter(torch.tensor(0.7))
    cell = norse.LIFCell(p=norse.LIFParameters(method="tanh", alpha=5.0, v_th=trained))
    found = dynamics(cell)
    assert found.surrogate == "tanh(alpha=5)"
    assert found.learnable == {"v_th": trained}
    assert found.threshold == pytest.approx(0.7)
    assert dynamics(norse.LIFCell()).surrogate == "super(alpha=100)"


@pytest.mark.parametrize("subtracts", [True, False])
def test_a_reset_by_subtraction_is_undone_and_one_to_a_value_is_not(told, dynamics, subtracts):
    torch.manual_seed(0)
    reset = reset_subtract if subtracts else reset_value
    cell = norse.LIFBoxCell(p=norse.LIFBoxParameters(reset_method=reset))
    seen, state = told(cell), None
    for x in 30 * torch.rand(6, 2, 3, requires_grad=True):
        _, state = cell(x, state)
    before, fired = torch.stack(seen.saved) + 1, torch.stack(seen.spikes) > 0
    assert fired.any()
    assert {m.pre_reset for m in seen.membranes} == {subtracts}
    expected = before if subtracts else before.where(~fired, 0)
    torch.testing.assert_close(seen.potentials, expected)
    assert dynamics(cell).reset == ("subtract" if subtracts else "zero")


@pytest.mark.parametrize("recurrent", [False, True])
def test_a_potential_is_measured_from_the_threshold_that_has_adapted(told, recurrent):
    torch.manual_seed(0)
    p = norse.LSNNParameters(v_th=torch.tensor(0.3), tau_adapt_inv=torch.tensor(5.0))
    cell = norse.LSNNRecurrentCell(3, 3, p=p) if recurrent else norse.LSNNCell(p=p)
    seen, state = told(cell), None
    for x in 30 * torch.rand(40, 8, 3, requires_grad=True):
        _, state = cell(x, state)
    fired = torch.stack(seen.spikes) > 0
    assert 0 < fired.float().mean() < 1
    assert state.b.max() > 1
    distance = seen.potentials - 0.3
    torch.testing.assert_close(distance[~fired], torch.stack(seen.saved)[~fired])
    assert (distance < 0).all()


@pytest.mark.parametrize("recorded", [False, True])
def test_thresholds_that_adapt_are_known_for_a_whole_sequence(told, recorded):
    torch.manual_seed(0)
    sequence = norse.LSNN(record_states=recorded)
    seen = told(sequence)
    sequence(30 * torch.rand(40, 8, 3, requires_grad=True))
    steps = slice(None) if recorded else -1
    distance, saved = seen.membranes[0].potential - 1, torch.stack(seen.saved)[steps]
    silent = seen.spikes[0][steps] == 0
    assert silent.any()
    torch.testing.assert_close(distance[silent], saved[silent])


def test_of_a_sequence_the_potential_is_the_last_or_all_that_are_recorded(told):
    torch.manual_seed(0)
    x = 30 * torch.rand(6, 2, 3)
    for recorded in (False, True):
        sequence = norse.LIF(record_states=recorded)
        seen = told(sequence)
        _, state = sequence(x)
        assert torch.equal(seen.membranes[0].potential, state.v)
        assert state.v.shape == ((6, 2, 3) if recorded else (2, 3))


def test_refractory_neurons_are_found_and_stay_silent_for_their_time(listen, told):
    torch.manual_seed(0)
    cell = norse.LIFRefracCell()
    heard, seen, state = listen(nn.Sequential(cell)), told(cell), None
    for _ in range(30):
        _, state = cell(torch.full((1, 2), 20.0, requires_grad=True), state)
    tables, spikes = heard.tables("0"), torch.stack(seen.spikes)
    assert tables["spikes"]["n_spikes"] == spikes.sum() > 2
    times = spikes[:, 0, 0].nonzero().flatten()
    assert times.diff().min() > 5
    assert {m.pre_reset for m in seen.membranes} == {False}
    # The gate of the refractory time is a Function as well, and none of the spike's.
    at_spikes = 1 / (1 + torch.stack(seen.saved).abs()).square()
    assert tables["gradients"]["n_sg"] == 60
    assert tables["gradients"]["sum_sg"] == pytest.approx(at_spikes.sum().item(), rel=1e-5)


def test_a_cell_with_conductances_is_norses_and_has_no_single_decay(listen, told, dynamics):
    torch.manual_seed(0)
    p = CobaLIFParameters(v_thresh=torch.tensor(-15.0))
    cell = CobaLIFCell(8, 5, p=p)
    heard, seen, state = listen(nn.Sequential(cell)), told(cell), None
    for x in 100 * torch.rand(6, 2, 8):
        _, state = cell(x, state)
        # In Norse 1.1 only the spikes of the cell itself reach its conductances.
        state = state._replace(z=torch.ones(2, 5))
    tables = heard.tables("0")
    assert seen.starts == [True, *[False] * 5]
    assert tables["spikes"]["n_obs"] == 12
    assert tables["spikes"]["n_spikes"] == torch.stack(seen.spikes).sum() > 0
    assert {m.pre_reset for m in seen.membranes} == {False}
    found = dynamics(cell)
    assert (found.threshold, found.decay, found.reset) == (-15.0, None, "zero")


def test_a_cell_that_is_given_its_weights_is_found(listen, told, dynamics):
    torch.manual_seed(0)
    cell = LIFCorrelation(6, 5)
    heard, seen, state = listen(nn.Sequential(cell)), told(cell), None
    w, r = (torch.rand(5, n, requires_grad=True) for n in (6, 5))
    for x in 20 * torch.rand(7, 1, 6):  # Norse takes one sample only
        _, state = cell(x, w, r, state)
    tables = heard.tables("0")
    assert seen.starts == [True, *[False] * 6]
    assert tables["spikes"]["n_obs"] == 7
    assert tables["spikes"]["n_spikes"] == torch.stack(seen.spikes).sum() > 0
    silent = torch.stack(seen.spikes) == 0
    torch.testing.assert_close(seen.potentials[silent], torch.stack(seen.saved)[silent] + 1)
    assert (dynamics(cell).threshold, dynamics(cell).decay) == (1.0, pytest.approx(0.9))
