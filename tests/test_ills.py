"""Which illness each model can have, and that it strikes there and nowhere else."""

import copy

import pytest
import torch

from spikewatch.ills import ILLS
from spikewatch.zoo.models import MODELS
from spikewatch.zoo.training import Training


SPIKING = {"dead-neurons", "saturated", "vanishing-gradient", "nan"}
CAN_HAVE = {
    "digits": set(ILLS),
    "spike-gpt": SPIKING,
    "spikformer": SPIKING,
    "equilibrium": {"dead-neurons", "nan"},
    "goose": {"runaway-amplitude", "nan"},
    **{name: {"ternary-collapse", "nan"} for name in ("twn", "ttq", "tervit", "progressive")},
    **{name: {"nan"} for name in ("lsq", "sttn", "tequila")},
}


def make(name):
    torch.manual_seed(0)
    net = MODELS[name].build()
    return Training(net, torch.optim.Adam(net.parameters(), 1e-3))


@pytest.mark.parametrize("name", MODELS)
def test_a_model_can_have_the_illnesses_of_its_parts(name):
    training = make(name)
    before = copy.deepcopy(training.net.state_dict())
    assert {ill for ill in ILLS if ILLS[ill].where(training.net) is not None} == CAN_HAVE[name]
    for ill in set(ILLS) - CAN_HAVE[name]:
        assert not ILLS[ill].plant(training)
    after = training.net.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())


@pytest.mark.parametrize(("name", "ill"), [(n, i) for n in MODELS for i in sorted(CAN_HAVE[n])])
def test_a_planted_illness_leaves_a_network_that_runs(name, ill):
    training = make(name)
    assert ILLS[ill].plant(training)
    inputs = torch.zeros(2, 5, dtype=torch.long) if name == "spike-gpt" else torch.rand(4, 64)
    training.net(inputs)


def test_the_runaway_amplitude_alone_learns_faster():
    training = make("digits")
    ILLS["runaway-amplitude"].plant(training)
    others, runaway = training.optimizer.param_groups
    (amplitude,) = runaway["params"]
    assert amplitude is training.net.ternary_spike.amplitude
    assert runaway["lr"] == pytest.approx(100 * others["lr"])
    n = len(list(training.net.parameters()))
    assert len(others["params"]) == n - 1


def test_a_far_too_narrow_surrogate_replaces_one_that_is_a_module():
    training = make("spikformer")
    neuron = ILLS["vanishing-gradient"].where(training.net)
    ILLS["vanishing-gradient"].plant(training)
    assert neuron.surrogate.fwhm < 1e-3
