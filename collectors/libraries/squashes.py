"""Whether a number that a neuron learns acts as it stands, or as what a function makes of it.

`torch.sigmoid(self.decay)`: what multiplies the potential is not what the module holds. The source
of the class is read, and nothing is run. `sigmoid(4 * (u - self.threshold))` is a surrogate: it
squashes a distance, and the threshold stands as it is.
"""

import ast
from functools import lru_cache

from torch import nn

from ..reachable import code_names, own_code, source_tree


_SQUASHES = {"sigmoid", "exp", "softplus", "tanh", "Sigmoid", "hardsigmoid"}
# What gives a number another shape, type or bound, and leaves it what it is.
_KEEPS = {
    "view", "view_as", "reshape", "unsqueeze", "squeeze", "expand", "expand_as", "to", "type_as",
    "detach", "clone", "contiguous", "float", "item", "repeat", "clamp", "clamp_", "clamp_min",
    "maximum", "abs", "relu",
}  # fmt: skip
# Where it meets what it belongs to.
_MEETS = {
    "gt", "ge", "lt", "le", "greater", "greater_equal", "sub", "sub_", "add", "add_", "mul", "mul_",
    "div", "div_", "where", "lerp", "addcmul",
}  # fmt: skip
_MOST_NAMES = 4  # that a number is given in turn


@lru_cache(maxsize=512)
def may_be_squashed(cls: type[nn.Module], name: str) -> bool:
    """Whether the code of a class squashes its number of this name, as far as that can be told.

    A class that squashes something must show that it is something else.
    """
    functions = own_code(cls)
    if all(_SQUASHES.isdisjoint(code_names(f.__code__)) for f in functions):
        return False
    naming = [f for f in functions if name in code_names(f.__code__)]
    trees = [source_tree(function) for function in naming]
    return not naming or any(tree is None or not _stands(tree, name) for tree in trees)


def _stands(tree: ast.AST, name: str) -> bool:
    """Whether a function uses an attribute of its module nowhere but as it stands."""
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    todo = [*_loads(tree, {name}, ast.Attribute)]
    named = set[str]()
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Attribute | ast.Name) and not isinstance(node.ctx, ast.Load):
            continue
        user = _user_of(node, parents)
        if isinstance(user, ast.Assign) and len(named) < _MOST_NAMES:
            targets = {t.id for t in user.targets if isinstance(t, ast.Name)}
            if not targets:
                return False
            todo += _loads(tree, targets - named, ast.Name)
            named |= targets
        elif not _meets(user):
            return False
    return True


def _loads(tree: ast.AST, names: set[str], kind: type) -> list[ast.AST]:
    """Where attributes, or variables, of these names are."""
    nodes = [node for node in ast.walk(tree) if isinstance(node, kind)]
    return [n for n in nodes if (getattr(n, "attr", "") or getattr(n, "id", "")) in names]


def _user_of(node: ast.AST, parents: dict[ast.AST, ast.AST]) -> ast.AST:
    """What takes a number, behind what leaves it what it is."""
    while True:
        user = parents[node]
        of_constant = isinstance(user, ast.BinOp) and isinstance(
            user.left if node is user.right else user.right, ast.Constant
        )
        keeps = isinstance(user, ast.Subscript | ast.UnaryOp | ast.Attribute | ast.keyword)
        if not (of_constant or keeps or (isinstance(user, ast.Call) and _called(user) in _KEEPS)):
            return user
        node = user


def _meets(user: ast.AST) -> bool:
    if isinstance(user, ast.Call):
        return _called(user) in _MEETS
    return isinstance(user, ast.BinOp | ast.Compare | ast.AugAssign | ast.Expr)


def _called(call: ast.Call) -> str:
    function = call.func
    return getattr(function, "attr", "") or getattr(function, "id", "")
