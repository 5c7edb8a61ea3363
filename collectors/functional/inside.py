"""The spikes that functions make within the forward of one module, read as layers of their own."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from spikewatch.layers import Layer, own_type
from spikewatch.observing import Counts, Session

from ..calls import Call, Subject
from ..candidates import Made
from ..constants import Constants, constants_of
from ..handing_on import hands_on
from ..hooks import in_recomputation
from ..layer_reader import LayerReader
from ..layouts.axes import Axes
from ..libraries import own_numbers, user
from ..library import Dynamics, Library
from ..quantized.operands import comes_from
from ..reachable import own_forward
from ..spike_values import are_of_one_size, looks_like_spikes
from .listening import FunctionCall
from .places import Place, Turns
from .sources import (
    NOWHERE,
    UNREGISTERED,
    Source,
    Weights,
    first_input,
    is_of_parameters,
    source_of,
)


_STEP = "B*"
_TELL_UNREGISTERED = (
    "the weights behind some of its spikes are not registered in the model that is watched. If "
    "they are in modules that stand in a plain list or dict, model.parameters() does not have "
    "them, and no optimizer trains them: use nn.ModuleList or nn.ModuleDict"
)


@dataclass(eq=False)
class Pass:
    """A forward pass of a module, while it runs.

    Attributes:
        made: By the node that made it, what was made until now; only until it is settled.
        trains: Whether gradients are enabled around it; None where its beginning was not seen.
        begins: Whether a sample begins with it, as the state that the module keeps tells.
        shape: Of the spikes made last in it.
        has_graph: Whether any of its spikes have one.
    """

    made: WeakKeyDictionary[Any, Made] = field(default_factory=WeakKeyDictionary)
    trains: bool | None = None
    begins: bool | None = None
    shape: tuple[int, ...] = ()
    has_graph: bool = False


class InnerLayer:
    """What one function makes at one site."""

    def __init__(self, function: Any, reader: LayerReader) -> None:
        self.function = function
        self.source = ""  # the weights behind it
        self.reader = reader
        self.layer: Layer | None = None  # once it is stored
        self.sure = False
        self.has_graph = False
        self._pass: Pass | None = None
        self._n_calls = 0  # of that pass

    def starts(self, running: Pass) -> bool | None:
        """Whether a sample begins with this call; None where the pass does not tell."""
        if running is self._pass:
            self._n_calls += 1
            return False
        within, self._pass, self._n_calls = self._n_calls > 1, running, 1
        return True if within and running.begins is None else running.begins


class Inside:
    """The inner layers of one module. Until it is settled they are read, and not told of.

    Attributes:
        functions: Those that the module's code can reach.
        settled: Whether they are layers of their own (True), or the module is the layer (False).
        sure: Whether that will not change any more.
    """

    def __init__(
        self,
        name: str,
        module: Callable[[], nn.Module | None],
        functions: frozenset[Any],
        weights: Weights,
        subject: Callable[[Library], Subject],
        *,
        weighs: bool = False,
    ) -> None:
        """Take the module, what it can reach, the model's weights, and what makes a subject.

        Where the module has weights itself (`weighs`), its functions may well quantize these, or
        activations of a few bits: only zeros and a single size are spikes there.
        """
        self.functions = functions
        self.settled: bool | None = None
        self.sure = False
        self._name = name
        self._module = module
        self._weights = weights
        self._subject = subject
        self._weighs = weighs
        self._turns: dict[tuple[Any, Place], Turns] = {}
        self._layers: dict[tuple[Any, Place, int], InnerLayer] = {}
        self._no_spikes: set[Any] = set()  # functions that make something else

    @property
    def live(self) -> bool:
        """Whether there is something to listen to."""
        open_ = self.settled is not False or not self.sure
        return open_ and bool(self.functions - self._no_spikes)

    @property
    def layers(self) -> list[Layer]:
        """The inner layers that are stored."""
        return [x.layer for x in self._layers.values() if x.layer is not None]

    @property
    def fires(self) -> bool:
        """Whether a function within has shown to make spikes."""
        return any(inner.sure for inner in self._layers.values())

    def settle(self, *, inner: bool, sure: bool = True) -> None:
        """Say whether what is made inside is a layer of its own."""
        self.settled, self.sure = inner, sure
        if not inner:
            self._turns.clear()
            self._layers.clear()

    def hear(
        self, session: Session, call: FunctionCall, frame: Any, place: Place, running: Pass
    ) -> None:
        """Read one call of a function."""
        x = first_input(call.inputs)
        source = NOWHERE if x is None else source_of(x, self._weights)
        spikes = call.output
        if call.function in self._no_spikes:
            return
        is_weight = source.is_weight or self._is_own_weight(x)
        if is_weight or not spikes.is_floating_point() or spikes.dim() == 0:
            self._drop(call.function)
            return
        if x is not None and is_of_parameters(x):
            return  # a gate that is learned, and open or not whatever comes in
        if source.name.startswith(UNREGISTERED):
            session.note(self._name, _TELL_UNREGISTERED, aloud=True)
        if not self.settled:
            running.made[call.context] = self._made(spikes, place, source)
        if self.settled is False:
            return
        turn = self._turn(call, place, source, running)
        if turn is None:
            return
        key = (call.function, place, turn)
        inner = self._layers.get(key)
        if inner is None:
            inner = self._layers[key] = self._open(call, frame, place)
        inner.source = inner.source or source.name
        inner.has_graph |= call.has_graph
        if not inner.sure:
            if x is not None and hands_on(call.context, x, spikes):
                self._drop(call.function)
                return
            verdict = looks_like_spikes(spikes)
            if verdict is False or (self._weighs and not are_of_one_size(spikes)):
                self._drop(call.function)
                return
            inner.sure = verdict is True
        self._read(session, inner, call, running)

    def _is_own_weight(self, x: Tensor | None) -> bool:
        """Whether a function is given the module's weight, in whatever shape."""
        module = self._module() if self._weighs and x is not None else None
        if module is None or x is None:
            return False
        return any(comes_from(x, p) for p in nn.Module.parameters(module) if p.dim() > 1)

    def _made(self, spikes: Tensor, place: Place, source: Source) -> Made:
        mine = not self._name or source.name.startswith((f"{self._name}.", UNREGISTERED))
        shape = tuple(spikes.shape)
        return Made(spikes.count_nonzero(), shape, place, source.name if mine else "")

    def made(self, running: Pass) -> Mapping[Any, Made]:
        """What was made in a pass, by the nodes; without what other functions than spikes' made."""
        return {n: m for n, m in running.made.items() if n._forward_cls not in self._no_spikes}

    def _turn(self, call: FunctionCall, place: Place, source: Source, running: Pass) -> int | None:
        turns = self._turns.setdefault((call.function, place), Turns())
        shape = tuple(call.output.shape[1:])
        if in_recomputation():  # in an order of its own
            return turns.known(source.name, shape)
        return turns.of(source.name, shape, pass_id=running, has_graph=call.has_graph)

    def _open(self, call: FunctionCall, frame: Any, place: Place) -> InnerLayer:
        constants = constants_of(own_forward(call.function), frame, place)
        library = replace(user.LIBRARY, dynamics=partial(self._dynamics, constants))
        return InnerLayer(call.function, LayerReader(self._subject(library), _no_site))

    def _dynamics(self, constants: Constants, module: nn.Module) -> Dynamics:
        """Of a neuron whose module may not hold its numbers."""
        told = own_numbers.dynamics_with(constants, module)
        return told if self._is_alone() else replace(told, learnable={})

    def _is_alone(self) -> bool:
        """Whether it is the only one in its module, whose parameters are its own then."""
        return bool(self._name) and len(self._layers) == 1

    def _read(self, session: Session, inner: InnerLayer, call: FunctionCall, running: Pass) -> None:
        module, values = self._module(), call.output.detach()
        running.shape = values.shape
        running.has_graph |= call.has_graph
        made = Call(
            values,
            values,
            Axes.parse(_STEP, rank=values.dim()),
            starts_sample=inner.starts(running),
            find_nodes=lambda: [call.node()],
            maker=call.context if call.has_graph else None,
            module=module,
        )
        # A function's forward runs without gradients, whatever the mode around it.
        trains = running.trains
        if trains is None:
            trains = module is not None and module.training
        with torch.set_grad_enabled(call.has_graph or trains):
            inner.reader.read(session, made)

    def _drop(self, function: Any) -> None:
        self._no_spikes.add(function)
        self._layers = {k: v for k, v in self._layers.items() if k[0] is not function}

    def flush(self, session: Session, phase: str) -> dict[str, Counts]:
        """Counters of each inner layer, by what its name has more than the module's."""
        if self.settled is None and any(x.has_graph for x in self._layers.values()):
            self.settle(inner=True)  # no hook of the module was called
        flushed = {}
        mixed = {key for key, turns in self._turns.items() if turns.mixed}
        for (function, place, _), inner in self._layers.items():
            counts = inner.reader.flush(session, phase)
            shown = inner.has_graph and (inner.sure or not self._weighs)
            if self.settled and shown and inner.layer is None:
                inner.layer = self._named(inner)
                session.confirm(inner.layer)
            if counts is not None and inner.layer is not None and (function, place) not in mixed:
                flushed[inner.layer.name.removeprefix(self._name)] = counts
        return flushed

    def _named(self, inner: InnerLayer) -> Layer:
        module, by = self._module(), inner.function.__name__
        kind = by if module is None else own_type(module).__name__
        taken = {x.name for x in self.layers}
        if self._is_alone() and not self._weighs:
            name = self._name
        elif not inner.source or self._weighs:
            name = f"{self._name}.{by}".lstrip(".")
        elif not self._name or inner.source.startswith(f"{self._name}."):
            name = f"{inner.source}.spikes"
        else:
            name = f"{self._name}@{inner.source}"
        same = sum(x == name or x.startswith(f"{name}@") for x in taken)
        name += f"@{same + 1}" if same else ""
        return Layer(name, "spiking", "user", kind, f"made by {by} in its forward")


def _no_site(suffix: str) -> None:
    """Neurons of several shapes have layers of their own already."""
