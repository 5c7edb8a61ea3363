"""Trainings to be timed: real spiking networks on real digits, from 1 ms a step to tens of ms."""

from .conv import sinabs_conv, spikingjelly_conv
from .mlp import norse_mlp, snntorch_mlp
from .training import Training
from .transformer import spiking_transformer


__all__ = ["TRAININGS", "Training"]

TRAININGS = (
    Training(
        "mlp-small",
        "snntorch",
        "64-64-10, T 4, batch 16",
        lambda device: snntorch_mlp(device, n_hidden=64, batch=16, n_steps=4),
    ),
    Training(
        "mlp-2ms",
        "snntorch",
        "64-256-10, T 4, batch 80",
        lambda device: snntorch_mlp(device, n_hidden=256, batch=80, n_steps=4),
        every_step_goal=1.5,
    ),
    Training(
        "mlp-large",
        "snntorch",
        "64-1024-10, T 16, batch 64",
        lambda device: snntorch_mlp(device, n_hidden=1024, batch=64, n_steps=16),
    ),
    Training(
        "mlp-norse",
        "norse",
        "64-128-10, T 8, batch 64",
        lambda device: norse_mlp(device, n_hidden=128, batch=64, n_steps=8),
    ),
    Training(
        "conv",
        "spikingjelly",
        "2 conv + 2 linear, 16 × 16, T 8, batch 16",
        lambda device: spikingjelly_conv(device, batch=16, n_steps=8),
        every_step_goal=1.15,
    ),
    Training(
        "conv-sinabs",
        "sinabs",
        "2 conv + 2 linear, 8 × 8, T 8, batch 32",
        lambda device: sinabs_conv(device, batch=32, n_steps=8),
        every_step_goal=1.15,
    ),
    Training(
        "transformer",
        "spikingjelly",
        "2 blocks of spiking self-attention, 16 tokens × 128, T 4, batch 16",
        lambda device: spiking_transformer(device, batch=16, n_steps=4),
        every_step_goal=1.15,
    ),
)
