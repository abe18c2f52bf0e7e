"""Indices as LLVM code: dims are computed for the values that their symbols have in a scope.

In a vector loop one symbol moves with the lanes. What a dim does from lane to lane is read off its
coefficients, so that lanes which lie side by side need one index and not one each.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tbc.codegen.elements import register_type
from tbc.codegen.llvm_text import Function, Val, const, elem_of, lanes_const, lanes_of, vec
from tbc.dims import Dim, Expr, Extremum, FloorDiv, Symbol, bounds, product, symbols_of
from tbc.indices import Index, split_index
from tbc.types import DType


class IndexEmitter:
    """Emits index arithmetic into a function.

    Attributes:
        lanes: elements computed at once while a lane symbol is set.
    """

    def __init__(self, f: Function, index_type: str):
        self.f, self.index_type = f, index_type
        self.lanes = 1
        self._lane_symbol = ""
        self._scalars: dict[str, Val] = {}
        self._vectors: dict[str, Val] = {}
        self._caches: list[dict[object, Val]] = [{}]

    # -- scopes ---------------------------------------------------------------------------------

    @contextmanager
    def scope(self, **symbols: Val) -> Iterator[None]:
        """A region of code whose values do not outlive it, with symbols bound to index values."""
        self._caches.append({})
        self._scalars.update(symbols)
        yield
        self._caches.pop()
        for name in symbols:
            del self._scalars[name]

    @contextmanager
    def split(self, position: Val, sizes: tuple[Dim, ...]) -> Iterator[Index]:
        """A scope with the index, in axes of these sizes, of a row-major position."""
        whole = Symbol(self.f.fresh("i"), 0, None, product(sizes))
        with self.scope(**{whole.name: position}):
            index: list[Dim] = []
            for size, digit in zip(sizes, split_index(Expr.of(whole), sizes), strict=True):
                if isinstance(digit, Expr) and digit != Expr.of(whole):
                    # as a symbol of its own the digit is known to be below its size
                    symbol = Symbol(self.f.fresh("i"), 0, None, size)
                    self._scalars[symbol.name] = self.index(digit)
                    digit = Expr.of(symbol)
                index.append(digit)
            yield tuple(index)

    @contextmanager
    def lanes_along(self, symbol: Symbol, base: Val, lanes: int) -> Iterator[None]:
        """A scope in which `symbol` is base, base + 1, … in the lanes."""
        assert self.lanes == 1, "vector loops do not nest"
        with self.scope(**{symbol.name: base}):
            self.lanes, self._lane_symbol = lanes, symbol.name
            yield
            self.lanes, self._lane_symbol = 1, ""

    def bind_symbol(self, name: str, index: Val) -> None:
        """Give a symbol its value for the rest of the function."""
        self._scalars[name] = index

    def keep(self, key: object, found: Val) -> None:
        """Bind a key in this scope."""
        self._caches[-1][key] = found

    def cached(self, key: object) -> Val | None:
        """What a key is bound to in this scope or one around it."""
        for cache in reversed(self._caches):
            if key in cache:
                return cache[key]
        return None

    # -- index arithmetic -----------------------------------------------------------------------

    def varies(self, dim: Dim) -> bool:
        """Whether a dim differs from lane to lane."""
        if isinstance(dim, int) or self.lanes == 1:
            return False
        return any(s.name == self._lane_symbol or s.name in self._vectors for s in symbols_of(dim))

    def lane_step(self, dim: Dim) -> int | None:
        """By how much a dim grows from lane to lane; None where that is not constant."""
        if not self.varies(dim):
            return 0
        assert isinstance(dim, Expr)
        moving = [(m, c) for m, c in dim.terms if m and self.varies(Expr(((m, 1),)))]
        if len(moving) == 1:
            (monomial, coef) = moving[0]
            if len(monomial) == 1 and str(monomial[0]) == self._lane_symbol:
                return coef
        return None

    def index(self, dim: Dim, lane: int = 0) -> Val:
        """A dim as an index, for one lane."""
        type = self.index_type
        if isinstance(dim, int):
            return const(type, dim)
        key = (dim, lane if self.varies(dim) else 0)
        if (found := self.cached(key)) is not None:
            return found
        total: Val | None = None
        for monomial, coef in sorted(dim.terms, key=lambda t: t[1] < 0):
            if not monomial:
                continue
            term: Val | None = None
            for atom in monomial:
                factor = self._atom(atom, lane)
                term = factor if term is None else self.f.op("mul nsw", term, factor)
            assert term is not None
            if abs(coef) != 1:
                term = self.f.op("mul nsw", term, const(type, abs(coef)))
            if total is None:
                total = term if coef > 0 else self.f.op("sub nsw", const(type, 0), term)
            else:
                total = self.f.op("add nsw" if coef > 0 else "sub nsw", total, term)
        assert total is not None
        offset = next((c for m, c in dim.terms if not m), 0)
        if offset:
            total = self.f.op("add nsw", total, const(type, offset))
        self.keep(key, total)
        return total

    def _atom(self, atom: Symbol | FloorDiv | Extremum, lane: int) -> Val:
        f, type = self.f, self.index_type
        match atom:
            case Symbol(name):
                if name in self._vectors:
                    return f.extract(self._vectors[name], lane)
                value = self._scalars[name]
                moved = name == self._lane_symbol and lane
                return f.op("add nsw", value, const(type, lane)) if moved else value
            case FloorDiv(num, den):
                a, b = self.index(num, lane), self.index(den, lane)
                if bounds(num)[0] >= 0:
                    return f.op("udiv", a, b)
                quotient = f.op("sdiv", a, b)
                below = f.icmp("slt", f.op("sub", a, f.op("mul", quotient, b)), const(type, 0))
                return f.select(below, f.op("sub", quotient, const(type, 1)), quotient)
            case Extremum(kind, x, y):
                a, b = self.index(x, lane), self.index(y, lane)
                return f.select(f.icmp("slt" if kind == "min" else "sgt", a, b), a, b)

    def dim_element(self, dim: Dim, dtype: DType = DType.i64) -> Val:
        """A dim as data of an integer type, one lane or all."""
        type = register_type(dtype)
        if not self.varies(dim):
            return self.resized(self.index(dim), type)
        step = self.lane_step(dim)
        if step is not None:
            base = self.f.splat(self.resized(self.index(dim), type), self.lanes)
            return self.f.op("add", base, lanes_const(type, [step * i for i in range(self.lanes)]))
        result = Val(vec(type, self.lanes), "poison")
        for lane in range(self.lanes):
            one = self.resized(self.index(dim, lane), type)
            result = self.f.insert(result, one, lane)
        return result

    def resized(self, index: Val, type: str) -> Val:
        """An index in an integer type of another width."""
        if index.type == type:
            return index
        wider = int(type[1:]) > int(index.type[1:])
        if not index.text.startswith("%"):
            return Val(type, index.text)
        return self.f.cast("sext" if wider else "trunc", index, type)

    def runtime_index(self, where: Val, size: Dim) -> Dim:
        """A symbol for an index that is data: counted from the end if negative, then clamped.

        The clamp keeps a wrong index inside the buffer; the graph's checks report it.
        """
        f, type = self.f, vec(self.index_type, lanes_of(where.type))
        wide = int(elem_of(where.type)[1:]) > int(self.index_type[1:])
        if where.type != type:
            where = f.cast("trunc" if wide else "sext", where, type)
        limit = f.splat(self.index(size), lanes_of(type))
        negative = f.icmp("slt", where, const(type, 0))
        where = f.select(negative, f.op("add", where, limit), where)
        where = f.select(f.icmp("slt", where, const(type, 0)), const(type, 0), where)
        last = f.op("sub", limit, const(type, 1))
        where = f.select(f.icmp("sgt", where, last), last, where)
        name = f.fresh("at")
        (self._vectors if lanes_of(type) > 1 else self._scalars)[name] = where
        return Expr.of(Symbol(name, 0, None, size))
