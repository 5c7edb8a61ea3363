"""Illnesses of ternary weights: collapsed, nearly binary, torn apart."""

from typing import Any

import torch

from spikewatch.zoo import TernaryLinear, lost_entropy
from spikewatch.zoo.training import Training

from .faults import (
    after_each_step,
    faster,
    own_rate,
    penalise,
)
from .illness import Illness


_INNER = ("3", "6")  # the two ternary layers of TernaryDigitsNet


def _delta_factor(factor: float) -> Any:
    def strike(training: Training) -> None:
        training.net.ternary.delta_factor = factor

    return strike


def _delta_share(share: float) -> Any:
    def strike(training: Training) -> None:
        for name in _INNER:
            training.net.get_submodule(name).delta_share = share

    return strike


def _outliers(training: Training) -> None:
    with torch.no_grad():
        training.net.get_submodule("3").weight[:, 0] *= 100


def _decay_of_step(training: Training) -> None:
    layer = training.net.get_submodule("3")
    after_each_step(training, lambda: layer.weight.mul_(0.93))


def _wrong_entropy_sign(training: Training) -> None:
    layer: Any = training.net.get_submodule("3")

    def penalty() -> Any:
        step = layer.step.detach()
        return -lost_entropy(layer.weight, alpha=step, delta=step / 2)

    penalise(training, penalty)


def _nan_step(training: Training) -> None:
    """sqrt(0) in a penalty: the loss is finite, its gradient is not."""

    def penalty() -> Any:
        weight = training.net.get_submodule("3").weight
        return 1e-3 * (weight - weight.detach()).square().sum().sqrt()

    penalise(training, penalty)


def _pulled_apart(training: Training) -> None:
    own_rate(training, training.net.get_submodule("3").w_p, times=1)
    penalise(training, lambda: -training.net.get_submodule("3").w_p)


def _pulled_below_zero(training: Training) -> None:
    own_rate(training, training.net.get_submodule("3").w_n, times=1)
    penalise(training, lambda: training.net.get_submodule("3").w_n)


@torch.no_grad()
def _quiet_rows(training: Training) -> None:
    """Four outputs begin a thousand times smaller than the others, and hardly learn."""
    weight = training.net.get_submodule("3").weight
    weight[:4] *= 1e-3
    weight.register_hook(lambda g: g * (torch.arange(len(g)) >= 4)[:, None])


def _step_far_too_large(training: Training) -> None:
    """Each step crosses a third of the way to Δ."""
    faster(training, 100)


def _step_too_large(training: Training) -> None:
    faster(training, 2.5)


def _hardly_learns(training: Training) -> None:
    faster(training, 3e-6)


def _heavy_tails(training: Training) -> None:
    with torch.no_grad():
        weight = training.net.get_submodule("3").weight
        weight.copy_(0.02 * weight.sign() * (1.2 * torch.randn_like(weight)).exp())


def _latents_grow(training: Training) -> None:
    layer = training.net.get_submodule("3")
    after_each_step(training, lambda: layer.weight.mul_(1.05))


def _not_advanced_any_more(training: Training) -> None:
    training.advance = lambda _: None  # type: ignore[method-assign]


def _drawn_to_the_threshold(training: Training) -> None:
    layer: Any = training.net.get_submodule("3")

    def pull() -> None:
        weight = layer.weight
        delta = 0.7 * weight.abs().mean()
        near = (weight.abs() - delta).abs() < 0.5 * delta
        weight.copy_(weight.where(~near, weight - 0.05 * (weight - delta * weight.sign())))

    after_each_step(training, pull)


def _ternary_ends(training: Training) -> None:
    first, last = training.net.get_submodule("0"), training.net.get_submodule("9")
    for layer in (first, last):
        layer.__class__ = TernaryLinear
        layer.delta_factor = 0.7


