"""Small ONNX models, and their results by onnxruntime and by tbc's importer and reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper
from onnxruntime_oracle import session

from tbc import frontend, reference
from tbc.frontend import Imported
from tbc.ops import Input

Array = npt.NDArray[Any]
Shape = Sequence[int | str | None]

MICROSOFT = "com.microsoft"
QONNX = "qonnx.custom_op.general"


def value_info(name: str, dtype: Any, shape: Shape | None) -> onnx.ValueInfoProto:
    code = dtype if isinstance(dtype, int) else helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return helper.make_tensor_value_info(name, code, shape)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, tuple[Any, Shape | None]],
    outputs: Sequence[str] = ("y",),
    constants: Mapping[str, Array | onnx.TensorProto] | None = None,
    opset: int = 17,
    functions: Sequence[onnx.FunctionProto] = (),
) -> onnx.ModelProto:
    """A model; the types of its outputs are not declared."""
    tensors = [
        t if isinstance(t, onnx.TensorProto) else numpy_helper.from_array(t, name)
        for name, t in (constants or {}).items()
    ]
    graph = helper.make_graph(
        list(nodes),
        "model",
        [value_info(n, d, s) for n, (d, s) in inputs.items()],
        [onnx.ValueInfoProto(name=n) for n in outputs],
        tensors,
    )
    domains = {n.domain for n in nodes if n.domain} | {f.domain for f in functions}
    versions = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    return helper.make_model(
        graph, opset_imports=versions, ir_version=10, functions=list(functions)
    )


def one_node(
    op: str,
    args: Sequence[Array | None],
    *,
    constant: Sequence[int] = (),
    outputs: int = 1,
    opset: int = 17,
    domain: str = "",
    **attributes: Any,
) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """A model of one node and its feeds; the arguments numbered in `constant` are initializers."""
    names = ["" if a is None else f"x{i}" for i, a in enumerate(args)]
    results = [f"y{i}" for i in range(outputs)]
    node = helper.make_node(op, names, results, domain=domain, name="it", **attributes)
    given = {n: a for n, a in zip(names, args, strict=True) if a is not None}
    fixed = {f"x{i}" for i in constant}
    feeds = {n: a for n, a in given.items() if n not in fixed}
    inputs = {n: (a.dtype, a.shape) for n, a in feeds.items()}
    constants = {n: a for n, a in given.items() if n in fixed}
    return model([node], inputs, results, constants, opset), feeds


def by_tbc(imported: Imported, feeds: Mapping[str, Array]) -> list[Array]:
    """The outputs, in their order, by the reference."""
    needed = {i.op.name for i in imported.graph.inputs if isinstance(i.op, Input)}
    results = reference.run_graph(imported.graph, {n: feeds[n] for n in needed})
    return [results[name] for name, _ in imported.graph.outputs]


def by_onnxruntime(proto: onnx.ModelProto, feeds: Mapping[str, Array]) -> list[Array]:
    """The outputs by onnxruntime, with no optimisation."""
    typed = onnx.ModelProto()
    typed.CopyFrom(proto)
    results: list[Array] = session(typed).run(None, dict(feeds))
    return results


def tolerance(dtype: np.dtype[Any]) -> float:
    """The relative difference that another order of operations makes."""
    if dtype == ml_dtypes.bfloat16:
        return 2e-2
    return 4e-3 if dtype == np.float16 else 2e-5


def assert_close(got: Array, expected: Array, scale: float = 1.0) -> None:
    """Equal in type and shape; floats up to rounding, everything else exactly."""
    assert got.shape == expected.shape
    assert got.dtype == expected.dtype
    if expected.dtype.kind in "iub":
        np.testing.assert_array_equal(got, expected)
        return
    limit = scale * tolerance(expected.dtype)
    size = np.nanmax(np.abs(expected.astype(np.float64)), initial=0.0, where=np.isfinite(expected))
    np.testing.assert_allclose(
        got.astype(np.float64), expected.astype(np.float64), rtol=limit, atol=limit * float(size)
    )


def check_against_onnxruntime(
    proto: onnx.ModelProto, feeds: Mapping[str, Array], scale: float = 1.0
) -> Imported:
    """Import, evaluate, and compare every output to onnxruntime's."""
    imported = frontend.load(proto)
    expected = by_onnxruntime(proto, feeds)
    for got, wanted in zip(by_tbc(imported, feeds), expected, strict=True):
        assert_close(got, wanted, scale)
    return imported


def normal(seed: int, *shape: int, dtype: Any = np.float32) -> Array:
    """Normally distributed numbers, the same for the same seed."""
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def integers(seed: int, low: int, high: int, *shape: int, dtype: Any = np.int64) -> Array:
    """Integers from low to high inclusive, the same for the same seed."""
    return np.random.default_rng(seed).integers(low, high, shape, endpoint=True).astype(dtype)


def i64(*numbers: int) -> Array:
    return np.array(numbers, np.int64)


def nodes(*lines: str, **attributes: Any) -> list[onnx.NodeProto]:
    """Nodes of lines such as "y = Add(a, b)"; attributes by the name of the first output."""
    made = []
    for line in lines:
        outputs, call = line.split(" = ")
        op, args = call.rstrip(")").split("(")
        first = outputs.split(", ")[0]
        made.append(
            helper.make_node(
                op, [a for a in args.split(", ") if a], outputs.split(", "), name=first,
                **attributes.get(first, {}),
            )
        )  # fmt: skip
    return made


def check_on(proto: onnx.ModelProto, *feeds: dict[str, Array], **load: Any) -> Imported:
    """The import agrees with onnxruntime on all feeds."""
    imported = frontend.load(proto, **load)
    for given in feeds:
        expected = by_onnxruntime(proto, given)
        for got, wanted in zip(by_tbc(imported, given), expected, strict=True):
            assert_close(got, wanted)
    return imported


def shape_of(imported: Imported, output: int = 0) -> list[str]:
    return [str(d) for d in imported.graph.outputs[output][1].type.shape]
