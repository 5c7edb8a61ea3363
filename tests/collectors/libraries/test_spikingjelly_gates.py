"""SpikingJelly's recurrent cells: their surrogates make gates, and spikes beside them."""

import torch
from spikingjelly.activation_based import rnn


def test_a_gate_that_stays_open_is_not_saturated_as_a_neuron_is(listen):
    for cell, is_gate in (
        (rnn.SpikingLSTMCell(4, 3), True),
        (rnn.SpikingVanillaRNNCell(4, 3), False),
    ):
        for linear in (cell.linear_ih, cell.linear_hh):
            torch.nn.init.constant_(linear.bias, 50.0)
        heard = listen(cell)
        cell(torch.rand(3000, 4))
        (name,) = heard.spiking or heard.observers
        row = heard.flush(name, "spikes")
        assert row["n_dead"] == 0
        assert row.get("n_saturated") == (None if is_gate else 3)
