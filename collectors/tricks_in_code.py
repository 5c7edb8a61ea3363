"""Whether the code of a module makes spikes by a detach trick, without an autograd function.

`hard + soft - soft.detach()`, or `(hard - soft).detach() + soft`, has the values of the one and the
gradient of the other. Quantizers of weights and of codes are written so as well: a neuron has a
state besides, which a loop over time carries, or the module keeps.
"""

import ast
import dis
import types
from collections.abc import Iterator
from functools import lru_cache

import torch
from torch import nn

from spikewatch.layers import own_type

from .layouts.inner_loops import carries_state
from .reachable import code_names, functions_reached, own_code, source_tree


_CUTS = {"detach", "data"}
_SIGNS: dict[type[ast.operator], int] = {ast.Add: 1, ast.Sub: -1}

Term = tuple[int, ast.expr]


def makes_spikes_by_trick(module: nn.Module) -> bool:
    """Whether a module's code, or that of a surrogate in it, may make spikes so."""
    if not _has_state(own_type(module)):
        return False
    parts = (m for m in nn.Module.modules(module) if m is module or _may_be_surrogate(m))
    return any(_is_trick(f) for part in parts for f in functions_reached(part))


def _may_be_surrogate(part: nn.Module) -> bool:
    cls = own_type(part)
    own = not cls.__module__.startswith("torch.")
    return own and not part._parameters and not part._modules and not _has_state(cls)


@lru_cache(maxsize=512)
def _has_state(cls: type[nn.Module]) -> bool:
    """Whether a class's forward, or a method that it names, goes on with what it left."""
    return any(carries_state(f) or _goes_on_with(f) for f in own_code(cls))


def _goes_on_with(function: types.FunctionType) -> bool:
    """Whether a method reads an attribute, and then sets it."""
    read = set[str]()
    for instruction in dis.get_instructions(function):
        if instruction.opname == "STORE_ATTR" and instruction.argval in read:
            return True
        if instruction.opname == "LOAD_ATTR":
            read.add(instruction.argval)
    return False


@lru_cache(maxsize=2048)
def _is_trick(function: types.FunctionType | torch.jit.ScriptFunction) -> bool:
    if isinstance(function, torch.jit.ScriptFunction):
        return any(f".{cut}(" in str(function.code) for cut in _CUTS)
    if not _CUTS & code_names(function.__code__):
        return False
    tree = source_tree(function)
    return tree is not None and any(
        _is_straight_through([*_terms(node)]) for node in ast.walk(tree)
    )


def _terms(node: ast.AST, sign: int = 1) -> Iterator[Term]:
    """What is added, or subtracted, in a chain of sums."""
    if isinstance(node, ast.BinOp) and type(node.op) in _SIGNS:
        yield from _terms(node.left, sign)
        yield from _terms(node.right, sign * _SIGNS[type(node.op)])
    elif isinstance(node, ast.expr):
        yield sign, node


def _is_straight_through(terms: list[Term]) -> bool:
    """Whether a sum has something, and takes away the same without its gradient."""
    whole = {ast.dump(term) for sign, term in terms if sign > 0}
    away = (x for sign, term in terms for s, x in _without_gradient(term) if sign * s < 0)
    return any(ast.dump(term) in whole for term in away)


def _without_gradient(term: ast.expr) -> Iterator[Term]:
    """What is summed within a term that has no gradient."""
    called = term.func if isinstance(term, ast.Call) else term
    if isinstance(called, ast.Attribute) and called.attr in _CUTS:
        yield from _terms(called.value)
