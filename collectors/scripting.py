"""TorchScript compiles the hooks of each module that is scripted; ours it could not compile.

A scripted copy runs without Python, and is not watched. So while a model is, TorchScript is told of
the hooks of its modules without ours: `torch.jit.script(model)` gives what it would give without a
watch. Nothing on the modules changes: they may be training just now in another thread.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from functools import wraps
from typing import Any

from torch import nn
from torch.jit import _recursive


# Where TorchScript goes through a module's hooks; both take the module first.
_ASKING = ("infer_concrete_type_builder", "get_hook_stubs")
_HOOKS = ("_forward_hooks", "_forward_pre_hooks")


class Scripting:
    """Hides hooks of a kind from TorchScript, as long as somebody wants it."""

    def __init__(self, kind: type) -> None:
        self._kind = kind
        self._n_users = 0
        self._originals: dict[str, Callable[..., Any]] = {}
        self._lock = threading.RLock()  # the garbage collector may come in between

    def begin(self) -> None:
        """Hide them."""
        with self._lock:
            self._n_users += 1
            if self._n_users > 1:
                return
            for name in _ASKING:
                if (original := getattr(_recursive, name, None)) is not None:
                    self._originals[name] = original
                    setattr(_recursive, name, self._answering(original))

    def end(self) -> None:
        """Hide them no more, unless somebody else wants it."""
        with self._lock:
            self._n_users -= 1
            if not self._n_users:
                for name, original in self._originals.items():
                    setattr(_recursive, name, original)
                self._originals.clear()

    def _answering(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(original)
        def ask(nn_module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            return original(self._without(nn_module), *args, **kwargs)

        return ask

    def _without(self, module: nn.Module) -> nn.Module:
        """The module, or where it has such hooks, one that is the same but for them."""
        held = {name: dict(vars(module).get(name) or {}) for name in _HOOKS}
        if not any(isinstance(h, self._kind) for hooks in held.values() for h in hooks.values()):
            return module
        twin = object.__new__(type(module))
        vars(twin).update(vars(module))
        for name, hooks in held.items():
            kept = {k: h for k, h in hooks.items() if not isinstance(h, self._kind)}
            vars(twin)[name] = OrderedDict(kept)
        return twin
