"""The expressions of golden files: NumPy arithmetic, evaluated from its syntax tree, never by ``eval``.

Golden files are data that strangers may hand over. Only what is listed here can run: arithmetic, comparisons,
slices, list comprehensions, f-strings, chosen functions and array methods of NumPy, ``draw``, ``range`` and
``len``. Nothing reads or writes files, and no attribute with an underscore is reachable. An expression can
still ask for more time or memory than there is.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from types import EllipsisType
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from avsep_zoo.errors import DataError
from avsep_zoo.parity.recipe import draw

__all__ = ["evaluate", "select"]

_UFUNCS = {name: value for name, value in vars(np).items() if isinstance(value, np.ufunc)}
_ARRAY_FUNCTIONS = (
    "all", "any", "arange", "argmax", "argmin", "argsort", "array", "asarray", "ascontiguousarray",
    "atleast_1d", "atleast_2d", "broadcast_to", "clip", "concatenate", "cumprod", "cumsum", "diff",
    "dot", "einsum", "expand_dims", "eye", "flip", "full", "full_like", "indices", "interp", "linspace",
    "max", "mean", "min", "moveaxis", "ones", "ones_like", "outer", "pad", "prod", "ravel", "repeat",
    "reshape", "roll", "round", "sort", "squeeze", "stack", "std", "sum", "swapaxes", "take", "tile",
    "transpose", "where", "zeros", "zeros_like",
)  # fmt: skip
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{f"np.{name}": ufunc for name, ufunc in _UFUNCS.items()},
    **{f"np.{name}.reduce": ufunc.reduce for name, ufunc in _UFUNCS.items()},
    **{f"np.{name}": getattr(np, name) for name in _ARRAY_FUNCTIONS},
    "np.lib.stride_tricks.sliding_window_view": sliding_window_view,
    "draw": draw,
    "len": len,
    "range": range,
}
_TYPES = {
    f"np.{name}": value
    for name, value in vars(np).items()
    if isinstance(value, type) and issubclass(value, np.number | np.bool_)
}
_VALUES = {**_TYPES, "np.e": np.e, "np.inf": np.inf, "np.nan": np.nan, "np.newaxis": None, "np.pi": np.pi}
_METHODS = frozenset((
    "all", "any", "astype", "clip", "conj", "copy", "cumsum", "flatten", "max", "mean", "min", "prod",
    "ravel", "repeat", "reshape", "round", "squeeze", "std", "sum", "swapaxes", "take", "transpose",
))  # fmt: skip
_ATTRIBUTES = frozenset({"T", "imag", "ndim", "real", "shape", "size"})
_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
    ast.Div: operator.truediv,
    ast.Eq: operator.eq,
    ast.FloorDiv: operator.floordiv,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Invert: operator.invert,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.MatMult: operator.matmul,
    ast.Mod: operator.mod,
    ast.Mult: operator.mul,
    ast.NotEq: operator.ne,
    ast.Pow: operator.pow,
    ast.Sub: operator.sub,
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
}
_NUMBERS = (int, float, complex, np.generic, np.ndarray)
_INDEX_NODES = (
    *(ast.Expression, ast.Subscript, ast.Name, ast.Load, ast.Tuple, ast.List, ast.Slice, ast.Constant),
    *(ast.UnaryOp, ast.USub, ast.Call, ast.Attribute),
)
_LONGEST = 10_000  # characters of an expression
_MOST_BITS = 1024  # of an integer power
_MOST_ITEMS = 1_000_000  # of a range


def evaluate(text: str, names: Mapping[str, Any]) -> Any:
    """Return the value of the expression ``text`` over ``np``, ``draw``, ``range``, ``len`` and ``names``.

    Raises:
        DataError: the expression uses something that is not allowed, or fails.
    """
    return _run(text, _parse(text), names)


def select(array: NDArray[Any], text: str) -> Any:
    """Return the part of ``array`` that an index like ``[:, ::8]`` or ``.reshape(-1)[::4]`` names.

    Raises:
        DataError: ``text`` is not an index, with or without ``.reshape(...)``, or does not fit ``array``.
    """
    tree = _parse(f"x{text}")
    nodes = list(ast.walk(tree))
    base = tree.body.value if isinstance(tree.body, ast.Subscript) else None
    if isinstance(base, ast.Call) and isinstance(base.func, ast.Attribute) and base.func.attr == "reshape":
        base = base.func.value
    plain = all(isinstance(node, _INDEX_NODES) for node in nodes)
    if not (plain and isinstance(base, ast.Name) and sum(isinstance(n, ast.Name) for n in nodes) == 1):
        raise DataError(f"The selection {text!r} is not an index: write it like [:, ::8].")
    return _run(text, tree, {"x": array})


def _parse(text: str) -> ast.Expression:
    if len(text) > _LONGEST:
        raise DataError(f"An expression of {len(text)} characters is too long: use at most {_LONGEST}.")
    try:
        return ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise DataError(f"The expression {text[:80]!r} cannot be parsed ({error}): correct the case.") from error


def _run(text: str, tree: ast.Expression, names: Mapping[str, Any]) -> Any:
    try:
        return _value(tree.body, names)
    except _Refused as error:
        raise DataError(f"The expression {text!r} uses {error}, which golden files may not: rewrite it.") from None
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        raise DataError(f"The expression {text!r} fails with {what}: correct the case.") from error


class _Refused(Exception):
    """Says what an expression may not use."""


def _value(node: ast.expr | None, names: Mapping[str, Any]) -> Any:
    """Return the value of one node of the tree; functions are never values."""
    match node:
        case None:
            return None
        case ast.Constant(value=None | bool() | int() | float() | complex() | str() | EllipsisType()):
            return node.value
        case ast.Name(id=name) if name in names:
            return names[name]
        case ast.List(elts=items):
            return [_value(item, names) for item in items]
        case ast.Tuple(elts=items):
            return tuple(_value(item, names) for item in items)
        case ast.UnaryOp(op=op, operand=operand):
            return _operate(op, _value(operand, names))
        case ast.BinOp(left=left, op=op, right=right):
            return _operate(op, _value(left, names), _value(right, names))
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            return _operate(op, _value(left, names), _value(right, names))
        case ast.Slice(lower=lower, upper=upper, step=step):
            return slice(_value(lower, names), _value(upper, names), _value(step, names))
        case ast.Subscript(value=base, slice=index):
            return _value(base, names)[_value(index, names)]
        case ast.JoinedStr(values=parts):
            return "".join(_text(part, names) for part in parts)
        case ast.ListComp(elt=element, generators=[ast.comprehension(target=ast.Name(id=name)) as loop]):
            return _comprehension(element, name, loop, names)
        case ast.Attribute(value=base, attr=attribute):
            return _attribute(node, base, attribute, names)
        case ast.Call():
            return _call(node, names)
    raise _Refused(ast.unparse(node))


def _operate(op: ast.AST, *operands: Any) -> Any:
    if type(op) not in _OPERATORS or not all(isinstance(operand, _NUMBERS) for operand in operands):
        raise _Refused(f"{type(op).__name__} of {' and '.join(type(o).__name__ for o in operands)}")
    if isinstance(op, ast.Pow) and all(isinstance(operand, int) for operand in operands):
        base, exponent = operands
        if base.bit_length() * abs(exponent) > _MOST_BITS:
            raise _Refused("an integer power that large")
    return _OPERATORS[type(op)](*operands)


def _text(part: ast.expr, names: Mapping[str, Any]) -> str:
    if isinstance(part, ast.FormattedValue):
        value = _value(part.value, names)
        if part.format_spec is not None or part.conversion != -1 or not isinstance(value, int | str):
            raise _Refused(ast.unparse(part))
        return str(value)
    return str(_value(part, names))


def _comprehension(element: ast.expr, name: str, loop: ast.comprehension, names: Mapping[str, Any]) -> list[Any]:
    items = []
    for item in _value(loop.iter, names):
        scope = {**names, name: item}
        if all(_value(condition, scope) for condition in loop.ifs):
            items.append(_value(element, scope))
    return items


def _dotted(node: ast.expr) -> str:
    """Return the text of a chain of attributes of a name (``np.add.reduce``), "" for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    base = _dotted(node.value) if isinstance(node, ast.Attribute) else ""
    return f"{base}.{node.attr}" if base and isinstance(node, ast.Attribute) else ""


