"""Illnesses of a distillation: a student that cannot follow its teacher, or is led astray."""

from typing import Any

from spikewatch.zoo.distillation import distillation_loss
from spikewatch.zoo.training import Training

from .beds import DeepNet
from .distilled import adam
from .faults import after_each_step, faster
from .illness import Illness


def _narrow_student(training: Training) -> None:
    training.net = DeepNet(2, 8)
    training.optimizer = adam(training.net)


def _learns_slowly(training: Training) -> None:
    faster(training, 0.05)


def _classes_in_another_order(training: Any) -> None:
    """Class 0 of the teacher is class 1 of the student, and so on."""
    training.distance = lambda mine, its: distillation_loss(mine, its.roll(1, -1))


def _optimizer_of_the_teacher(training: Any) -> None:
    training.optimizer = adam(training.teacher)


def _wrong_sign(training: Any) -> None:
    training.distance = lambda mine, its: -distillation_loss(mine, its)


def _schedule_without_end(training: Any) -> None:
    def lower() -> None:
        training.share -= 0.01

    after_each_step(training, lower)


TEACHERS = (
    Illness(
        name="student-too-narrow",
        story="a student with 8 neurons a layer, too few for what its teacher knows",
        rule="accuracy-gap",
        also=("wide-accuracy-gap",),
        bed="distilled",
        layers=("accuracy_gap",),
        strike=_narrow_student,
        n_steps=300,
    ),
    Illness(
        name="student-learns-slowly",
        story="the student's learning rate is a twentieth of what it should be",
        rule="accuracy-gap",
        also=("wide-accuracy-gap",),
        bed="distilled-twn",
        layers=("accuracy_gap",),
        strike=_learns_slowly,
        n_steps=300,
    ),
    Illness(
        name="classes-in-another-order",
        story="the teacher's classes stand in another order than the student's",
        rule="wide-accuracy-gap",
        also=("leaves-its-teacher",),
        bed="distilled",
        layers=("accuracy_gap", "teacher"),
        strike=_classes_in_another_order,
        n_steps=300,
    ),
    Illness(
        name="optimizer-of-the-teacher",
        story="the optimizer was given the teacher's parameters: the student stays as it was",
        rule="wide-accuracy-gap",
        also=("loss-stands-still",),
        bed="distilled-twn",
        layers=("accuracy_gap", "loss"),
        strike=_optimizer_of_the_teacher,
        n_steps=300,
    ),
    Illness(
        name="distillation-with-the-wrong-sign",
        story="the distillation loss is subtracted instead of added",
        rule="leaves-its-teacher",
        bed="distilled",
        layers=("teacher",),
        strike=_wrong_sign,
        n_steps=250,
    ),
    Illness(
        name="weight-of-the-teacher-below-zero",
        story="a schedule lowers the weight of the teacher's term, and goes on below 0",
        rule="leaves-its-teacher",
        bed="distilled-twn",
        layers=("teacher",),
        strike=_schedule_without_end,
        onset=60,
        n_steps=250,
    ),
)
