"""The other tools, each as its own documentation uses it. All are optional."""

import importlib
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..models.training import Built, Training
from .watchers import Watcher, Watching


def _of(library: str) -> Callable[[Training], bool]:
    return lambda training: training.library == library


def _attach_wandb(built: Built, folder: Path) -> Watching:
    # Its own process, wandb-core, is in no figure of ours: that is in its favour.
    os.environ |= {"WANDB_SILENT": "true", "WANDB_MODE": "offline"}
    wandb: Any = importlib.import_module("wandb")  # types are checked where it is not installed
    run = wandb.init(project="overhead", dir=str(folder), mode="offline")
    run.watch(built.net, log="all", log_freq=1)
    n = 0

    def log() -> None:
        nonlocal n
        n += 1
        run.log({"n": n})  # without a call of log() it keeps only the latest histograms

    return Watching(run.finish, after_step=log)


def _attach_tensorboard(built: Built, folder: Path) -> Watching:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder))
    spikes: dict[int, list[Tensor]] = {}

    def keep(number: int, module: nn.Module, args: object, output: Any) -> None:
        del module, args
        tensor = output[0] if isinstance(output, tuple) else output
        spikes.setdefault(number, []).append(tensor.detach())

    handles = [
        m.register_forward_hook(partial(keep, number)) for number, m in enumerate(built.neurons)
    ]
    n = 0

    def write() -> None:
        nonlocal n
        n += 1
        for name, parameter in built.net.named_parameters():
            writer.add_histogram(f"weights/{name}", parameter, n)
            if parameter.grad is not None:
                writer.add_histogram(f"gradients/{name}", parameter.grad, n)
        for number, calls in spikes.items():
            writer.add_histogram(f"spikes/{number}", torch.stack(calls), n)
        spikes.clear()

    def close() -> None:
        for handle in handles:
            handle.remove()
        writer.close()

    return Watching(close, after_step=write)


def _attach_sj_monitor(built: Built, folder: Path, *, kind: str, reduce: Any = None) -> Watching:
    from spikingjelly.activation_based import monitor, neuron

    del folder
    arguments = (built.net, neuron.base_node.BaseNode) + (() if reduce is None else (reduce,))
    watching = getattr(monitor, kind)(*arguments)
    return Watching(watching.remove_hooks, relieve=watching.clear_recorded_data)


def _rates(spikes: Tensor) -> Tensor:
    """Firing rate of each neuron; spikes of shape (T, B, *)."""
    return spikes.detach().mean((0, 1))


def _norm(gradient: Tensor) -> Tensor:
    return torch.linalg.vector_norm(gradient)


def _attach_sj_energy(built: Built, folder: Path) -> Watching:
    from spikingjelly.activation_based.op_counter import SimpleEnergyProfiler

    del folder
    profiler = SimpleEnergyProfiler()
    profiler.bind_model(built.net)
    forward = built.net.forward

    def profiled(*args: Any) -> Any:
        with profiler:
            return forward(*args)

    built.net.forward = profiled

    def close() -> None:
        built.net.forward = forward

    return Watching(close, after_step=profiler.get_report)


def _attach_snntorch_probe(built: Built, folder: Path) -> Watching:
    import snntorch
    from snntorch.functional import probe

    del folder
    watching = probe.OutputMonitor(built.net, instance=snntorch.SpikingNeuron)
    return Watching(watching.remove_hooks, relieve=watching.clear_recorded_data)


def _attach_sinabs_hooks(built: Built, folder: Path) -> Watching:
    from sinabs import hooks

    del folder
    assert isinstance(built.net, nn.Sequential)  # noqa: S101 - as the tool asks for
    hooks.register_synops_hooks(built.net)
    for module in built.neurons:
        module.register_forward_hook(hooks.firing_rate_per_neuron_hook)
    return Watching()


_sj = partial(Watcher, needs="spikingjelly", applies=_of("spikingjelly"))

RIVALS = (
    Watcher(
        "wandb",
        'wandb.watch(log="all"), offline',
        _attach_wandb,
        needs="wandb",
        threads=True,
        files="*.wandb",
    ),
    Watcher(
        "tensorboard",
        "TensorBoard histograms",
        _attach_tensorboard,
        needs="tensorboard",
        threads=True,
    ),
    _sj(
        "sj-output",
        "spikingjelly OutputMonitor",
        partial(_attach_sj_monitor, kind="OutputMonitor"),
    ),
    _sj(
        "sj-output-rate",
        "… with rates in its function",
        partial(_attach_sj_monitor, kind="OutputMonitor", reduce=_rates),
    ),
    _sj(
        "sj-grad",
        "spikingjelly GradOutputMonitor",
        partial(_attach_sj_monitor, kind="GradOutputMonitor"),
    ),
    _sj(
        "sj-grad-norm",
        "… with norms in its function",
        partial(_attach_sj_monitor, kind="GradOutputMonitor", reduce=_norm),
    ),
    _sj("sj-energy", "spikingjelly energy profiler", _attach_sj_energy),
    Watcher(
        "snntorch-probe",
        "snntorch probe.OutputMonitor",
        _attach_snntorch_probe,
        needs="snntorch",
        applies=_of("snntorch"),
    ),
    Watcher(
        "sinabs-hooks",
        "sinabs synops and rate hooks",
        _attach_sinabs_hooks,
        needs="sinabs",
        applies=_of("sinabs"),
    ),
)
