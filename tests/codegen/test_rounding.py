"""Rounding to codes by integer arithmetic: the reference's bits, whatever the float."""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt
import pytest

from tbc.codegen.host import resolve_target
from tbc.codegen.machine import Workers
from tbc.codegen.rounding import codes_of
from tbc.constants import constant
from tbc.driver import assemble, lower
from tbc.emulate import Emulated, can_run
from tbc.ir import Builder, Graph, Value
from tbc.ops import Binary, Cast, Input, Unary
from tbc.reference import run_graph
from tbc.types import DType, TensorType

Floats = npt.NDArray[np.float32]

TARGETS = ("cortex-m4f", "cortex-m55", "armv7", "cortex-m4", "cortex-m0plus", "rv32imc", "armv8")
COUNT = 4096
FORMS: dict[str, tuple[DType, tuple[tuple[str, float], ...]]] = {
    "uint8 kept less 128": (DType.i8, (("max", 0), ("min", 255), ("sub", 128))),
    "int8": (DType.i8, (("max", -128), ("min", 127))),
    "narrow int8": (DType.i8, (("min", 127), ("max", -127))),
    "zero point in front": (DType.u8, (("add", 3), ("max", 0), ("min", 255))),
    "saturating alone": (DType.i8, ()),
    "saturating above a zero point": (DType.u8, (("add", 128),)),
    "int4": (DType.i4, (("max", -7), ("min", 7))),
    "int16": (DType.i16, (("sub", 1000), ("max", -32767))),
    "empty range": (DType.i8, (("max", 300), ("min", 9))),
}
"""By name, a type and what is done to a rounded value in front of the cast."""
NOT = {
    "bounds that are no integers": (DType.i8, (("max", 0.5),)),
    "large bounds": (DType.i8, (("add", 2.0**21),)),
    "wide integers": (DType.i32, (("max", 0), ("min", 255))),
}


def quantised(x: Value, dtype: DType, steps: tuple[tuple[str, float], ...]) -> Value:
    build, value = x.builder, x.builder(Unary("round"), x)
    for fn, number in steps:
        value = build(Binary(fn), value, constant(build, number, DType.f32))
    return build(Cast(dtype), value)


def graph() -> Graph:
    """Every form, of an input and of what has come of integers; only whole bytes are outputs.

    No value is shared, for what is lies in memory. Some forms share their code, and with it what is
    done to their bounds.
    """
    build = Builder()
    inputs, outputs = [], {}
    for number, (name, form) in enumerate(FORMS.items()):
        x = build(Input(f"x{number}", TensorType(DType.f32, (COUNT,))))
        sums = build(Input(f"sums{number}", TensorType(DType.i32, (COUNT,))))
        scaled = build(
            Binary("mul"), build(Cast(DType.f32), sums), constant(build, 0.37, DType.f32)
        )
        for kind, source in ((name, x), (f"{name}, finite", scaled)):
            code = quantised(source, *form)
            outputs[kind] = build(Cast(DType.i8), code) if form[0].bits < 8 else code
        inputs += [x, sums]
    return Graph("codes", tuple(inputs), tuple(outputs.items()))


def floats() -> Floats:
    """Ties, bounds, what integers do not hold, and any bits."""
    halves = np.arange(-600, 600) / 2
    edges = [s * v for s in (1, -1) for v in (2**22 + 0.5, 2**23 + 1, 2**31, 2**63, 1e-45, np.inf)]
    near = np.nextafter(np.float32([0.5, 1.5, 127.5, 255.5, -128.5]), np.float32(0))
    special = np.array([*halves, *edges, *near, -0.0, np.nan, -np.nan], np.float32)
    bits = np.random.default_rng(0).integers(0, 1 << 32, COUNT - len(special), dtype=np.uint32)
    return np.concatenate([special, bits.view(np.float32)])


@pytest.mark.parametrize("name", TARGETS)
def test_the_bits_are_those_of_the_reference(name: str, workers: Workers) -> None:
    target, model = resolve_target(name), graph()
    if missing := can_run(target):
        pytest.skip(missing)
    sums = np.random.default_rng(1).integers(-(2**31), 2**31, COUNT).astype(np.int32)
    sums[: COUNT // 2] >>= 20
    x = floats()
    feeds = {f"x{i}": x for i in range(len(FORMS))} | {f"sums{i}": sums for i in range(len(FORMS))}
    compiled = assemble(lower(model, target), target, "codes", workers, frozenset({"obj", "asm"}))
    with np.errstate(all="ignore"):
        expected = run_graph(model, feeds)
    with Emulated(compiled) as emulated:
        found = emulated.run(feeds)
    for output, array in expected.items():
        np.testing.assert_array_equal(found[output], array, output)
    instructions = set(re.findall(rb"vcvtr|usat|ssat", compiled.files["asm"]))
    assert (b"vcvtr" in instructions) == (target.rounds_to_int == "vcvtr")
    assert b"ssat" in instructions or b"vcvtr" not in instructions


@pytest.mark.parametrize("name", [*FORMS, *NOT])
def test_what_is_a_code(name: str) -> None:
    build = Builder()
    x = build(Input("x", TensorType(DType.f32, (4,))))
    found = codes_of(quantised(x, *(FORMS | NOT)[name]))
    assert (found is not None) == (name in FORMS)
    assert found is None or found.x is x


def test_other_floats_and_vectors_of_bounds_are_no_codes() -> None:
    build = Builder()
    wide = build(Input("wide", TensorType(DType.f64, (4,))))
    assert codes_of(build(Cast(DType.i8), build(Unary("round"), wide))) is None
    x = build(Input("x", TensorType(DType.f32, (4,))))
    rounded = build(Unary("round"), x)
    assert codes_of(build(Cast(DType.i8), build(Binary("max"), rounded, x))) is None
    assert codes_of(build(Cast(DType.i8), x)) is None
    row = build(Unary("round"), build(Input("row", TensorType(DType.f32, (1,)))))
    bounds = constant(build, [1.0, 2.0], DType.f32)
    assert codes_of(build(Cast(DType.i8), build(Binary("max"), row, bounds))) is None
