"""Autograd functions whose own forward loops over time: what their code tells of their output.

Such a function makes a whole sequence, and leaves one node in the graph (EventProp, rate-based
backpropagation). Its source is read, and nothing is run. An axis is that of time where a loop
carries a state, and puts what each turn makes along it: `output[:, :, t] = spike`, or
`spikes.append(spike)` and `torch.stack(spikes, 0)`, and that is what is returned.
"""

import ast
import dis
import re
from collections.abc import Iterator
from functools import lru_cache
from types import CodeType, FunctionType
from typing import Any

from torch import nn

from spikewatch.layers import own_type

from ..reachable import arguments, own_code, own_forward, source_tree


_STEPS = re.compile(
    "T|(?i:((n|nb|num|number_of|sim|simulation)_?)?(time_?)?steps|time_?step|time_?window"
    "|seq(uence)?_?len(gth)?)"
)


def is_length(n: Any) -> bool:
    """Whether a value may be a number of time steps."""
    return type(n) in (int, float) and n >= 1 and n == n // 1


def steps_by_name(module: nn.Module) -> dict[str, int]:
    """The numbers that a module holds under names of a number of time steps."""
    held = ((name, n) for name, n in vars(module).items() if _STEPS.fullmatch(name))
    return {name: int(n) for name, n in held if is_length(n)}


def steps_held(module: nn.Module) -> set[int]:
    """Those of them that tell a sequence from a single time step."""
    return {n for n in steps_by_name(module).values() if n > 1}


@lru_cache(maxsize=512)
def loops(function: Any, cls: type[nn.Module] | None = None) -> bool:
    """Whether the forward of an autograd function has a loop.

    It may be given a method of the layer's class that has it.
    """
    forward = own_forward(function)
    if not isinstance(forward, FunctionType):
        return False
    if _has_loop(forward.__code__) or cls is None:
        return _has_loop(forward.__code__)
    methods = [m for m in vars(cls).values() if isinstance(m, FunctionType)]
    return any(_has_loop(m.__code__) for m in methods) and _calls_argument(forward)


def has_loop(module: nn.Module) -> bool:
    """Whether the forward of a module's class has a loop, or a method that this names."""
    return _any_has_loop(own_type(module))


@lru_cache(maxsize=512)
def _any_has_loop(cls: type[nn.Module]) -> bool:
    return any(_has_loop(function.__code__) for function in own_code(cls))


def _calls_argument(forward: FunctionType) -> bool:
    tree = source_tree(forward)
    called = set[str | None]() if tree is None else {_name(c.func) for c in _all(tree, ast.Call)}
    return not called.isdisjoint(arguments(forward))


def _has_loop(code: CodeType) -> bool:
    names = {instruction.opname for instruction in dis.get_instructions(code)}
    return any(name == "FOR_ITER" or "BACKWARD" in name for name in names) or any(
        _has_loop(inner) for inner in code.co_consts if isinstance(inner, CodeType)
    )


def returned_axis(function: Any, *, rank: int) -> int | None:
    """The axis along which the forward of an autograd function returns time steps, if it says so.

    Args:
        function: The autograd function.
        rank: Of what it returned first.
    """
    axis = _returned_axis(function)
    return None if axis is None or not -rank <= axis < rank else axis % rank


@lru_cache(maxsize=512)
def _returned_axis(function: Any) -> int | None:
    tree = source_tree(own_forward(function))
    if tree is None:
        return None
    places = [_place_of(_first(node.value), tree) for node in _all(tree, ast.Return)]
    return places[0] if len(set(places)) == 1 else None


def carries_state(function: Any) -> bool:
    """Whether a function has a loop in which each turn goes on with what the one before left."""
    if not isinstance(function, FunctionType) or not _has_loop(function.__code__):
        return False
    tree = source_tree(function)
    return tree is not None and any(map(_carries, _all(tree, ast.For)))


def _all(tree: ast.AST, kind: type) -> list[Any]:
    return [node for node in ast.walk(tree) if isinstance(node, kind)]


def _first(value: Any) -> Any:
    return value.elts[0] if isinstance(value, ast.Tuple) and value.elts else value


