"""Tandem learning (Wu et al. 2021): a network without spikes trains a spiking one's weights."""

import torch
from sinabs.layers import IAFSqueeze
from torch import nn


T, BATCH = 4, 8


def layers(act):
    return nn.Sequential(nn.Linear(6, 16), act(), nn.Linear(16, 3))


def train(watched, n_steps, *, share):
    torch.manual_seed(0)
    ann, snn = layers(nn.ReLU), layers(lambda: IAFSqueeze(batch_size=BATCH))
    share(ann, snn)
    watch = watched(snn)
    optimizer = torch.optim.SGD(ann.parameters(), 0.1)
    fired = []
    snn[1].register_forward_hook(lambda _m, _x, out: fired.append(int(out.count_nonzero())))
    for _ in range(n_steps):
        x = 3 * torch.rand(BATCH, 6)
        out = ann(x)
        with torch.no_grad():
            rates = snn(x.repeat(T, 1)).unflatten(0, (BATCH, T)).sum(1)
        out.data.copy_(rates)
        out.square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        snn[1].reset_states()
    watch.close()
    return fired


def by_data(ann, snn):
    for i in (0, 2):
        snn[i].weight.data, snn[i].bias.data = ann[i].weight.data, ann[i].bias.data


def as_a_copy(ann, snn):
    for i in (0, 2):
        snn[i].load_state_dict(ann[i].state_dict())


def test_steps_of_an_optimizer_whose_weights_share_their_memory_are_the_model_s(watched, stored):
    fired = train(watched, 5, share=by_data)
    rows = stored("SELECT step, n_obs, n_spikes FROM spikes ORDER BY step").rows()
    # Evaluations are observed as often as they pay for: all of the first ones.
    assert rows[:3] == [(step, T * BATCH, fired[step]) for step in range(3)]


def test_steps_of_an_optimizer_whose_weights_are_a_copy_are_not(watched, stored):
    train(watched, 5, share=as_a_copy)
    n_obs = stored("SELECT n_obs FROM spikes")["n_obs"]
    assert max(n_obs) > T * BATCH
