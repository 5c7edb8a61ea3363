"""A hook that never gets in the way.

Hooks live inside the user's model, so whatever the user does to the model happens to them too:
`torch.save(model)`, `copy.deepcopy(model)` (EMA), pickling to a spawned worker, `torch.compile`.
A closure over a lock or a file breaks the first three (seen with every monitor that we tried); this
class turns into an inert copy instead.
"""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch._C import _autograd
from torch.autograd import forward_ad

from spikewatch.unheard import unheard

from .scripting import Scripting


class Hook:
    """A callable for `register_forward_hook` and its kin. Copies and pickles of it do nothing."""

    __slots__ = ("_body", "_handles_modes", "_traced")

    # As `torch.utils.hooks.unserializable_hook` sets it: that a tensor of the user is copied while
    # a hook waits on it, as rockpool does in each call, is no cause for a warning.
    __torch_unserializable__ = True

    def __init__(
        self,
        body: Callable[..., None] | None = None,
        owner: Any = None,
        *,
        handles_modes: bool = False,
    ) -> None:
        """Take what to run, and who is to know (by `always_on`) that a compiler came by.

        What `handles_modes`, puts them on the stack or takes them off, needs to see them there.
        """
        self._body = body
        self._handles_modes = handles_modes
        self._traced = None if owner is None else _keep_on(owner)

    def __call__(self, *args: Any) -> None:
        """Run the body; never while the model is captured as a graph."""
        if torch.compiler.is_compiling():
            # Traced as a constant: a compiled graph contains nothing of us, and does not break.
            if torch.compiler.is_dynamo_compiling() and self._traced is not None:
                torch._dynamo.comptime.comptime(self._traced)  # ty: ignore[possibly-missing-submodule]
            return
        if torch._C._is_tracing():
            return
        if self._body is not None:
            if not self._handles_modes and torch._C._len_torch_dispatch_stack():
                with unheard():
                    self._body(*args)
            else:  # in short: this is run for each call
                with torch._C.DisableTorchFunction():
                    self._body(*args)

    @classmethod
    def of_root(cls, body: Callable[..., None], owner: Any) -> "RootHook":
        """One for the model itself, which knows calls that nothing is to be done for."""
        return RootHook(body, owner)

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        # What takes anything and does nothing, and is there where a model is loaded without us.
        return (getattr, (nullcontext(), "__exit__"))

    def __deepcopy__(self, memo: dict[int, Any]) -> "Hook":
        return Hook()


_SCRIPTING = Scripting(Hook)

# What a hook costs is mostly that torch calls it, and it is called once for each time step.
_WORTH_A_REST = 2


class RootHook(Hook):
    """A forward pre-hook of the model itself, which a loop over time calls at each time step.

    Attributes:
        n_free: So many of the next calls in training need no more than to be counted; where that
            are many, the first stands for all of them, and the hook rests until it is woken.
        rests: Whether it is on, and not called.
    """

    __slots__ = ("_owner", "_seat", "n_free", "rests")

    def __init__(self, body: Callable[..., None], owner: Any) -> None:
        super().__init__(body, owner)
        self._owner = owner
        self._seat: tuple[dict[int, Any], int] | None = None  # among the model's hooks
        self.n_free = 0
        self.rests = False

    def put_on(self, module: nn.Module) -> Any:
        """Be called before each forward pass of the model, until the handle is removed."""
        handle = module.register_forward_pre_hook(self)
        self._seat = (module._forward_pre_hooks, handle.id)
        _SCRIPTING.begin()
        return handle

    def let_go(self) -> None:
        """Never be put back: the handle is removed."""
        if self._seat is not None:
            self._seat = None
            _SCRIPTING.end()

    def n_calls(self, n_forwards: int) -> int:
        """How often it is called in a step of so many forward passes that are all free."""
        return 1 if n_forwards > _WORTH_A_REST and not self._owner.always_on else n_forwards

    def wake(self) -> None:
        """Be called again, from any thread."""
        if self.rests and self._seat is not None:
            hooks, number = self._seat
            self.rests = False
            hooks[number] = self
            if self._seat is None:  # another thread was quicker
                hooks.pop(number, None)

    def __call__(self, *args: Any) -> None:
        """Run the body, unless the call is free."""
        # Here, and not in the body: what is called in turn costs ten times as much in the midst of
        # a training, whose code has taken the caches, as in an empty loop.
        if not torch.compiler.is_compiling() and self.n_free > 0:
            module = args[0]
            if module.training and torch.is_grad_enabled() and "_is_replica" not in vars(module):
                self.n_free -= 1
                # A compiler would compile anew for a hook that comes and goes.
                worth_it = self.n_free >= _WORTH_A_REST and self._seat is not None
                if worth_it and not self._owner.always_on:
                    hooks, number = self._seat
                    self.rests = hooks.pop(number, None) is self
                return
        super().__call__(*args)


def _keep_on(owner: Any) -> Callable[[Any], None]:
    """What is run while a hook is compiled: a graph is bound to the hooks that it was made with."""

    def traced(_context: Any) -> None:
        owner.always_on = True

    return traced


def why_unreadable(tensor: Tensor) -> str:
    """Why a tensor of the user's must not be read now; "" if it may be.

    What is not a number yet would be kept in our counters, and spoil them for good.
    """
    if tensor.is_cuda and torch.cuda.is_current_stream_capturing():
        return _CAPTURED
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return _TRANSFORMED
    # `FakeTensor` by name: its module takes a second to import, and is there when one is met.
    if tensor.is_meta or type(tensor).__name__ == "FakeTensor":
        return _WITHOUT_DATA
    if type(tensor) is not Tensor and hasattr(tensor, "_local_tensor"):
        return _DISTRIBUTED
    if forward_ad._current_level >= 0:
        return _FORWARD_MODE
    return ""


_CAPTURED = (
    "a CUDA graph is captured. What is replayed from it is not seen; to see it, run some steps "
    "without the graph"
)
_TRANSFORMED = (
    "called inside a transform of torch.func (grad, vmap, …), and not seen there. To see it, call "
    "the model by itself"
)
_DISTRIBUTED = (
    "called with distributed tensors (DTensor): each look at one would be a collective operation. "
    "Such calls are not counted"
)
_FORWARD_MODE = "called within forward-mode differentiation; such calls are not counted"
_WITHOUT_DATA = "called with tensors that hold no data (meta or fake); such calls are not counted"


def in_recomputation() -> bool:
    """Whether the forward pass that runs now is activation checkpointing's second one.

    Statistics of the forward pass are counted in the first one only; gradients in the one whose
    graph the backward pass goes through, which is the second one for reentrant checkpoints.
    """
    return torch._C._current_graph_task_id() != -1


def saved_tensors_are_hooked() -> bool:
    """Whether tensors that are saved for the backward pass go elsewhere (checkpoints, offloading).

    Reading one would then run a checkpoint's block again, or copy it back: too dear for a glance.
    """
    return _autograd._top_saved_tensors_default_hooks(True) is not None


def keeps_elsewhere(node: Any) -> bool:
    """Whether a node's saved tensors went elsewhere when they were saved, in a context now left."""
    return any(saved.unpack_hook is not None for saved in getattr(node, "_raw_saved_tensors", ()))