def _attribute(node: ast.expr, base: ast.expr, attribute: str, names: Mapping[str, Any]) -> Any:
    path = _dotted(node)
    if path in _VALUES:
        return _VALUES[path]
    if attribute in _ATTRIBUTES:
        value = _value(base, names)
        if isinstance(value, np.ndarray | np.generic):
            return getattr(value, attribute)
    raise _Refused(path or f".{attribute}")


def _call(node: ast.Call, names: Mapping[str, Any]) -> Any:
    path = _dotted(node.func)
    if path in _FUNCTIONS or path in _TYPES:
        function = _FUNCTIONS.get(path) or _TYPES[path]
    elif isinstance(node.func, ast.Attribute) and node.func.attr in _METHODS:
        value = _value(node.func.value, names)
        if not isinstance(value, np.ndarray | np.generic):
            raise _Refused(f".{node.func.attr} of {type(value).__name__}")
        function = getattr(value, node.func.attr)
    else:
        raise _Refused(path or ast.unparse(node.func))
    arguments = [_value(argument, names) for argument in node.args]
    keywords = {keyword.arg or "**": _value(keyword.value, names) for keyword in node.keywords}
    if "**" in keywords:
        raise _Refused("**")
    result = function(*arguments, **keywords)
    if isinstance(result, range) and len(result) > _MOST_ITEMS:
        raise _Refused(f"a range of more than {_MOST_ITEMS} items")
    return result
