"""What was heard of neurons that are functions, held against what they made."""

import pytest
import torch


def hear(listen, net):
    """Listen to a network during its first forward pass."""
    heard = listen(net)
    heard.n_forwards = 1
    return heard


def inner(heard, name, phase="train"):
    """Counters of the layers that one module's functions make, by their names."""
    observer = heard.observers[name]
    counts = observer.flush(phase)
    return {} if counts is None else {name + suffix: c for suffix, c in counts.sites.items()}


def row_of(heard, counts, table):
    return heard.plain(counts.tables[table])


def check(heard, counts, entries, *, n_neurons):
    """The rows of one layer against what was made there, one entry for each time step."""
    potentials, spikes, gradients = zip(*entries, strict=True)
    row = row_of(heard, counts, "spikes")
    assert (row["n_neurons"], row["n_obs"]) == (n_neurons, len(entries) * len(spikes[0]))
    assert row["n_spikes"] == row["n_positive"] == sum(s.sum() for s in spikes) > 0
    gradient = row_of(heard, counts, "gradients")
    come = [g for g in gradients if g is not None]
    assert gradient["n_grad"] == sum(g.numel() for g in come)
    if come:
        square = sum(g.square().sum() for g in come).item()
        assert gradient["sum_sq_grad"] == pytest.approx(square)
    times = torch.stack(spikes).ne(0)
    first = times.int().argmax(0)[times.any(0)]
    timing = row_of(heard, counts, "timing")
    assert timing["n_ttfs_fired"] == len(first)
    assert timing["sum_ttfs_steps"] == first.sum()
    return potentials
