"""Norse's cells and its modules over time."""

import norse.torch as norse
import pytest
import torch
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
