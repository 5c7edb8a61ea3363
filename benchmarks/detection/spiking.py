"""Illnesses of neurons that are silent, or fire too much."""

from typing import Any

import torch

from spikewatch.zoo.training import Training

from .faults import (
    feed,
    own_rate,
    penalise,
)
from .illness import Illness


@torch.no_grad()
def _thirtyfold_threshold(training: Training) -> None:
    training.net.hidden_lif.threshold.fill_(30.0)


@torch.no_grad()
def _quiet_text(training: Training) -> None:
    training.net.blocks[0].channel_lif.threshold.fill_(40.0)


def _small_weights(training: Training) -> None:
    """Adam would bring them up within fifty steps; plain SGD does not."""
    with torch.no_grad():
        for parameter in training.net.fc1.parameters():
            parameter.mul_(0.02)
    training.optimizer = torch.optim.SGD(training.net.parameters(), lr=0.01)


def _pixels_scaled_twice(training: Training) -> None:
    feed(training, lambda images: images / 255)


def _shift_some(share: float, by: float) -> Any:
    @torch.no_grad()
    def strike(training: Training) -> None:
        bias = training.net.hidden_norm.bias
        bias[: round(share * len(bias))] += by

    return strike


@torch.no_grad()
def _high_thresholds_for_a_third(training: Training) -> None:
    lif = training.net.lif1
    lif.threshold = torch.ones(96)
    lif.threshold[:32] = 60.0


def _prune_filters(n: int) -> Any:
    @torch.no_grad()
    def strike(training: Training) -> None:
        conv, norm = training.net[4], training.net[5]
        conv.weight[:n] = 0
        norm.weight[:n] = 0
        norm.bias[:n] = 0
        for parameter in (conv.weight, norm.weight, norm.bias):
            parameter.register_hook(lambda g, n=n: g.index_fill(0, torch.arange(n), 0))

    return strike


@torch.no_grad()
def _filters_below_threshold(training: Training) -> None:
    training.net.conv2.weight[:3] = 0
    training.net.conv2.bias[:3] = -10  # at -3 gradient wakes one or two of them up again


@torch.no_grad()
def _bias_of_six(training: Training) -> None:
    training.net.encoder_norm.bias.fill_(6.0)


@torch.no_grad()
def _threshold_of_a_hundredth(training: Training) -> None:
    training.net.lif1.threshold.fill_(0.01)


def _rate_penalty(training: Training) -> None:
    own_rate(training, training.net.hidden_norm.bias, times=10)
    rates: list[Any] = []
    training.net.hidden_lif.register_forward_hook(lambda _, __, out: rates.append(out[0].mean()))

    def penalty() -> Any:
        mean = torch.stack(rates).mean()
        rates.clear()
        return 30 * mean

    penalise(training, penalty)


@torch.no_grad()
def _threshold_of_thirteen(training: Training) -> None:
    training.net.hidden_lif.threshold.fill_(13.0)


@torch.no_grad()
def _positive_currents(training: Training) -> None:
    training.net.hidden_norm.weight.fill_(0.03)
    training.net.hidden_norm.bias.fill_(0.97)


@torch.no_grad()
def _drifted_bias(training: Training) -> None:
    training.net.ternary_norm.bias.fill_(2.2)


def _learning_rate_too_high(training: Training) -> None:
    faster(training, 30)


