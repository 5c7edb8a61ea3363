"""Distillation losses by hand and in their limits."""

import math

import pytest
import torch

from spikewatch.zoo import agreement, distillation_loss, feature_loss


def softmax(logits, tau):
    weights = [math.exp(z / tau) for z in logits]
    return [w / sum(weights) for w in weights]


def test_the_loss_is_tau_squared_times_the_divergence_from_teacher_to_student():
    student, teacher, tau = [[1.0, 0.5, -2.0], [0.0, 0.0, 3.0]], [[2.0, 0.0, 0.0], [1, 2, 3]], 2.5
    by_hand = 0.0
    for s, t in zip(student, teacher, strict=True):
        p_t, p_s = softmax(t, tau), softmax(s, tau)
        by_hand += sum(a * math.log(a / b) for a, b in zip(p_t, p_s, strict=True)) / 2
    given = distillation_loss(torch.tensor(student), torch.tensor(teacher), temperature=tau)
    assert given.item() == pytest.approx(tau**2 * by_hand, rel=1e-5)


def test_a_student_that_says_the_same_has_no_loss_and_the_teacher_gets_no_gradient():
    teacher = torch.randn(4, 7, 10, requires_grad=True)
    student = (teacher.detach() + 3).requires_grad_()  # softmax does not see a shift
    loss = distillation_loss(student, teacher) + feature_loss(student, teacher)
    loss.backward()
    assert distillation_loss(student, teacher).item() == pytest.approx(0, abs=1e-5)
    assert teacher.grad is None


def test_the_gradient_does_not_shrink_with_the_temperature():
    torch.manual_seed(0)
    student = torch.randn(1, 5, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(1, 5, dtype=torch.float64)
    distillation_loss(student, teacher, temperature=1e4).backward()
    gap = student.detach() - teacher
    limit = (gap - gap.mean()) / 5
    torch.testing.assert_close(student.grad, limit, rtol=1e-3, atol=1e-5)


def test_gradients_are_exact():
    torch.manual_seed(0)
    student = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(3, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda s: distillation_loss(s, teacher), student)
    assert torch.autograd.gradcheck(lambda s: feature_loss(s, teacher), student)


def test_features_are_compared_by_direction():
    a, b = torch.tensor([[1.0, 0.0], [2.0, 0.0]]), torch.tensor([[5.0, 0.0], [0.0, 1.0]])
    assert feature_loss(a, b).item() == pytest.approx(0.5)


def test_agreement_is_the_share_of_equal_answers():
    assert agreement(torch.eye(4), torch.eye(4)[[0, 1, 3, 2]]).item() == 0.5
