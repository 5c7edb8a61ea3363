"""LIF against traces computed by hand."""

import copy

import pytest
import torch

from spikewatch.zoo import LIF, ATan, Rectangle, SuperSpike, over_time


def run(lif, currents):
    mem, spikes, mems = None, [], []
    for current in currents:
        s, mem = lif(torch.tensor([[current]]), mem)
        spikes.append(s.item())
        mems.append(mem.item())
    return spikes, mems


def test_soft_reset_keeps_what_exceeds_the_threshold():
    # u: 0.6 | .5·.6+.9=1.2 → fires, keeps .2 | .1+.9=1.0: at θ, not above | .5+.7=1.2 → fires
    spikes, mems = run(LIF(0.5), [0.6, 0.9, 0.9, 0.7])
    assert spikes == [0, 1, 0, 1]
    assert mems == pytest.approx([0.6, 0.2, 1.0, 0.2])


def test_hard_reset_loses_what_exceeds_the_threshold():
    # u: 0.6 | 1.2 → fires, 0 | .9 | .45+.7=1.15 → fires, 0
    spikes, mems = run(LIF(0.5, reset="hard"), [0.6, 0.9, 0.9, 0.7])
    assert spikes == [0, 1, 0, 1]
    assert mems == pytest.approx([0.6, 0.0, 0.9, 0.0])


def test_a_surplus_of_two_thresholds_fires_again_under_soft_reset_only():
    assert run(LIF(1.0), [2.5, 0.0, 0.0])[0] == [1, 1, 0]
    assert run(LIF(1.0, reset="hard"), [2.5, 0.0, 0.0])[0] == [1, 0, 0]


def test_the_seeds_one_line_form_gives_the_spikes_of_the_hard_reset():
    torch.manual_seed(0)
    currents = (0.6 * torch.rand(200)).tolist()
    u, s, seed = 0.0, 0.0, []
    for current in currents:
        u = 0.8 * u * (1 - s) + current
        s = float(u > 1)
        seed.append(s)
    assert sum(seed) > 20
    assert run(LIF(0.8, reset="hard"), currents)[0] == seed


def strong_input():
    generator = torch.Generator().manual_seed(0)
    gains = torch.rand(500, generator=generator)
    return 2 * torch.rand(50, 500, generator=generator) * gains


def test_a_soft_reset_keeps_more_of_a_strong_input_than_a_hard_one():
    inputs = strong_input()
    kept = {}
    for reset in ("soft", "hard"):
        counts = over_time(LIF(0.9, reset=reset), inputs).sum(0)
        kept[reset] = torch.corrcoef(torch.stack([counts, inputs.sum(0)]))[0, 1].item()
    assert kept["soft"] == pytest.approx(0.998, abs=0.001)
    assert kept["hard"] == pytest.approx(0.987, abs=0.003)


def test_a_decay_before_the_subtraction_fires_less():
    inputs, u, fired, n = strong_input(), torch.zeros(500), torch.zeros(500), 0.0
    for current in inputs:
        u = 0.9 * u + current - fired  # snnTorch's order
        fired = (u > 1).float()
        n += fired.mean().item()
    ours = over_time(LIF(0.9), inputs).mean().item()
    assert n / 50 / ours == pytest.approx(0.92, abs=0.01)


@pytest.mark.parametrize("detach_reset", [True, False])
@pytest.mark.parametrize("reset", ["soft", "hard"])
def test_gradients_through_time_are_those_of_the_chain_rule(reset, detach_reset):
    surrogate, beta = SuperSpike(2.0), 0.7
    lif = LIF(beta, reset=reset, detach_reset=detach_reset, surrogate=surrogate).double()
    i1, i2 = (torch.tensor([x], dtype=torch.float64, requires_grad=True) for x in (1.3, 0.6))
    _, mem = lif(i1)
    s2, _ = lif(i2, mem)
    s2.sum().backward()
    slope = lambda d: 1 / (1 + 2 * abs(d)) ** 2  # noqa: E731
    u1, fired = 1.3, 1.0
    v1 = u1 - fired if reset == "soft" else u1 * (1 - fired)
    kept = 1.0 if reset == "soft" else 1 - fired
    through_reset = (1.0 if reset == "soft" else u1) * slope(u1 - 1)
    dv1 = kept - (0 if detach_reset else through_reset)
    u2 = beta * v1 + 0.6
    assert i2.grad.item() == pytest.approx(slope(u2 - 1))
    assert i1.grad.item() == pytest.approx(slope(u2 - 1) * beta * dv1)


def test_a_learnable_threshold_gets_gradient_and_a_fixed_one_is_no_parameter():
    lif = LIF(learn_threshold=True, surrogate=ATan())
    lif(torch.tensor([[0.8, 1.2]]))[0].sum().backward()
    assert lif.threshold.grad.item() < 0
    assert list(LIF().parameters()) == []
    assert "threshold" in LIF().state_dict()


def test_a_neuron_can_be_copied_in_the_midst_of_a_graph():
    lif = LIF(surrogate=Rectangle(2.0))
    current = torch.ones(2, 3, requires_grad=True)
    spikes, mem = lif(current)
    copied = copy.deepcopy(lif)
    torch.testing.assert_close(copied(current, mem)[0], lif(current, mem)[0])
    assert spikes.requires_grad


def test_low_precision_stays_low_precision():
    spikes, mem = LIF()(torch.ones(2, 3, dtype=torch.bfloat16))
    assert spikes.dtype == mem.dtype == torch.bfloat16


def test_a_wrong_decay_or_reset_is_refused_with_its_value():
    with pytest.raises(ValueError, match=r"1\.2"):
        LIF(1.2)
    with pytest.raises(ValueError, match="'none'"):
        LIF(reset="none")


def test_a_sequence_gives_the_spikes_of_its_steps():
    torch.manual_seed(0)
    lif, currents = LIF(0.8), torch.rand(12, 2, 3)
    whole, mem = over_time(lif, currents), None
    for current, spikes in zip(currents, whole, strict=True):
        one, mem = lif(current, mem)
        assert torch.equal(one, spikes)
    assert 0 < whole.mean() < 1


def test_a_learnable_decay_gets_the_gradient_of_the_membrane_it_kept():
    surrogate = SuperSpike(2.0)
    lif = LIF(0.7, learn_beta=True, surrogate=surrogate).double()
    i1, i2 = (torch.tensor([x], dtype=torch.float64) for x in (0.6, 0.3))
    _, mem = lif(i1)
    lif(i2, mem)[0].sum().backward()
    u2 = 0.7 * 0.6 + 0.3
    assert lif.beta.grad.item() == pytest.approx(0.6 / (1 + 2 * abs(u2 - 1)) ** 2)


def test_a_learnable_decay_is_used_within_its_bounds():
    lif = LIF(0.9, learn_beta=True)
    with torch.no_grad():
        lif.beta.fill_(1.5)
    mem = lif(torch.tensor([[0.5]]), torch.tensor([[0.4]]))[1]
    assert mem.item() == pytest.approx(0.9)
    assert "beta=1.5" in repr(lif)
