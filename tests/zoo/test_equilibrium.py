"""The implicit gradient against backpropagation through the whole way to the fixed point."""

import pytest
import torch

from spikewatch.zoo.equilibrium import EquilibriumNet


def make(**kwargs):
    torch.manual_seed(0)
    net = EquilibriumNet(n_hidden=12, **kwargs).double()
    with torch.no_grad():
        net.recurrent.weight.mul_(3)  # so that the gain acts
    return net, torch.rand(6, 64, dtype=torch.float64)


def iterated(net, images, n=300):
    drive, gain = net.encoder(images), net.gain()
    rates = torch.zeros_like(drive)
    for _ in range(n):
        rates = (drive + gain * net.recurrent(rates)).clamp(0, 1)
    return rates


def test_the_gradient_is_that_of_backpropagation_through_300_iterations():
    net, images = make()
    assert net.gain() < 1
    upstream = torch.randn(6, 12, dtype=torch.float64)
    fixed_point = iterated(net, images)
    wanted = torch.autograd.grad((fixed_point * upstream).sum(), [*net.parameters()][:3])
    settled = net.settled(net.encoder(images), net.gain(), fixed_point)
    torch.testing.assert_close(settled, fixed_point)
    given = torch.autograd.grad((settled * upstream).sum(), [*net.parameters()][:3])
    assert ((fixed_point > 0) & (fixed_point < 1)).float().mean() > 0.3
    for a, b in zip(given, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=2e-6)


def test_the_gradient_is_that_of_finite_differences():
    net, images = make()
    weights = torch.randn(6, 12, dtype=torch.float64)
    settled = net.settled(net.encoder(images), net.gain(), iterated(net, images).detach())
    (gradient,) = torch.autograd.grad((settled * weights).sum(), [net.recurrent.weight])
    with torch.no_grad():
        for i, j in ((0, 1), (5, 5), (11, 3)):
            values = []
            for step in (1e-6, -1e-6):
                net.recurrent.weight[i, j] += step
                values.append((iterated(net, images) * weights).sum().item())
                net.recurrent.weight[i, j] -= step
            assert gradient[i, j].item() == pytest.approx(
                (values[0] - values[1]) / 2e-6, rel=1e-4, abs=1e-7
            )


def test_spikes_settle_at_the_fixed_point_the_closer_the_slower_they_leak():
    missed = {}
    for beta, n_steps in ((0.8, 60), (0.98, 400)):
        net, images = make(beta=beta, n_steps=n_steps)
        with torch.no_grad():
            rates = net.simulate(net.encoder(images), net.gain())
            missed[beta] = (rates - iterated(net, images)).abs().mean().item()
    assert missed[0.98] < 0.02 < missed[0.8] < 0.2


@pytest.mark.parametrize("n_steps", [5, 50])
def test_memory_does_not_grow_with_the_time_steps(n_steps):
    net, images = make(n_steps=n_steps)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()), lambda _: None):
        net(images)
    assert sum(kept) < 6000


def test_the_recurrence_contracts_whatever_the_weights():
    net, images = make()
    with torch.no_grad():
        net.recurrent.weight.mul_(100)
    effective = net.gain() * net.recurrent.weight
    assert torch.linalg.matrix_norm(effective, 2).item() == pytest.approx(0.8)
    assert net(images).isfinite().all()
    assert 0 <= net.missed < 1