def _place_of(value: Any, tree: ast.FunctionDef) -> int | None:
    """The axis of time of what is returned: a stack, or a tensor by its name."""
    loops_of_steps = [loop for loop in _all(tree, ast.For) if _carries(loop)]
    if not isinstance(value, ast.Name):
        return _stacked(value, loops_of_steps)
    assigned = [a for a in _all(tree, ast.Assign) if value.id in map(_name, a.targets)]
    writing = {loop: {*_written(value.id, loop)} for loop in loops_of_steps}
    places = set[int | None]().union(*writing.values())
    if places:
        began = min(loop.lineno for loop, written in writing.items() if written)
        anew = any(a.lineno > began for a in assigned)
    else:  # `spikes = []` is what is stacked
        stacks = [a.value for a in assigned if not isinstance(a.value, ast.List)]
        places, anew = {_stacked(x, loops_of_steps) for x in stacks}, False
    return None if anew or len(places) != 1 else places.pop()


def _name(node: Any) -> str | None:
    return node.id if isinstance(node, ast.Name) else None


def _written(name: str, loop: ast.For) -> Iterator[int | None]:
    """Where the variable of a loop stands in the index at which a tensor is written."""
    variables = {*map(_name, _all(loop.target, ast.Name))}
    for node in _all(loop, ast.Subscript):
        if isinstance(node.ctx, ast.Store) and _name(node.value) == name:
            index = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
            by = [i for i, x in enumerate(index) if variables & {*map(_name, _all(x, ast.Name))}]
            dots = [i for i, x in enumerate(index) if isinstance(x, ast.Constant)]
            if len(by) != 1 or any(index[i].value is not ... for i in dots):
                yield None
            else:
                yield by[0] - len(index) if dots and dots[0] < by[0] else by[0]


def _stacked(value: Any, loops_of_steps: list[ast.For]) -> int | None:
    """The dimension of a stack of what loops have put into a list."""
    if not isinstance(value, ast.Call):
        return None
    called = value.func
    if (called.attr if isinstance(called, ast.Attribute) else _name(called)) != "stack":
        return None
    given = dict[str | None, Any](zip(("tensors", "dim"), value.args, strict=False))
    given |= {"dim" if k.arg == "axis" else k.arg: k.value for k in value.keywords}
    if _name(given.get("tensors")) not in {x for loop in loops_of_steps for x in _listed(loop)}:
        return None
    dim = given.get("dim", ast.Constant(0))
    try:
        return int(ast.literal_eval(dim))
    except (ValueError, TypeError):
        return None


def _listed(loop: ast.For) -> Iterator[str | None]:
    """Lists to which each turn of a loop adds something."""
    for node in _all(loop, ast.Call):
        if isinstance(node.func, ast.Attribute) and node.func.attr == "append":
            yield _name(node.func.value)
    yield from (_name(n.target) for n in _all(loop, ast.AugAssign) if isinstance(n.value, ast.List))


def _carries(loop: ast.For) -> bool:
    """Whether a turn of a loop goes on with what the one before has left: a state.

    Without one it may go over channels, or levels.
    """
    order = _Order()
    for statement in loop.body:
        order.visit(statement)
    if any(order.loaded_first[name] for name in order.stored & order.loaded):
        return True
    variables = {*map(_name, _all(loop.target, ast.Name))}
    return any(
        variables & {*map(_name, _all(shifted, ast.Name))}
        for read in _all(loop, ast.Subscript)
        if isinstance(read.ctx, ast.Load)
        for shifted in _all(read.slice, ast.BinOp)
    )


class _Order(ast.NodeVisitor):
    """Which names are read before they are written."""

    def __init__(self) -> None:
        self.loaded_first: dict[str, bool] = {}
        self.loaded: set[str] = set()
        self.stored: set[str] = set()

    def visit_Assign(self, node: ast.Assign) -> None:
        """The value comes first, then what it is written to."""
        for part in (node.value, *node.targets):
            self.visit(part)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        """Of `mem += current`, too. What is read nowhere else is a sum, and no state."""
        self.visit(node.value)
        if isinstance(node.target, ast.Name):
            self.loaded_first.setdefault(node.target.id, True)
        self.visit(node.target)

    def visit_Name(self, node: ast.Name) -> None:
        """Its first use decides."""
        stores = isinstance(node.ctx, ast.Store)
        self.loaded_first.setdefault(node.id, not stores)
        (self.stored if stores else self.loaded).add(node.id)
