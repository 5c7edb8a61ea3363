"""`attach` and `tap`: from a model and wishes to a running watch."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .alerts.actions import Dispatcher
from .alerts.channels import channel_from_environment
from .alerts.engine import Engine
from .alerts.loading import Ruleset, find_ruleset
from .alerts.rule import Rule
from .errors import AttachError
from .finding import Finder, parse_hints, parse_layers
from .journal import JournalWriter
from .layers import report
from .observing import load_teacher
from .paths import journal_path, runs_dir
from .recorder import Recorder
from .runs import free_run_name, rank_of_this_process
from .sampling import make_sampler
from .unheard import unheard
from .watch import Watch, open_watches


# A share of 0.001 with a standard error of 0.00012, a tenth of a healthy rate of flips; and 64 KiB
# for a layer, of any size, are nothing beside its weights.
TRACK_WEIGHTS = 65_536


def attach(
    model: nn.Module,
    *,
    run: str | None = None,
    dir: str | Path | None = None,
    every: int | str = "auto",
    first_step: int = 0,
    rules: str | Path | Iterable[Rule] | None = None,
    layers: Sequence[str] | Mapping[str, str] | None = None,
    track_weights: int = TRACK_WEIGHTS,
    quantized: Mapping[str, Callable[[nn.Module], Tensor]] | None = None,
    pairs: Iterable[tuple[str, str]] = (),
    optimizers: Iterable[Optimizer] = (),
    teacher: nn.Module | None = None,
    teacher_temperature: float = 2.0,
    on_alert: Callable[[dict[str, Any]], None] | None = None,
    on_checkpoint: Callable[[dict[str, Any]], None] | None = None,
    raise_on_alert: bool = False,
    quiet: bool = False,
) -> Watch:
    """Watch the spiking and ternary layers of a model. No further call is needed in the loop.

    Args:
        model: Any module, wrapped (DDP, FSDP) or not.
        run: Name of the run; by default date and time. A name that is taken gets a number.
        dir: The runs folder; by default `$SPIKEWATCH_DIR`, else `./spikewatch-runs`.
        every: Observe every n-th optimizer step, beginning with the first; or `"auto"`: as many
            steps as 1 % of the training time pays for.
        first_step: Number of the first step, for a training that goes on from a checkpoint.
        rules: A TOML file that extends the default alert rules, or the rules themselves. By
            default the file that `$SPIKEWATCH_RULES` or `[tool.spikewatch]` in pyproject.toml
            names, if one does.
        layers: Names of modules that make spikes and are not found by themselves; as a mapping,
            with the axes of their output: `{"block.act": "TB*"}` (T time, B batch, * neurons).
        track_weights: Quantized weights of a layer that are followed one by one (flips, trapped
            zeros, distances to the threshold), at a byte each. Of a layer with more of them a fixed
            sample of so many is: a share p then has a standard error of √(p(1−p)/track_weights),
            for 65 536 and p = 0.001 that is 0.00012. Shares of the levels are of all weights.
        quantized: How to read quantized weights that are not seen, by layer: a function that is
            given the layer and returns its quantized weight, `{"fc": lambda fc: fc.ternary()}`.
        pairs: Names of binary layers whose sum is one ternary layer (STTN), where their names do
            not say so: `[("kernel", "twin")]`. The two must be called with the same tensor.
        optimizers: Optimizers that hold latent weights which the model does not have, as where TTQ
            writes ternary values into the model's own parameters.
        teacher: The model that this one learns from. Their outputs are compared (table
            `distillation`) where the loop calls both with the same batch; it is never run for this.
        teacher_temperature: τ of that comparison, KL(p_T ‖ p_S)·τ².
        on_alert: Called, from a thread of ours, when an alert begins or ends firing, with a dict
            of the columns of the table `alerts`.
        on_checkpoint: Called in the training loop with such a dict before an optimizer step with
            non-finite gradients is applied, while the weights are still good; and when an alert
            fires whose rule has the action `checkpoint`. Looking at the gradients of each step
            makes a GPU wait.
        raise_on_alert: Raise `AlertRaised` in the training loop when a critical alert fires.
        quiet: Do not print what is watched.

    Returns:
        A `Watch`. It ends by itself when the process does; `with attach(model) as watch:` ends it
        earlier.

    Raises:
        AttachError: Nothing to watch was found, an argument is wrong, or the model is watched
            already.
        StoreError: The runs folder cannot be written.
        RuleError: The rules are wrong.
    """
    _check_model(model)
    sampler = make_sampler(every)
    _check_track_weights(track_weights)
    _check_first_step(first_step)
    ruleset = _ruleset(rules)
    hints = parse_hints(model, quantized=quantized, pairs=pairs, optimizers=optimizers)
    finder = Finder(named=parse_layers(model, layers), hints=hints)
    with unheard():
        observers = finder.find(model)
    if teacher is not None:
        _check_teacher(model, teacher, temperature=teacher_temperature)
        observers.append(load_teacher()(model, teacher, temperature=teacher_temperature))
    folder, rank = runs_dir(dir), rank_of_this_process()
    run = free_run_name(folder, run, rank=rank)
    dispatcher = Dispatcher(
        ruleset.rules,
        on_alert=on_alert,
        on_checkpoint=on_checkpoint,
        raise_on_alert=raise_on_alert,
        channels=ruleset.channels,
    )
    engine = Engine(ruleset.rules, run=run, rank=rank)
    journal = JournalWriter(journal_path(folder, run, rank))
    recorder = Recorder(journal, engine, dispatcher, run=run, rank=rank)
    watch = Watch(
        model,
        observers,
        finder,
        recorder,
        dispatcher,
        sampler,
        run=run,
        folder=folder,
        track_weights=track_weights,
        optimizers=hints.optimizers,
        first_step=first_step,
    )
    with unheard():
        watch.start(every)
    if on_checkpoint is not None:
        watch.guard_steps()
    if not quiet and rank == 0:
        print(report(watch.layers, run=run, where=str(folder), every=every))  # noqa: T201
    return watch


def watch_of(model: nn.Module) -> Watch | None:
    """The open watch of a model, of a part of it, or of a wrapper around it; None without one.

    For who attaches on behalf of others, as a trainer's callback does: `attach()` refuses a model
    that is watched already.
    """
    return next((watch for watch in open_watches() if watch.overlaps(model)), None)


def tap(name: str, tensor: Tensor) -> Tensor:
    """Watch the output of a neuron that is a function: `s = spikewatch.tap("lif1", spike(u))`.

    Args:
        name: Name of the layer in every table.
        tensor: Its spikes: of one time step, shape (batch, *neurons); or of a sequence made by a
            loop over time, whose axis is then inferred from the autograd graph.

    Returns:
        `tensor` itself. Without an open watch nothing else happens.
    """
    if not torch.compiler.is_compiling():
        watches = open_watches()
        running = [w for w in watches if w.in_forward]
        for watch in running or watches:
            watch.observe_tap(name, tensor)
    return tensor


def _check_model(model: object) -> None:
    if not isinstance(model, nn.Module):
        raise AttachError(
            f"`attach()` was given a {type(model).__name__}. Give it the torch.nn.Module that "
            "you train, before the training loop."
        )
    for watch in open_watches():
        if watch.watches(model):
            raise AttachError(
                f"This model is watched already, by run {watch.run!r}. Use that watch, or call "
                "`.close()` on it first."
            )


def _check_track_weights(n: object) -> None:
    if not isinstance(n, int) or isinstance(n, bool) or n < 1:
        raise AttachError(
            f"`track_weights` was {n!r}. Give a whole number of weights ≥ 1, such as the default "
            f"{TRACK_WEIGHTS}; a larger one makes smaller errors, and takes a byte for each."
        )


def _check_first_step(step: object) -> None:
    if not isinstance(step, int) or isinstance(step, bool) or step < 0:
        raise AttachError(
            f"`first_step` was {step!r}. Give the number of optimizer steps that were made before."
        )


def _check_teacher(model: nn.Module, teacher: object, *, temperature: object) -> None:
    if not isinstance(teacher, nn.Module):
        raise AttachError(
            f"`teacher` was a {type(teacher).__name__}. Give the torch.nn.Module whose outputs the "
            "model learns from."
        )
    if teacher is model:
        raise AttachError("`teacher` is the model itself. Give the one that it learns from.")
    number = isinstance(temperature, int | float) and not isinstance(temperature, bool)
    if not number or not 0 < temperature < float("inf"):
        raise AttachError(
            f"`teacher_temperature` was {temperature!r}. Give τ > 0, such as 2.0, the one of your "
            "distillation loss."
        )


def _ruleset(given: str | Path | Iterable[Rule] | None) -> Ruleset:
    """The rules, and who is told: the channels of the file, and of the environment."""
    if given is None or isinstance(given, str | Path):
        ruleset = find_ruleset(given)
    else:
        ruleset = Ruleset(tuple(given), origin="the rules given")
    more = channel_from_environment()
    return ruleset if more is None else replace(ruleset, channels=(*ruleset.channels, more))