SPIKING = (
    Illness(
        name="threshold-thirtyfold",
        story="the threshold of a layer is thirty times too high",
        rule="dead-layer",
        bed="digits",
        layers=("hidden_lif",),
        strike=_thirtyfold_threshold,
    ),
    Illness(
        name="threshold-thirtyfold-later",
        story="a threshold is thirty times too high, from step 60 on",
        rule="dead-layer",
        also=("many-dead-neurons",),
        bed="digits",
        layers=("hidden_lif",),
        strike=_thirtyfold_threshold,
        onset=60,
    ),
    Illness(
        name="threshold-of-text-layer",
        story="the threshold of a layer of the language model is far too high",
        rule="dead-layer",
        bed="text",
        layers=("blocks.0.channel_lif",),
        strike=_quiet_text,
        n_steps=60,
    ),
    Illness(
        name="weights-scaled-down",
        story="the first weights are initialised fifty times too small",
        rule="dead-layer",
        bed="plain",
        layers=("lif1",),
        strike=_small_weights,
    ),
    Illness(
        name="pixels-scaled-twice",
        story="pixels are divided by 255 twice",
        rule="many-dead-neurons",
        bed="snntorch-conv",
        layers=("lif1",),
        strike=_pixels_scaled_twice,
    ),
    Illness(
        name="third-shifted-down",
        story="a step too large pushes a third of the neurons far below threshold",
        rule="many-dead-neurons",
        bed="digits",
        layers=("hidden_lif",),
        strike=_shift_some(0.33, -12.0),
        onset=60,
    ),
    Illness(
        name="third-with-high-threshold",
        story="a third of the neurons have a threshold far too high",
        rule="many-dead-neurons",
        bed="snntorch",
        layers=("lif1",),
        strike=_high_thresholds_for_a_third,
    ),
    Illness(
        name="tenth-shifted-down",
        story="a tenth of the neurons are pushed far below threshold",
        rule="dead-neurons",
        bed="digits",
        layers=("hidden_lif",),
        strike=_shift_some(0.1, -12.0),
        onset=60,
    ),
    Illness(
        name="two-filters-pruned",
        story="two filters of 32 are zeroed and stay so",
        rule="dead-channels",
        bed="spikingjelly-conv",
        layers=("6",),
        strike=_prune_filters(2),
    ),
    Illness(
        name="half-of-the-filters-pruned",
        story="half of the filters are zeroed and stay so",
        rule="many-dead-neurons",
        bed="spikingjelly-conv",
        layers=("6",),
        strike=_prune_filters(16),
        onset=60,
    ),
    Illness(
        name="five-filters-pruned",
        story="five filters of 32 are zeroed and stay so",
        rule="dead-channels",
        bed="spikingjelly-conv",
        layers=("6",),
        strike=_prune_filters(5),
        onset=60,
    ),
    Illness(
        name="filters-below-threshold",
        story="three filters of 32 begin with zeros and a negative bias",
        rule="dead-channels",
        bed="snntorch-conv",
        layers=("lif2",),
        strike=_filters_below_threshold,
    ),
    Illness(
        name="bias-of-six",
        story="a large bias keeps the first layer firing all the time",
        rule="many-saturated-neurons",
        also=("runaway-membrane",),
        bed="digits",
        layers=("encoder_lif",),
        strike=_bias_of_six,
    ),
    Illness(
        name="threshold-of-a-hundredth",
        story="the threshold is a hundredth of what it should be",
        rule="runaway-membrane",
        bed="snntorch",
        layers=("lif1",),
        strike=_threshold_of_a_hundredth,
    ),
    Illness(
        name="eight-in-a-hundred-shifted-up",
        story="the bias of 8 % of the neurons has drifted far up",
        rule="saturated-neurons",
        bed="digits",
        layers=("hidden_lif",),
        strike=_shift_some(0.083, 12.0),
        onset=60,
    ),
    Illness(
        name="rate-penalty",
        story="a penalty on the firing rate is far too strong",
        rule="many-dead-neurons",
        also=("low-rate", "dead-neurons"),
        bed="digits",
        layers=("hidden_lif",),
        strike=_rate_penalty,
        n_steps=250,
    ),
    Illness(
        name="threshold-of-thirteen",
        story="a threshold that few potentials reach",
        rule="low-rate",
        bed="digits",
        layers=("hidden_lif",),
        strike=_threshold_of_thirteen,
        also=("dead-neurons", "many-dead-neurons"),
    ),
    Illness(
        name="bias-keeps-firing",
        story="a bias keeps the neurons near threshold",
        rule="high-rate",
        bed="digits",
        layers=("hidden_lif",),
        strike=_positive_currents,
    ),
    Illness(
        name="one-sided-bias",
        story="the bias before ternary spikes has drifted to one side",
        rule="one-sided-spikes",
        bed="digits",
        layers=("ternary_spike",),
        strike=_drifted_bias,
        onset=60,
    ),
)
