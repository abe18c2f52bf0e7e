"""What the outside sees of a compiled model, and the `tbc_model` constant that says it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tbc.codegen.llvm_text import Module
from tbc.self_test import SelfTest
from tbc.target import Target

ABI = 4
"""TBC_ABI of tbc.h."""


MODELS = "tbc_models"
"""The list of a library's models."""

TAKEN = frozenset(
    {
        *(
            "blob",
            "blob_bytes",
            "call",
            "check",
            "choose",
            "close",
            "cpu_bits",
            "dtype",
            "map",
            "mapping",
        ),
        *("model", "models", "open", "pool", "pool_run", "pool_start", "pool_stop", "pool_worker"),
        *("self_test", "status", "status_text", "sum", "sum_more", "symbol", "sync", "tensor"),
    }
)
"""What the headers and a library's table of models have put behind `tbc_` already."""


def symbol_of(name: str) -> str:
    """The C constant of the model `name`: `tbc_<name>`, and a `_` more where tbc.h has that."""
    return f"tbc_{name}_" if name in TAKEN else f"tbc_{name}"


@dataclass(frozen=True)
class TensorInfo:
    """An input or output.

    Attributes:
        name: ONNX's name.
        dtype_code: a value of `enum tbc_dtype`.
        rank: number of dimensions.
        shape_upper: the sizes, at the upper bounds of the symbols.
        dims_text: the dimensions as text, "batch,1,8,8"; "" for a scalar.
        bytes: the size at the upper bounds.
        place: of an output, the number of the input in whose memory it may lie, if there is one.
    """

    name: str
    dtype_code: int
    rank: int
    shape_upper: tuple[int, ...]
    dims_text: str
    bytes: int
    place: int | None = None

    @property
    def elements(self) -> int:
        """How many elements there are at the upper bounds."""
        return math.prod(self.shape_upper)


@dataclass(frozen=True)
class ModelInfo:
    """A compiled model as `tbc_model` describes it; sizes and alignment are in bytes.

    Attributes:
        name: a C identifier; the model's constant is `symbol`.
        symbols: (name, lowest, highest) of every dimension that the caller chooses.
        weights_sum: CRC-32 (zlib's) of the weights.
        weights_file: the file beside the model that holds the weights, or "" if it holds them.
        self_test: what `tbc_self_test` goes by, if there is a test.
        variant: what tells this one of several variants from the others, as the end of its symbol.
        variants: where this stands for several variants, their ends, the most able first; sizes are
            then the largest.
    """

    name: str
    version: str
    target: str
    cpu_bits: int
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    symbols: tuple[tuple[str, int, int], ...]
    align: int
    arena_size: int
    fast_size: int
    state_size: int
    weights_size: int
    weights_sum: int
    phases: int
    weights_file: str = ""
    self_test: SelfTest | None = None
    variant: str = ""
    variants: tuple[str, ...] = ()

    @property
    def test_words(self) -> tuple[int, ...]:
        """The self-test as it lies in memory; () where there is none."""
        return self.self_test.words if self.self_test else ()

    @property
    def symbol(self) -> str:
        """The model's constant in C, or the start of those of its variants."""
        symbol = symbol_of(self.name)
        return f"{symbol}_{self.variant}" if self.variant else symbol

    @property
    def table(self) -> str:
        """The list of its variants in C."""
        return f"{self.symbol}_variants"

    def __post_init__(self) -> None:
        assert re.fullmatch(r"[A-Za-z_]\w*", self.name, re.ASCII), self.name
        assert self.align > 0
        assert self.align & (self.align - 1) == 0, self.align


def exported(info: ModelInfo) -> tuple[str, ...]:
    """The symbols that a shared library of the model exports, the list of models last."""
    if info.variants:
        return (*(f"{info.symbol}_{end}" for end in info.variants), info.table, MODELS)
    return info.symbol, MODELS


FUNCTIONS = ("run", "run_phase", "output_shape", "run_part")
"""The functions of `tbc_model`, in its order."""


def entry_points(symbol: str, target: Target) -> Mapping[str, str]:
    """Which of `FUNCTIONS` a model of a target has, and their names; `symbol` is its constant."""
    present = FUNCTIONS if target.has_threads else FUNCTIONS[:-1]
    return {function: f"{symbol}_{function}" for function in present}


