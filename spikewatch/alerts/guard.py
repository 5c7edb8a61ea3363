"""The last moment before a non-finite step: a checkpoint is called for while weights are good."""

import logging
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils.weak import WeakIdKeyDictionary


_log = logging.getLogger("spikewatch")


class StepGuard:
    """Looks at the gradients before each optimizer step of a model, and calls for a checkpoint.

    This waits for the device at every step, so it is there only for who asks for it, by
    `attach(on_checkpoint=…)`. It is called once for a row of non-finite steps: by the next one the
    weights are lost. A `GradScaler` that skips a step takes it before it comes here.

    Args:
        model: Whose parameters are looked after.
        step: Gives the number of the current step.
        checkpoint: Called with the alert that fires.
        run: Name of the run.
        rank: Of this process.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        step: Callable[[], int],
        checkpoint: Callable[[dict[str, Any]], None],
        run: str,
        rank: int,
    ) -> None:
        self._model = weakref.ref(model)
        # By parameter, "" for those of other models. It holds none of them: the id of one that was
        # freed may be another one's.
        self._names = WeakIdKeyDictionary()
        self._step = step
        self._checkpoint = checkpoint
        self._keys = {"run": run, "rank": rank}
        self._is_ill = False
        self._handle = register_optimizer_step_pre_hook(self._before_step)

    def close(self) -> None:
        """Look no more."""
        self._handle.remove()

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> Any:
        """Look now or, where `step(closure)` makes the gradients first, when it has made them."""
        if torch.compiler.is_compiling():
            return None
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if not callable(closure):
            self._look(optimizer)
            return None

        def look_after_closure() -> Any:
            loss = closure()
            self._look(optimizer)
            return loss

        if "closure" in kwargs:
            return args, {**kwargs, "closure": look_after_closure}
        return (args[0], look_after_closure, *args[2:]), kwargs

    def _look(self, optimizer: Optimizer) -> None:
        try:
            ill = self._first_nonfinite(optimizer)
        except Exception as error:  # noqa: BLE001 - contract 1
            self.close()
            _log.warning(
                "spikewatch: gradients cannot be looked at (%s: %s). Training goes on, without "
                "checkpoints before non-finite steps.",
                type(error).__name__,
                error,
            )
            return
        if ill is not None and not self._is_ill:
            self._checkpoint(self._alert(ill))
        self._is_ill = ill is not None

    def _first_nonfinite(self, optimizer: Optimizer) -> str | None:
        held = [p for group in optimizer.param_groups for p in group["params"]]
        if any(p not in self._names for p in held):
            self._name(held)
        grads = [(n, p.grad) for p in held if (n := self._names[p]) and p.grad is not None]
        return _first_nonfinite(grads) if grads else None

    def _name(self, parameters: Iterable[Tensor]) -> None:
        """Find out which of them are the model's, that may have got new ones."""
        model = self._model()
        ours = [] if model is None else [*nn.Module.named_parameters(model)]
        names = {id(p): name for name, p in ours}
        for parameter in parameters:
            self._names[parameter] = names.get(id(parameter), "")

    def _alert(self, name: str) -> dict[str, Any]:
        step = self._step()
        return self._keys | {
            "phase": "train",
            "step": step,
            "since_step": step,
            "layer": name.rpartition(".")[0] or name,
            "rule": "non-finite-gradient",
            "severity": "critical",
            "state": "firing",
            "metric": "n_nonfinite_grad",
            "value": None,
            "summary": f"The gradient of {name} is NaN or infinite, and about to be applied",
        }


def _first_nonfinite(grads: list[tuple[str, Tensor]]) -> str | None:
    """The first parameter with a gradient that is not finite; one wait for each device."""
    with torch.no_grad():
        dense = [g.coalesce().values() if g.is_sparse else g for _, g in grads]
        flags: dict[torch.device, list[Tensor]] = {}
        for grad in dense:
            flags.setdefault(grad.device, []).append(torch.isfinite(grad).all())
        if all(bool(torch.stack(some).all()) for some in flags.values()):
            return None
        return next(
            name for (name, _), g in zip(grads, dense, strict=True) if not torch.isfinite(g).all()
        )
