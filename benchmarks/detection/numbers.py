"""Illnesses of the loss and of numbers that are none."""

from typing import Any

import torch
from torch import Tensor

from spikewatch.zoo.training import Training

from .faults import RateNormalisedLIF, faster, feed, skip_nonfinite_steps
from .illness import Illness


def _learning_rate(times: float) -> Any:
    return lambda training: faster(training, times)


def _log_of_zero(training: Training) -> None:
    def by_hand(scores: Tensor, labels: Tensor) -> Tensor:
        sharp = (1000 * scores).softmax(1)
        return -sharp.gather(1, labels.reshape(-1, 1)).log().mean()

    training.loss = by_hand


def _nan_pixel(training: Training) -> None:
    def spoil(images: Tensor) -> Tensor:
        images = images.clone()
        images[0, 5] = torch.nan
        return images

    feed(training, spoil)


@torch.no_grad()
def _nan_weight(training: Training) -> None:
    training.net.fc1.weight[3, 3] = torch.nan


def _sqrt_of_zero(training: Training) -> None:
    skip_nonfinite_steps(training)
    loss = training.loss

    def with_norm(scores: Tensor, labels: Tensor) -> Tensor:
        return loss(scores, labels) + 1e-3 * (scores - scores.detach()).square().sum().sqrt()

    training.loss = with_norm


def _nan_of_the_norm(training: Training) -> None:
    with torch.no_grad():
        training.net.ternary_norm.weight[0] = torch.nan


def _divided_by_rate(training: Training) -> None:
    training.net.hidden_lif = RateNormalisedLIF(threshold=4.0)


def _nan_key(training: Training) -> None:
    with torch.no_grad():
        training.net.blocks[0].channel_mix.key.weight[0, 0] = torch.nan


NUMBERS = (
    Illness(
        name="learning-rate-far-too-high",
        story="the learning rate is 300 times too high from step 60 on",
        rule="loss-explodes",
        also=("gradient-explodes", "membrane-drifts", "many-dead-neurons", "dead-layer"),
        bed="spikingjelly-conv",
        layers=("*",),
        strike=_learning_rate(300),
        onset=60,
    ),
    Illness(
        name="learning-rate-far-too-low",
        story="the learning rate is a millionth of what it should be",
        rule="loss-stands-still",
        bed="digits",
        layers=("loss",),
        strike=_learning_rate(1e-6),
        n_steps=220,
    ),
    Illness(
        name="learning-rate-too-low-for-conv",
        story="the learning rate is a millionth of what it should be",
        rule="loss-stands-still",
        bed="spikingjelly-conv",
        layers=("loss",),
        strike=_learning_rate(1e-6),
        n_steps=220,
    ),
    Illness(
        name="log-of-zero",
        story="a hand-written loss takes the logarithm of 0",
        rule="non-finite-value",
        bed="digits",
        layers=("loss",),
        strike=_log_of_zero,
    ),
    Illness(
        name="nan-in-the-data",
        story="a pixel of an image is NaN",
        rule="non-finite-membrane",
        also=("non-finite-value", "non-finite-spikes"),
        bed="snntorch",
        layers=("lif1", "loss"),
        strike=_nan_pixel,
        onset=60,
    ),
    Illness(
        name="nan-weight",
        story="a weight before the first neurons has become NaN",
        rule="non-finite-membrane",
        bed="plain",
        layers=("lif1",),
        strike=_nan_weight,
        onset=60,
    ),
    Illness(
        name="nan-before-ternary-spikes",
        story="a NaN of a normalisation reaches ternary spikes",
        rule="non-finite-membrane",
        also=("non-finite-alpha",),
        bed="digits",
        layers=("ternary_spike",),
        strike=_nan_of_the_norm,
        onset=60,
    ),
    Illness(
        name="divided-by-no-spikes",
        story="spikes are divided by their mean rate, which is 0 once",
        rule="non-finite-spikes",
        bed="digits",
        layers=("hidden_lif",),
        strike=_divided_by_rate,
    ),
    Illness(
        name="nan-in-the-language-model",
        story="a weight before the last neurons of a language model is NaN",
        rule="non-finite-membrane",
        bed="text",
        layers=("blocks.0.channel_lif", "blocks.0.time_lif"),
        also=("non-finite-gradient",),
        strike=_nan_key,
        onset=20,
        n_steps=50,
    ),
    Illness(
        name="sqrt-of-zero",
        story="a square root of 0 behind the last layer, in a loop that skips non-finite steps",
        rule="non-finite-gradient",
        bed="digits",
        layers=("*",),
        strike=_sqrt_of_zero,
        onset=60,
    ),
)