def model_constant(
    module: Module,
    info: ModelInfo,
    target: Target,
    functions: Mapping[str, str],
    weights_symbol: str | None,
) -> None:
    """Add `@tbc_<name>`, laid out as `tbc_model`, and, but to a variant, the list `@tbc_models`.

    `functions` (see `entry_points`) and `weights_symbol` name functions and a constant of the
    module or of one that it is linked with; `weights_symbol` is None if the weights are a file.
    `@tbc_models` is weak, so that several models fit in one program.
    """
    _Emitter(module, info.name, f"i{target.index_bits}").model(
        info, [functions.get(function) for function in FUNCTIONS], weights_symbol
    )
    if not info.variant:
        list_of_models(module, MODELS, [info.symbol], "weak ")
    if target.object_format == "coff":
        # LLVM refers to this where floats are used; a C runtime's own definition wins over it.
        module.globals["_fltused"] = "@_fltused = weak constant i32 0"


def list_of_models(module: Module, name: str, symbols: Sequence[str], linkage: str = "") -> None:
    """Add a NULL-terminated list of models."""
    items = ", ".join([*(f"ptr @{symbol}" for symbol in symbols), "ptr null"])
    text = f"@{name} = {linkage}constant [{len(symbols) + 1} x ptr] [{items}]"
    module.globals[name] = text


@dataclass
class _Emitter:
    """Writes the constants that the structures of tbc.h are made of."""

    module: Module
    prefix: str
    size: str
    count: int = field(default=0)

    def model(self, info: ModelInfo, functions: Sequence[str | None], weights: str | None) -> None:
        words = [
            f"i32 {ABI}",
            f"i32 {info.phases}",
            self.string(info.name),
            self.string(info.version),
            self.string(info.target),
            f"i64 {info.cpu_bits}",
            self.array("inputs", [self.tensor(tensor) for tensor in info.inputs]),
            self.array("outputs", [self.tensor(tensor) for tensor in info.outputs]),
            self.array("symbols", [self.symbol(*symbol) for symbol in info.symbols]),
            f"i32 {len(info.inputs)}",
            f"i32 {len(info.outputs)}",
            f"i32 {len(info.symbols)}",
            f"i32 {info.align}",
            f"{self.size} {info.arena_size}",
            f"{self.size} {info.fast_size}",
            f"{self.size} {info.state_size}",
            f"{self.size} {info.weights_size}",
            f"i32 {info.weights_sum}",
            *(f"ptr @{name}" if name else "ptr null" for name in (weights, *functions)),
            self.array("self_test", [f"i32 {word}" for word in info.test_words]),
        ]
        name = info.symbol
        self.module.globals[name] = f"@{name} = constant {_struct(words)}"

    def tensor(self, tensor: TensorInfo) -> str:
        assert len(tensor.shape_upper) == tensor.rank
        shape = [f"{self.size} {extent}" for extent in tensor.shape_upper]
        return _struct(
            [
                self.string(tensor.name),
                f"i32 {tensor.dtype_code}",
                f"i32 {tensor.rank}",
                self.array("shape", shape),
                self.string(tensor.dims_text),
                f"{self.size} {tensor.bytes}",
            ]
        )

    def symbol(self, name: str, low: int, high: int) -> str:
        return _struct([self.string(name), f"{self.size} {low}", f"{self.size} {high}"])

    def string(self, text: str) -> str:
        return str(self.module.constant(self.fresh("text"), text.encode() + b"\0"))

    def array(self, what: str, items: Sequence[str]) -> str:
        """The address of a constant array, or null if it has no items."""
        if not items:
            return "ptr null"
        name, type = self.fresh(what), _type(items[0])
        text = f"private constant [{len(items)} x {type}] [{', '.join(items)}]"
        self.module.globals[name] = f"@{name} = {text}"
        return f"ptr @{name}"

    def fresh(self, what: str) -> str:
        self.count += 1
        return f"tbc.{self.prefix}.{what}{self.count}"


def _struct(words: Sequence[str]) -> str:
    """A constant structure of typed constants, with its type."""
    return f"{{ {', '.join(_type(word) for word in words)} }} {{ {', '.join(words)} }}"


def _type(constant: str) -> str:
    """The type that a typed constant starts with."""
    return constant[: constant.index("}") + 1] if constant[0] == "{" else constant.split()[0]
