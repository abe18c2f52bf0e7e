"""ONNX's own node tests: those on the list are computed right, by the reference and compiled.

All others are refused by name. `pytest tests/test_node_tests.py -k refused --update` runs every
case and rewrites the list.
"""

from __future__ import annotations

from typing import Any

import onnx
import pytest
from node_cases import LIST, LISTED, Array, as_given, assert_right, cases, every, is_covered

from tbc import backend, frontend, reference
from tbc.errors import Unsupported
from tbc.frontend import Imported
from tbc.ops import Input

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

SAMPLE = frozenset(every(16))
"""The listed cases that are compiled in the quick suite too."""


def case_of(name: str) -> Any:
    """A listed case, if this version of onnx has it."""
    if name not in cases() and not is_covered():
        pytest.skip(f"onnx {onnx.__version__} has no {name}")
    return cases()[name]


def import_for(model: onnx.ModelProto, feeds: dict[str, Array]) -> Imported:
    """The import; integer inputs, then all, become constants where shapes depend on them."""
    whole = {n: a for n, a in feeds.items() if a.dtype.kind in "iub"}
    for values in ({}, whole):
        try:
            return frontend.load(model, input_values=values)
        except Unsupported:
            continue
    return frontend.load(model, input_values=feeds)


def as_onnx(array: Array, expected: Any) -> Array:
    """The bytes of small floats and narrow integers in onnx's type; others as they are."""
    wanted = as_given(expected).dtype
    if wanted.name.startswith(("float8", "float4")):
        return array.view(wanted)
    return array.astype(wanted) if wanted.name in ("int2", "uint2", "int4", "uint4") else array


def check_by_reference(case: Any, model: onnx.ModelProto) -> None:
    """The model, which may be the case's with other sizes, means what the case expects."""
    for inputs, outputs in case.data_sets:
        names = [i.name for i in model.graph.input]
        feeds = {n: as_given(a) for n, a in zip(names, inputs, strict=True)}
        imported = import_for(model, feeds)
        typed = {
            v.op.name: backend.as_bytes(feeds[v.op.name], v.type.dtype.numpy)
            for v in imported.graph.inputs
            if isinstance(v.op, Input)
        }
        found = reference.run_graph(imported.graph, typed)
        results = [found[name] for name, _ in imported.graph.outputs]
        assert_right(case, [*map(as_onnx, results, outputs)], outputs)


def check_compiled(case: Any) -> None:
    """Compiled code gives the case's outputs."""
    for inputs, outputs in case.data_sets:
        assert_right(case, backend.run_model(case.model, list(map(as_given, inputs))), outputs)


@pytest.mark.parametrize("name", LISTED)
def test_import(name: str) -> None:
    case = case_of(name)
    check_by_reference(case, case.model)


@pytest.mark.parametrize("name", every(3))
def test_import_with_symbols_for_sizes(name: str) -> None:
    """A size of 1 stays a number, since it may be there to be stretched."""
    case = case_of(name)
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    for tensor in model.graph.input:
        for axis, dim in enumerate(tensor.type.tensor_type.shape.dim):
            if dim.dim_value > 1:
                dim.dim_param = f"{tensor.name}_{axis}"
    check_by_reference(case, model)


@pytest.mark.parametrize(
    "name", [n if n in SAMPLE else pytest.param(n, marks=pytest.mark.slow) for n in LISTED]
)
def test_compiled(name: str) -> None:
    check_compiled(case_of(name))


def passes(case: Any) -> bool:
    """Whether the case is not refused; if so, it is right."""
    try:
        check_compiled(case)
    except Unsupported:
        return False
    return True


def test_all_others_are_refused(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--update"):
        names = sorted(case.name for case in cases().values() if passes(case))
        LIST.write_text("".join(f"{name}\n" for name in names))
        return
    assert sorted(set(LISTED)) == LISTED
    passing = [name for name in cases().keys() - LISTED if passes(cases()[name])]
    assert not is_covered() or not sorted(passing)
