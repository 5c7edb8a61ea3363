"""Illnesses of a quantizer's backward pass: what reaches latent weights and scales."""

from typing import Any

import torch
from torch import Tensor

from spikewatch.zoo.training import Training

from .faults import FrozenStepLSQ, WrongSignTTQ, after_each_step
from .illness import Illness


_INNER = ("3", "6")  # the two ternary layers of TernaryDigitsNet


def _wrong_sign(training: Training) -> None:
    for name in _INNER:
        layer: Any = training.net.get_submodule(name)
        layer.__class__ = WrongSignTTQ
    _scales_learn_fast(training)


def _scales_learn_fast(training: Training) -> None:
    for group in training.optimizer.param_groups[1:]:
        group["lr"] *= 30


def _step_without_gradient(training: Training) -> None:
    training.net.get_submodule("3").__class__ = FrozenStepLSQ


def _no_gradient_in_the_deadzone(training: Training) -> None:
    """An estimator that is clipped where it should not be."""
    weight = training.net.get_submodule("3").weight

    def clipped(g: Tensor) -> Tensor:
        return g * (weight.detach().abs() > 0.7 * weight.detach().abs().mean())

    weight.register_hook(clipped)


def _soft_threshold(training: Training) -> None:
    """A proximal step, up to a little above Δ: gradients reach the weights all the same."""
    layer: Any = training.net.get_submodule("3")

    def shrink() -> None:
        weight = layer.weight
        inside = weight.abs() < 0.8 * weight.abs().mean()
        weight.copy_(weight.where(~inside, 0.7 * weight))

    after_each_step(training, shrink)


def _turned_around(training: Training) -> None:
    training.net.get_submodule("3").weight.register_hook(torch.neg)


ESTIMATORS = (
    Illness(
        name="gradient-of-wn-with-the-wrong-sign",
        story="the gradient of W_n has the wrong sign",
        rule="scale-gradient-turned",
        also=("scale-not-positive", "unequal-scales"),
        bed="ttq",
        layers=_INNER,
        strike=_wrong_sign,
        n_steps=300,
    ),
    Illness(
        name="step-without-gradient",
        story="the step size that should learn is detached",
        rule="scale-learns-nothing",
        bed="lsq",
        layers=("3",),
        strike=_step_without_gradient,
    ),
    Illness(
        name="deadzone-without-gradient",
        story="the estimator passes no gradient to weights that are zero",
        rule="estimator-cuts-off-zeros",
        also=("trapped-weights",),
        bed="twn",
        layers=("3",),
        strike=_no_gradient_in_the_deadzone,
        n_steps=450,
    ),
    Illness(
        name="soft-threshold-of-zeros",
        story="a proximal step draws weights in the deadzone down faster than they climb",
        rule="trapped-weights",
        bed="twn",
        layers=("3",),
        strike=_soft_threshold,
        n_steps=450,
    ),
    Illness(
        name="estimator-with-the-wrong-sign",
        story="the quantizer's backward returns the opposite of the gradient",
        rule="estimator-climbs",
        bed="twn",
        layers=("3",),
        strike=_turned_around,
    ),
)
