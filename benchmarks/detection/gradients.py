"""Illnesses of the way back: gradients that vanish, explode, or are cut off."""

from typing import Any

from torch import nn
from torch.nn.functional import cross_entropy

from spikewatch.zoo import LIF, ATan, Rectangle, SuperSpike, Triangle
from spikewatch.zoo.training import Training

from .faults import Detach, FrozenAlpha
from .illness import Illness


def _lifs(net: nn.Module) -> list[LIF]:
    return [m for m in net.modules() if isinstance(m, LIF)]


def _far_too_narrow(training: Training) -> None:
    training.net.hidden_lif.surrogate = SuperSpike(1e4)


def _annealed_too_far(training: Training) -> None:
    training.net.hidden_lif.surrogate = ATan(600.0)


def _steep_fast_sigmoid(training: Training) -> None:
    from snntorch import surrogate

    training.net.lif1.spike_grad = surrogate.fast_sigmoid(slope=3e4)


def _narrow_rectangle(training: Training) -> None:
    training.net.hidden_lif.surrogate = Rectangle(0.06)


def _half_triangle(training: Training) -> None:
    from snntorch import surrogate

    training.net.lif1.spike_grad = surrogate.triangular()


def _masked_loss(training: Training) -> None:
    training.loss = lambda scores, labels: (
        0 * cross_entropy(scores, labels, reduction="none")
    ).sum()


def _cut(training: Training) -> None:
    training.net.hidden = nn.Sequential(Detach(), training.net.hidden)


def _cut_in_the_middle(training: Training) -> None:
    training.net.layers[3] = nn.Sequential(Detach(), training.net.layers[3])


def _compares(training: Training) -> None:
    training.net.lif1.spike_grad = lambda u: (u >= 0).to(u.dtype)


def _damped(training: Training) -> None:
    for lif in _lifs(training.net):
        lif.surrogate = Triangle(1.0, gamma=0.03)


def _forgets_at_once(training: Training) -> None:
    training.net.trace_decay = 0.1
    for lif in _lifs(training.net):
        lif.beta = 0.1


def _hard_reset_in_the_graph(training: Training) -> None:
    for lif in _lifs(training.net):
        lif.reset, lif.detach_reset = "hard", False


def _scaled_loss(training: Training) -> None:
    loss: Any = training.loss
    training.loss = lambda scores, labels: 65536 * loss(scores, labels)


def _frozen_alpha(training: Training) -> None:
    training.net.ternary_spike = FrozenAlpha()
    training.optimizer.add_param_group({"params": list(training.net.ternary_spike.parameters())})


def _frozen_alpha_of_keys(training: Training) -> None:
    training.net.ternary_spike = FrozenAlpha(96)
    training.optimizer.add_param_group({"params": list(training.net.ternary_spike.parameters())})


GRADIENTS = (
    Illness(
        name="surrogate-far-too-narrow",
        story="the surrogate of a layer is far too narrow",
        rule="vanished-surrogate-gradient",
        also=("surrogate-too-narrow",),
        bed="digits",
        layers=("hidden_lif",),
        strike=_far_too_narrow,
    ),
    Illness(
        name="fast-sigmoid-far-too-steep",
        story="a fast sigmoid of slope 30 000",
        rule="vanished-surrogate-gradient",
        also=("surrogate-too-narrow",),
        bed="snntorch",
        layers=("lif1",),
        strike=_steep_fast_sigmoid,
    ),
    Illness(
        name="surrogate-too-narrow",
        story="the surrogate is a window of 6 % of the threshold",
        rule="narrow-surrogate",
        bed="digits",
        layers=("hidden_lif",),
        strike=_narrow_rectangle,
        n_steps=250,
    ),
    Illness(
        name="annealed-too-far",
        story="the surrogate was annealed until hardly anything of it is left",
        rule="surrogate-too-narrow",
        bed="digits",
        layers=("hidden_lif",),
        strike=_annealed_too_far,
    ),
    Illness(
        name="surrogate-with-negative-side",
        story="snnTorch's triangular surrogate",
        rule="negative-surrogate",
        bed="snntorch",
        layers=("lif1",),
        strike=_half_triangle,
    ),
    Illness(
        name="loss-masked-away",
        story="a mask of zeros leaves nothing of the loss",
        rule="vanished-gradient",
        bed="digits",
        layers=("*",),
        strike=_masked_loss,
        onset=60,
    ),
    Illness(
        name="detached",
        story="a detach() left over from debugging cuts the graph",
        rule="detached-layer",
        bed="digits",
        layers=("encoder_lif",),
        strike=_cut,
    ),
    Illness(
        name="detached-in-the-middle",
        story="a detach() in the middle of six layers",
        rule="detached-layer",
        bed="deep",
        layers=("lifs.2",),
        strike=_cut_in_the_middle,
        n_steps=100,
    ),
    Illness(
        name="surrogate-forgotten",
        story="a layer fires by a comparison, without a surrogate",
        rule="no-surrogate-gradient",
        bed="snntorch",
        layers=("lif1",),
        strike=_compares,
    ),
    Illness(
        name="surrogate-damped",
        story="the surrogate is damped to 0.03 in six layers",
        rule="gradient-vanishes-with-depth",
        bed="deep",
        layers=("lifs.*",),
        strike=_damped,
        n_steps=100,
    ),
    Illness(
        name="forgets-at-once",
        story="decays of 0.1, and a loss that sees the end only",
        rule="gradient-vanishes-through-time",
        bed="deep",
        layers=("lifs.*",),
        strike=_forgets_at_once,
        n_steps=100,
    ),
    Illness(
        name="loss-not-unscaled",
        story="the loss is scaled for half precision, and gradients are not scaled back",
        rule="gradient-explodes",
        bed="digits",
        layers=("*",),
        strike=_scaled_loss,
        onset=60,
        also=("loss-explodes",),
    ),
    Illness(
        name="alpha-under-no-grad",
        story="the learnable α is used under no_grad",
        rule="learns-nothing",
        bed="digits",
        layers=("ternary_spike",),
        strike=_frozen_alpha,
    ),
    Illness(
        name="alphas-under-no-grad",
        story="the learnable α of each channel is used under no_grad",
        rule="learns-nothing",
        bed="channels",
        layers=("ternary_spike",),
        strike=_frozen_alpha_of_keys,
    ),
)
