"""tbc as a backend of the onnx package: `tbc.backend.run_model(model, inputs)`.

The functions of `onnx.backend.base.Backend`, over `tbc.compile` for this machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper
from onnx.backend.base import Backend, BackendRep, namedtupledict

from tbc.api import Model
from tbc.codegen.host import host_target
from tbc.driver import identifier
from tbc.errors import InvalidModel, Unsupported
from tbc.frontend import load as import_model
from tbc.specialise import Specialiser

Array = npt.NDArray[Any]


class Prepared(BackendRep):
    """A model that runs on this machine."""

    def __init__(self, model: onnx.ModelProto):
        specialiser = Specialiser(model)
        self._elements = {o.name: o.type.tensor_type.elem_type for o in model.graph.output}
        self._compiled = Model(specialiser, host_target(), identifier(specialiser.name))

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """The outputs, by position or by name.

        Args:
            inputs: an array for each input that has no initializer, in order or by name.
            kwargs: not used.
        """
        if isinstance(inputs, np.ndarray):
            inputs = [inputs]
        if not isinstance(inputs, Mapping):
            names = [tensor.name for tensor in self._compiled.inputs]
            inputs = dict(zip(names, inputs, strict=True))
        dtypes = {tensor.name: tensor.dtype for tensor in self._compiled.inputs}
        found = self._compiled.run(
            {n: as_bytes(np.asarray(a), dtypes[n]) for n, a in inputs.items()}
        )
        outputs = {name: _as_onnx(array, self._elements[name]) for name, array in found.items()}
        result: tuple[Any, ...] = namedtupledict("Outputs", list(outputs))(*outputs.values())
        return result


def as_bytes(array: Array, stored: np.dtype[Any]) -> Array:
    """An array as a model takes it: the bits of small floats, the numbers of everything else."""
    if array.dtype != stored and array.dtype.name.startswith(("float8", "float4")):
        return array.view(stored)
    return array.astype(stored, copy=False)


def _as_onnx(array: Array, element: int) -> Array:
    """The elements in the type that the onnx package has for the output's, if that is declared."""
    if not element:
        return array
    dtype = helper.tensor_dtype_to_np_dtype(element)
    return array.view(dtype) if dtype.name.startswith(("float8", "float4")) else array.astype(dtype)


class TbcBackend(Backend):
    """tbc behind the interface that the onnx package knows."""

    @classmethod
    def is_compatible(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> bool:
        """Whether tbc can compile the model, whatever its inputs hold."""
        try:
            import_model(model)
        except (InvalidModel, Unsupported):
            return False
        return cls.supports_device(device)

    @classmethod
    def prepare(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> Prepared:
        """The model, compiled; `InvalidModel` or `Unsupported` if it cannot be."""
        if not cls.supports_device(device):
            raise Unsupported(f"there is no device {device}", hint="CPU")
        return Prepared(model)

    @classmethod
    def run_node(
        cls,
        node: onnx.NodeProto,
        inputs: Sequence[Array],
        device: str = "CPU",
        outputs_info: Sequence[tuple[np.dtype[Any], tuple[int, ...]]] | None = None,
        **kwargs: Any,
    ) -> tuple[Any, ...]:
        """The outputs of one node.

        Args:
            node: the node.
            inputs: an array for each of its inputs that has a name, in order.
            device: "CPU".
            outputs_info: not needed: types are inferred.
            kwargs: `opset_version`; by default the newest.
        """
        names = [name for name in node.input if name]
        typed = [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
            for n, a in zip(names, map(np.asarray, inputs), strict=True)
        ]
        outputs = [onnx.ValueInfoProto(name=name) for name in node.output if name]
        graph = helper.make_graph([node], node.op_type, typed, outputs)
        version = kwargs.get("opset_version", onnx.defs.onnx_opset_version())
        opsets = [helper.make_opsetid("", version)]
        if node.domain:
            opsets.append(helper.make_opsetid(node.domain, 1))
        return cls.prepare(helper.make_model(graph, opset_imports=opsets), device).run(inputs)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Whether it is the CPU."""
        return device in ("CPU", "CPU:0")


is_compatible = TbcBackend.is_compatible
prepare = TbcBackend.prepare
run_model = TbcBackend.run_model
run_node = TbcBackend.run_node
supports_device = TbcBackend.supports_device
