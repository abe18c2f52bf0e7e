"""The parser of IR text (see `tbc.text`). It reads Python's syntax tree and evaluates no Python."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, partial
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np
import numpy.typing as npt

from tbc.constants import Array, constant
from tbc.dims import Dim, Expr, Symbol, dim_max, dim_min, sole_symbol
from tbc.errors import Unsupported
from tbc.ir import Builder, Graph, State, Value
from tbc.layout import Layout
from tbc.ops import BINARY, OPS, UNARY, Binary, Const, Input, Unary
from tbc.text_printer import printed_name
from tbc.types import DType, TensorType

T = TypeVar("T")

_RECORDS = (*(op for op in OPS if op not in (Input, Const, Unary, Binary)), Layout)
_MAKERS: Mapping[str, Callable[..., Any]] = {
    **{printed_name(record.__name__): record for record in _RECORDS},
    **{printed_name(fn): partial(Unary, fn) for fn in UNARY},
    **{printed_name(fn): partial(Binary, fn) for fn in BINARY},
}
_DIM_OPERATORS: Mapping[type, Callable[[Dim, Dim], Dim]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_DIM_FUNCTIONS = {"min": dim_min, "max": dim_max}


def parse_graph(text: str, constants: Mapping[str, npt.NDArray[Any]] | None = None) -> Graph:
    """The graph that a text describes.

    Args:
        text: as `print_graph` writes it, or by hand.
        constants: the elements of the constants that the text names by digest; what `np.load`
            reads of the file of `dump_constants`.

    Raises:
        ValueError: the text is wrong; the message begins with the number of the line.
    """
    try:
        module = ast.parse(text)
    except SyntaxError as error:
        raise ValueError(f"line {error.lineno}: {error.msg}") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"line 1: the text does not parse: {error}") from error
    return _Parser(constants or {}).graph(module)


def _at(node: ast.AST, read: Callable[..., T], *args: Any) -> T:
    """read(*args); what it raises then names the line of the node."""
    try:
        return read(*args)
    except (ValueError, TypeError, ArithmeticError, RecursionError, Unsupported) as error:
        raise ValueError(f"line {getattr(node, 'lineno', 1)}: {error}") from error


class _Parser:
    """The names of a text, and what they stand for so far."""

    def __init__(self, constants: Mapping[str, npt.NDArray[Any]]):
        self.constants = constants
        self.builder = Builder()
        self.dims: dict[str, Expr] = {}
        self.values: dict[str, Value] = {}
        self.bodies: dict[str, Graph] = {}

    def graph(self, module: ast.Module) -> Graph:
        match module.body:
            case [*declarations, ast.FunctionDef() as function]:
                for statement in declarations:
                    _at(statement, self.declare, statement)
                return self.function(function)
        raise ValueError("line 1: the text must end in one function")

    def declare(self, node: ast.stmt) -> None:
        """name = dim(lo, hi), or dim(lo, below=dim)"""
        match node:
            case ast.Assign([ast.Name(name)], ast.Call(ast.Name("dim"), args, keywords)):
                fields = self.keywords(keywords)
                symbol = Symbol(fields.pop("name", name), *map(self.attribute, args))
                below = fields.pop("below", None)
                lo, hi = symbol.lo, symbol.hi
                fits = type(lo) is int and (hi is None or (type(hi) is int and lo <= hi))
                fits &= type(symbol.name) is str and symbol.below is None
                fits &= below is None or (_fits(below, Dim) and hi is None)
                if not fits or fields or name in self.dims:
                    raise ValueError(f"{name} needs its own dim(lo, hi)")
                self.dims[name] = Expr.of(replace(symbol, below=below))
            case _:
                raise ValueError("expected name = dim(lo, hi)")

    def function(self, node: ast.FunctionDef) -> Graph:
        inputs = tuple(self.parameters(node))
        body = node.body
        name = node.name
        match body[0]:
            case ast.Expr(ast.Constant(str(docstring))):
                name, body = docstring, body[1:]
        checks, states = [], []
        for statement in body:
            match statement:
                case ast.FunctionDef(called):
                    _at(statement, self.nest, called, statement)
                case ast.AnnAssign(ast.Name(target), annotation, ast.Call() as call):
                    value = _at(statement, self.value, annotation, call)
                    _at(statement, self.name, target, value)
                case ast.Expr(ast.Call(ast.Name("check"), [checked], [])):
                    checks.append(_at(statement, self.named, checked))
                case ast.Expr(ast.Call(ast.Name("keep"), [old, ast.Constant(str(kept)), new], [])):
                    pair = _at(statement, self.named, old), _at(statement, self.named, new)
                    states.append(_at(statement, self.state, inputs, *pair, kept))
                case ast.Return(ast.Dict(keys, results)) if statement is body[-1]:
                    outputs = zip(keys, results, strict=True)
                    named = tuple(_at(v, self.output, k, v) for k, v in outputs)
                    olds = {s.old for s in states}
                    given = tuple(v for v in inputs if v not in olds)
                    return Graph(name, given, named, tuple(checks), tuple(states))
                case _:
                    raise ValueError(f"line {statement.lineno}: expected v: type = op(…)")
        raise ValueError(f"line {node.lineno}: the function does not end in return {{…}}")

    def state(self, inputs: tuple[Value, ...], old: Value, new: Value, name: str) -> State:
        """keep(old, "name", new)"""
        if old not in inputs or old.type != new.type:
            raise ValueError("keep wants a parameter, a name, and a value of the same type")
        return State(old, name, new)

    def nest(self, name: str, node: ast.FunctionDef) -> None:
        """A body: a graph of its own, in which symbols and the bodies before it are known."""
        if name in self.bodies:
            raise ValueError(f"{name} is defined twice")
        inner = _Parser(self.constants)
        inner.dims, inner.bodies = self.dims, self.bodies
        self.bodies[name] = inner.function(node)

    def parameters(self, node: ast.FunctionDef) -> list[Value]:
        args = node.args
        if args.posonlyargs or args.vararg or args.kwonlyargs or args.kwarg or node.decorator_list:
            raise ValueError(f"line {node.lineno}: parameters are name: type or name: type = name")
        plain = len(args.args) - len(args.defaults)
        names = [None] * plain + args.defaults
        return [_at(a, self.parameter, a, n) for a, n in zip(args.args, names, strict=True)]

    def parameter(self, node: ast.arg, alias: ast.expr | None) -> Value:
        if node.annotation is None:
            raise ValueError(f"{node.arg} has no type")
        name = node.arg if alias is None else self.attribute(alias)
        if not isinstance(name, str):
            raise ValueError(f"the name of input {node.arg} is not a string")
        value = self.builder(Input(name, self.type(node.annotation)))
        if value in self.values.values():
            raise ValueError(f"a second input is called {name}")
        self.name(node.arg, value)
        return value

    def output(self, key: ast.expr | None, value: ast.expr) -> tuple[str, Value]:
        match key:
            case ast.Constant(str(name)):
                return name, self.named(value)
        raise ValueError("the name of an output is not a string")

    def name(self, name: str, value: Value) -> None:
        if name in self.values:
            raise ValueError(f"{name} is defined twice")
        self.values[name] = value

    def named(self, node: ast.expr) -> Value:
        match node:
            case ast.Name(name) if name in self.values:
                return self.values[name]
        raise ValueError(f"{ast.unparse(node)} is no value defined above")

    # -- values -----------------------------------------------------------------------------------

    def value(self, annotation: ast.expr, call: ast.Call) -> Value:
        type = self.type(annotation)
        match call:
            case ast.Call(ast.Name("const"), [elements], []):
                return self.constant(type, elements)
            case ast.Call(ast.Name(name), args, keywords):
                op = self.make(name, keywords)
                value = self.builder(op, *map(self.named, args))
            case _:
                raise ValueError("expected an operation")
        if value.type != type:
            raise ValueError(f"the type is {value.type}, not {type}")
        return value

    def make(self, name: str, keywords: list[ast.keyword]) -> Any:
        """The operation or layout with fields as given."""
        if name not in _MAKERS:
            raise ValueError(f"no operation is called {name}")
        fields = self.keywords(keywords)
        if isinstance(index := fields.get("index"), Expr) and name == "repeat":
            fields["index"] = sole_symbol(index)
        made = _MAKERS[name](**fields)
        for field, hint in _hints(made.__class__).items():
            if not _fits(getattr(made, field), hint):
                raise ValueError(f"{name}: {field} cannot be {getattr(made, field)}")
        return made

    def keywords(self, keywords: list[ast.keyword]) -> dict[str, Any]:
        return {str(k.arg): self.attribute(k.value) for k in keywords}

    def type(self, node: ast.expr) -> TensorType:
        match node:
            case ast.Name(name) if name in DType.__members__:
                return TensorType(DType[name])
            case ast.Subscript(ast.Name(name), sizes) if name in DType.__members__:
                shape = self.attribute(sizes)
                shape = shape if isinstance(shape, tuple) else (shape,)
                if all(_fits(d, Dim) and (isinstance(d, Expr) or d >= 0) for d in shape):
                    return TensorType(DType[name], shape)
        raise ValueError(f"{ast.unparse(node)} is not a type")

    def attribute(self, node: ast.expr) -> Any:
        """The value of a field: a dim, number, string, element type, layout, or tuple of such."""
        match node:
            case ast.Constant(bool() | int() | float() | str() | None as item):
                return item
            case ast.Name(name) if name in self.dims:
                return self.dims[name]
            case ast.Name(name) if name in DType.__members__:
                return DType[name]
            case ast.Name(name) if name in self.bodies:
                return self.bodies[name]
            case ast.Tuple(items):
                return tuple(map(self.attribute, items))
            case ast.UnaryOp(ast.USub(), operand):
                return -self.attribute(operand)
            case ast.BinOp(left, op, right) if type(op) in _DIM_OPERATORS:
                return _DIM_OPERATORS[type(op)](self.dim(left), self.dim(right))
            case ast.Call(ast.Name(name), [a, b], []) if name in _DIM_FUNCTIONS:
                return _DIM_FUNCTIONS[name](self.dim(a), self.dim(b))
            case ast.Call(ast.Name(name), [], keywords):
                return self.make(name, keywords)
        raise ValueError(f"{ast.unparse(node)} means nothing here")

    def dim(self, node: ast.expr) -> Dim:
        dim = self.attribute(node)
        if not _fits(dim, Dim):
            raise ValueError(f"{ast.unparse(node)} is not a size")
        return dim  # type: ignore[no-any-return]

    # -- constants --------------------------------------------------------------------------------

    def constant(self, type: TensorType, node: ast.expr) -> Value:
        match node:
            case ast.Constant(str(digest)):
                if digest not in self.constants:
                    raise ValueError(f"there are no elements for constant {digest}")
                array = self.constants[digest]
                if array.dtype.kind == "V" or type.dtype.is_small_float:  # bits, as files hold it
                    array = array.view(type.dtype.numpy)
                if array.dtype != type.dtype.numpy or array.shape != type.shape:
                    raise ValueError(f"constant {digest} is {array.dtype}{list(array.shape)}")
                return self.builder(Const(digest, type, Array(array)))
        elements = np.array(_elements(node), object)
        if elements.size != type.size or (elements.size and elements.shape != type.shape):
            raise ValueError(f"the elements do not have the shape of {type}")
        flat = [_element(e, type.dtype) for e in elements.flat]
        exact: npt.NDArray[Any]
        if type.dtype.is_small_float:
            exact = np.array(flat, np.uint8).view(type.dtype.numpy)
        else:
            exact = np.array(flat, np.float64 if type.dtype.is_float else type.dtype.numpy)
        with np.errstate(over="ignore"):
            return constant(self.builder, exact.reshape(type.shape), type.dtype)


def _elements(node: ast.expr) -> Any:
    """Nested lists of numbers."""
    match node:
        case ast.List(items):
            return list(map(_elements, items))
        case ast.Constant(bool() | int() | float() as number):
            return number
        case ast.Name("nan" | "inf" as name):
            return getattr(math, name)
        case ast.UnaryOp(ast.USub(), operand):
            return -_elements(operand)
    raise ValueError(f"{ast.unparse(node)} is not an element")


def _element(item: Any, dtype: DType) -> bool | int | float:
    """The element, if the type has it."""
    if dtype.is_float:
        fits = type(item) in (int, float)
    elif dtype is DType.bool:
        fits = type(item) is bool
    else:
        low, high = dtype.range
        fits = type(item) is int and low <= item <= high and (item != 0 or dtype is not DType.sign)
    if not fits:
        raise ValueError(f"{item} is not a {dtype.name}")
    return item  # type: ignore[no-any-return]


# -- fields ---------------------------------------------------------------------------------------


@cache
def _hints(record: Any) -> dict[str, Any]:
    return get_type_hints(record)


def _fits(item: Any, hint: Any) -> bool:
    """Whether a field's value has the type that is written at the field."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(item, part) for part in parts)
    if origin is tuple:
        if not isinstance(item, tuple):
            return False
        hints = parts[:1] * len(item) if parts[-1] is Ellipsis else parts
        return len(hints) == len(item) and all(map(_fits, item, hints))
    return type(item) is hint or hint is Any