WEIGHTS = (
    Illness(
        name="delta-five-times",
        story="Δ is five times too large",
        rule="ternary-collapse",
        bed="digits",
        layers=("ternary",),
        strike=_delta_factor(3.5),
    ),
    Illness(
        name="delta-five-times-later",
        story="Δ is five times too large, from step 60 on",
        rule="ternary-collapse",
        bed="digits",
        layers=("ternary",),
        strike=_delta_factor(3.5),
        onset=60,
    ),
    Illness(
        name="latents-decay",
        story="weight decay on the latent weights shrinks them below a step size that learns",
        rule="ternary-collapse",
        also=("ternary-near-collapse",),
        bed="lsq",
        layers=("3",),
        strike=_decay_of_step,
        onset=40,
    ),
    Illness(
        name="entropy-with-the-wrong-sign",
        story="an entropy regulariser with the wrong sign",
        rule="ternary-near-collapse",
        also=("ternary-collapse",),
        bed="lsq",
        layers=("3",),
        strike=_wrong_entropy_sign,
        n_steps=400,
    ),
    Illness(
        name="outliers-stretch-the-scale",
        story="a few outliers stretch the scale of the threshold",
        rule="ternary-collapse",
        also=("ternary-near-collapse",),
        bed="ttq",
        layers=("3",),
        strike=_outliers,
    ),
    Illness(
        name="delta-three-times",
        story="Δ is more than twice what it should be",
        rule="ternary-near-collapse",
        bed="digits",
        layers=("ternary",),
        strike=_delta_factor(1.75),
    ),
    Illness(
        name="delta-of-nothing",
        story="Δ is a thousandth of the largest weight",
        rule="nearly-binary",
        bed="ttq",
        layers=_INNER,
        strike=_delta_share(0.001),
    ),
    Illness(
        name="wn-pulled-below-zero",
        story="a penalty on the size of a scale goes on below zero",
        rule="scale-not-positive",
        also=("unequal-scales",),
        bed="ttq",
        layers=("3",),
        strike=_pulled_below_zero,
        n_steps=300,
    ),
    Illness(
        name="wp-pulled-up",
        story="a penalty pulls W_p up",
        rule="unequal-scales",
        bed="ttq",
        layers=("3",),
        strike=_pulled_apart,
        n_steps=300,
    ),
    Illness(
        name="outputs-of-zeros",
        story="a few outputs have weights far smaller than the others, with one Δ for all",
        rule="dead-weight-rows",
        bed="twn",
        layers=("3",),
        strike=_quiet_rows,
    ),
    Illness(
        name="learning-rate-too-high-for-latents",
        story="the learning rate moves latent weights across Δ at every step",
        rule="restless-weights",
        bed="twn",
        layers=_INNER,
        strike=_step_far_too_large,
        onset=40,
    ),
    Illness(
        name="latents-swing-over-the-threshold",
        story="a learning rate at which many latent weights swing to and fro over Δ",
        rule="oscillating-weights",
        also=("restless-weights",),
        bed="ttq",
        layers=_INNER,
        strike=_step_too_large,
        onset=40,
        n_steps=250,
    ),
    Illness(
        name="latents-hardly-move",
        story="the learning rate is far too low for weights to change their level",
        rule="frozen-weights",
        also=("loss-stands-still",),
        bed="twn",
        layers=(*_INNER, "loss"),
        strike=_hardly_learns,
        n_steps=300,
    ),
    Illness(
        name="heavy-tails",
        story="latent weights have far heavier tails than the quantizer is made for",
        rule="low-sqnr",
        also=("ternary-near-collapse",),
        bed="twn",
        layers=("3",),
        strike=_heavy_tails,
    ),
    Illness(
        name="latents-grow",
        story="latent weights grow by 5 % a step: nothing holds their scale",
        rule="latent-weights-drift",
        bed="twn",
        layers=("3",),
        strike=_latents_grow,
        onset=40,
    ),
    Illness(
        name="annealing-forgotten",
        story="annealing is not advanced any more",
        rule="annealing-stuck",
        bed="progressive",
        layers=_INNER,
        strike=_not_advanced_any_more,
        onset=210,
        n_steps=600,
    ),
    Illness(
        name="latents-at-the-threshold",
        story="a regulariser draws latent weights to Δ",
        rule="weights-pile-up",
        bed="twn",
        layers=("3",),
        strike=_drawn_to_the_threshold,
        onset=40,
    ),
    Illness(
        name="ternary-ends",
        story="the first and the last layer are ternary too",
        rule="ternary-first-or-last",
        bed="twn",
        layers=("0", "9"),
        strike=_ternary_ends,
    ),
    Illness(
        name="nan-step",
        story="sqrt(0) in a penalty: a finite loss with a NaN gradient",
        rule="non-finite-weights",
        bed="ttq",
        layers=("3",),
        strike=_nan_step,
        onset=60,
    ),
)
