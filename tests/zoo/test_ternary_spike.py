"""TernarySpike against formulas by hand, and against the faults of the form in circulation."""

import pytest
import torch

from spikewatch.zoo import ATan, TernarySpike, Triangle


X = [-2.0, -1.1, -0.4, 0.0, 0.6, 0.9, 1.3]


def make(**kwargs):
    return TernarySpike(**kwargs).double().eval()


def test_values_are_minus_a_zero_and_a():
    neuron = make(amplitude=0.7, alpha=1.0)
    y = neuron(torch.tensor(X, dtype=torch.float64).reshape(-1, 1))
    assert y.flatten().tolist() == pytest.approx([-0.7, -0.7, 0, 0, 0, 0, 0.7])


@pytest.mark.parametrize("surrogate", [ATan(2.0), Triangle(1.0, 0.8)])
def test_x_amplitude_and_alpha_get_the_gradients_of_the_formulas(surrogate):
    a, alpha, scale = 0.7, 0.9, 1.2
    neuron = make(amplitude=a, alpha=alpha, surrogate=surrogate)
    neuron.running_scale.fill_(scale)
    x = torch.tensor(X, dtype=torch.float64).reshape(-1, 1).requires_grad_()
    upstream = torch.linspace(-1, 2, len(X), dtype=torch.float64).reshape(-1, 1)
    neuron(x).backward(upstream)

    plain, up = x.detach(), upstream
    theta = alpha * scale
    slope = surrogate.derivative(plain.abs() - theta)
    signs = plain.sign() * (plain.abs() > theta)
    torch.testing.assert_close(x.grad, up * a * slope)
    torch.testing.assert_close(neuron.amplitude.grad, (up * signs).sum().reshape(1))
    d_theta = (up * -a * plain.sign() * slope).sum()
    torch.testing.assert_close(neuron.alpha.grad, (d_theta * scale).reshape(1))
    assert neuron.alpha.grad.abs() > 0.01


def test_each_channel_has_its_own_amplitude_alpha_and_scale():
    neuron = TernarySpike(3)
    with torch.no_grad():
        neuron.amplitude.copy_(torch.tensor([1.0, 2.0, 3.0]))
    x = torch.tensor([[5.0, -5.0, 0.1], [5.0, 5.0, -5.0]])
    y = neuron(x)
    assert y.tolist() == [[1, -2, 0], [1, 2, -3]]
    y.square().sum().backward()
    assert neuron.amplitude.grad.shape == neuron.alpha.grad.shape == (3,)
    now = x.abs().mean(0)
    torch.testing.assert_close(neuron.running_scale, 1 + 0.05 * (now - 1))


def test_alpha_learns_when_it_is_trained():
    torch.manual_seed(0)
    neuron = TernarySpike(alpha=2.0)
    optimizer = torch.optim.Adam(neuron.parameters(), 0.05)
    for _ in range(50):
        x = torch.randn(256, 4)
        loss = (neuron(x) - x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert neuron.alpha.item() < 1.6  # 2·E|x| = 1.6 is far above the best threshold


def test_spikes_of_a_sample_do_not_depend_on_the_other_samples():
    torch.manual_seed(0)
    one, many = TernarySpike(), TernarySpike()
    x = torch.randn(32, 8)
    torch.testing.assert_close(one(x[:1]), many(torch.cat([x[:1], 100 * x[1:]]))[:1])


def test_a_batch_of_one_value_can_fire():
    # With the batch's own mean, θ = |x| and nothing would ever fire.
    assert TernarySpike(alpha=0.5)(torch.tensor([[0.9]])).item() == 1


def test_the_running_scale_moves_in_training_only():
    neuron = TernarySpike(momentum=0.5)
    neuron(torch.full((4, 2), 3.0))
    assert neuron.running_scale.item() == 2.0
    neuron.eval()(torch.full((4, 2), 9.0))
    assert neuron.running_scale.item() == 2.0


def test_alpha_is_used_clamped():
    neuron = make(alpha=100.0)
    assert neuron.threshold().item() == 10.0
    assert make(alpha=-3.0).threshold().item() == pytest.approx(0.01)


def test_low_precision_stays_low_precision():
    x = torch.randn(4, 3, dtype=torch.bfloat16, requires_grad=True)
    y = TernarySpike(3)(x)
    y.sum().backward()
    assert y.dtype == x.grad.dtype == torch.bfloat16
