"""Illnesses of the membrane, of thresholds and decays, and of layers that are gone."""

import torch

from spikewatch.zoo import LIF
from spikewatch.zoo.training import Training

from .faults import (
    ScaledLIF,
    UnboundedLIF,
    after_each_step,
    feed,
    own_rate,
    penalise,
)
from .illness import Illness


def _pixels_to_255(training: Training) -> None:
    feed(training, lambda images: images * 255)


@torch.no_grad()
def _shift_bn_up(training: Training) -> None:
    training.net.norm.bias.add_(4.0)


def _growing_weights(training: Training) -> None:
    after_each_step(training, lambda: training.net.fc2.weight.mul_(1.02))


@torch.no_grad()
def _larger_weights(training: Training) -> None:
    training.net.fc2.weight.mul_(20)


def _confused_beta(training: Training) -> None:
    for lif in (training.net.encoder_lif, training.net.hidden_lif):
        lif.beta = 0.005


@torch.no_grad()
def _tau_learnt_to_one(training: Training) -> None:
    training.net[6].w.fill_(6.0)


def _threshold_learns_fast(training: Training) -> None:
    own_rate(training, training.net.lif2.threshold, times=100)
    penalise(training, lambda: training.net.lif2.threshold)


def _unbounded_decay(training: Training) -> None:
    training.net.lif2 = UnboundedLIF(0.98)
    training.optimizer.add_param_group({"params": [training.net.lif2.beta], "lr": 0.01})
    penalise(training, lambda: -training.net.lif2.beta)


def _threshold_at_its_clamp(training: Training) -> None:
    threshold = training.net.lif1.threshold
    own_rate(training, threshold, times=40)
    penalise(training, lambda: 3 * threshold)
    after_each_step(training, lambda: threshold.clamp_(0.01, 10))


def _spikes_scaled_twice(training: Training) -> None:
    training.net.hidden_lif = ScaledLIF()


def _replaced(training: Training) -> None:
    training.net.hidden_lif = LIF()


def _nothing(training: Training) -> None:
    """The process hangs; nothing is wrong with the network."""


DYNAMICS = (
    Illness(
        name="pixels-to-255",
        story="pixels are 0 to 255 instead of 0 to 1, and nothing normalises them",
        rule="runaway-membrane",
        also=("many-saturated-neurons", "saturated-neurons"),
        bed="plain",
        layers=("lif1",),
        strike=_pixels_to_255,
    ),
    Illness(
        name="weights-grow",
        story="the weights before a layer grow by 2 % a step",
        rule="membrane-drifts",
        bed="plain",
        layers=("lif2",),
        strike=_growing_weights,
        also=("runaway-membrane",),
        onset=60,
        n_steps=300,
    ),
    Illness(
        name="current-twentyfold",
        story="the current into a layer becomes twenty times as large",
        rule="membrane-loses-more",
        also=("membrane-drifts", "runaway-membrane", "many-saturated-neurons", "saturated-neurons"),
        bed="plain",
        layers=("lif2",),
        strike=_larger_weights,
        onset=230,
        n_steps=400,
    ),
    Illness(
        name="beta-confused",
        story="β and 1 − β are confused",
        rule="no-memory",
        bed="digits",
        layers=("encoder_lif", "hidden_lif"),
        strike=_confused_beta,
    ),
    Illness(
        name="tau-learnt-to-one",
        story="a time constant that learns has come down to one time step",
        rule="no-memory",
        bed="spikingjelly-conv",
        layers=("6",),
        strike=_tau_learnt_to_one,
        onset=60,
    ),
    Illness(
        name="threshold-learns-fast",
        story="a threshold learns a hundred times too fast, and nothing bounds it",
        rule="threshold-out-of-range",
        bed="plain",
        layers=("lif2",),
        strike=_threshold_learns_fast,
    ),
    Illness(
        name="decay-without-bounds",
        story="a decay learns without bounds",
        rule="decay-out-of-range",
        bed="plain",
        layers=("lif2",),
        strike=_unbounded_decay,
    ),
    Illness(
        name="threshold-at-its-clamp",
        story="a threshold is pushed down to its clamp",
        rule="threshold-pinned",
        also=("saturated-neurons", "many-saturated-neurons"),
        bed="plain",
        layers=("lif1",),
        strike=_threshold_at_its_clamp,
    ),
    Illness(
        name="norm-with-a-bias",
        story="a normalisation begins with a large bias",
        rule="many-saturated-neurons",
        also=("runaway-membrane",),
        bed="snntorch",
        layers=("lif1",),
        strike=_shift_bn_up,
    ),
    Illness(
        name="spikes-scaled-twice",
        story="spikes are multiplied by 5 on their way out",
        rule="spikes-out-of-range",
        bed="digits",
        layers=("hidden_lif",),
        strike=_spikes_scaled_twice,
    ),
    Illness(
        name="layer-replaced",
        story="a layer is replaced after attach()",
        rule="layer-goes-quiet",
        bed="digits",
        layers=("hidden_lif",),
        strike=_replaced,
        onset=60,
    ),
    Illness(
        name="process-hangs",
        story="the data loader hangs for an hour",
        rule="training-stalls",
        bed="digits",
        layers=("(training)",),
        strike=_nothing,
        onset=59,
        n_steps=60,
        silence_s=3600.0,
    ),
)
