"""Illnesses of amplitudes and of α: run away, shrunk, flipped, tied."""

import torch

from spikewatch.zoo.training import Training

from .faults import own_rate, penalise
from .illness import Illness


def _alike_from_the_start(training: Training) -> None:
    with torch.no_grad():
        training.net.key_spike.amplitude.fill_(1.0)


def _amplitude_learns_fast(training: Training) -> None:
    own_rate(training, training.net.ternary_spike.amplitude, times=100)


def _pulled_up(training: Training) -> None:
    amplitude = training.net.layer.value_spike.amplitude
    own_rate(training, amplitude, times=20)
    penalise(training, lambda: -amplitude.mean())


def _decayed_amplitude(training: Training) -> None:
    amplitude = training.net.ternary_spike.amplitude
    own_rate(training, amplitude, times=10)
    penalise(training, lambda: 5 * amplitude.square().sum())


def _flipping(training: Training) -> None:
    amplitude = training.net.ternary_spike.amplitude
    own_rate(training, amplitude, times=50)
    penalise(training, lambda: 5 * amplitude.mean())


def _apart(training: Training) -> None:
    amplitude = training.net.ternary_spike.amplitude
    own_rate(training, amplitude, times=30)
    sides = torch.zeros(96)
    sides[::8] = -8
    penalise(training, lambda: (sides * amplitude).mean())


def _variance_penalty(training: Training) -> None:
    amplitude = training.net.ternary_spike.amplitude
    penalise(training, lambda: 100 * amplitude.var())
    with torch.no_grad():
        amplitude.fill_(1.0)
    amplitude.register_hook(lambda g: g.mean().expand_as(g))


def _one_amplitude_for_all(training: Training) -> None:
    amplitude = training.net.layer.key_spike.amplitude
    amplitude.register_hook(lambda g: g.mean().expand_as(g))


def _alpha_driven(training: Training) -> None:
    alpha = training.net.ternary_spike.alpha
    own_rate(training, alpha, times=50)
    penalise(training, lambda: 2 * alpha.sum())


def _alphas_driven_up(training: Training) -> None:
    alpha = training.net.ternary_spike.alpha
    own_rate(training, alpha, times=200)
    penalise(training, lambda: -2 * alpha.sum())


def _variance_of_one(training: Training) -> None:
    penalise(training, lambda: 0.01 * training.net.ternary_spike.amplitude.var())


def _variance_of_one_alpha(training: Training) -> None:
    penalise(training, lambda: 0.01 * training.net.ternary_spike.alpha.var())


AMPLITUDES = (
    Illness(
        name="amplitude-learns-fast",
        story="the amplitude learns a hundred times faster than the weights",
        rule="amplitude-too-large",
        also=("amplitude-flipped", "amplitude-too-small"),
        bed="digits",
        layers=("ternary_spike",),
        strike=_amplitude_learns_fast,
        n_steps=250,
    ),
    Illness(
        name="amplitude-pulled-up",
        story="a penalty with the wrong sign pulls the amplitudes up",
        rule="amplitude-too-large",
        bed="goose",
        layers=("layer.value_spike",),
        strike=_pulled_up,
    ),
    Illness(
        name="amplitude-decays",
        story="weight decay on the amplitude",
        rule="amplitude-too-small",
        bed="digits",
        layers=("ternary_spike",),
        strike=_decayed_amplitude,
    ),
    Illness(
        name="amplitude-flips",
        story="the amplitude learns too fast, and nothing keeps it positive",
        rule="amplitude-flipped",
        also=("amplitude-too-small",),
        bed="channels",
        layers=("ternary_spike",),
        strike=_flipping,
    ),
    Illness(
        name="amplitudes-apart",
        story="the amplitudes of a few channels run away from the others",
        rule="amplitudes-run-apart",
        also=("amplitude-too-large", "amplitude-too-small"),
        bed="channels",
        layers=("ternary_spike",),
        n_steps=300,
        strike=_apart,
    ),
    Illness(
        name="amplitudes-averaged",
        story="a penalty on their variance ties the amplitudes together",
        rule="amplitudes-tied",
        bed="channels",
        layers=("ternary_spike",),
        strike=_variance_penalty,
        n_steps=260,
    ),
    Illness(
        name="amplitudes-share-a-gradient",
        story="every channel's amplitude gets the mean of all gradients",
        rule="amplitudes-tied",
        bed="goose",
        layers=("layer.key_spike",),
        strike=_one_amplitude_for_all,
        n_steps=260,
    ),
    Illness(
        name="keys-and-values-alike",
        story="amplitudes of keys and values, of which only the product counts, start alike",
        rule="amplitudes-tied-to-sibling",
        bed="key-value",
        layers=("key_spike", "value_spike"),
        strike=_alike_from_the_start,
    ),
    Illness(
        name="alpha-driven-down",
        story="a regulariser drives α to its lower clamp",
        rule="alpha-pinned",
        bed="digits",
        layers=("ternary_spike",),
        strike=_alpha_driven,
    ),
    Illness(
        name="alphas-driven-up",
        story="α runs after a scale that drifts, up to its clamp",
        rule="alpha-pinned",
        also=("dead-layer", "many-dead-neurons", "low-rate"),
        bed="channels",
        layers=("ternary_spike",),
        strike=_alphas_driven_up,
    ),
    Illness(
        name="variance-of-one-amplitude",
        story="a penalty on the variance of a single amplitude, which is NaN",
        rule="non-finite-amplitude",
        also=("non-finite-value",),
        bed="digits",
        layers=("ternary_spike", "loss"),
        strike=_variance_of_one,
        onset=60,
    ),
    Illness(
        name="variance-of-one-alpha",
        story="a penalty on the variance of a single α, which is NaN",
        rule="non-finite-alpha",
        also=("non-finite-value",),
        bed="digits",
        layers=("ternary_spike", "loss"),
        strike=_variance_of_one_alpha,
        onset=60,
    ),
)
