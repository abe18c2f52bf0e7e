"""Every operator that has a lowering, by domain and name."""

from __future__ import annotations

from collections.abc import Mapping

from tbc.frontend import (
    ops_conv,
    ops_conv_transpose,
    ops_einsum,
    ops_elementwise,
    ops_index,
    ops_matmul,
    ops_ngrams,
    ops_nn,
    ops_order,
    ops_quant,
    ops_recurrent,
    ops_reduce,
    ops_resize,
    ops_sample,
    ops_scatter,
    ops_select,
    ops_shape,
    ops_signal,
)
from tbc.frontend.context import Lowering
from tbc.frontend.nodes import Signature
from tbc.frontend.ops_microsoft import MICROSOFT, SIMPLIFIED

QONNX_DOMAINS = ("qonnx.custom_op.general", "onnx.brevitas", "finn.custom_op.general")
"""QONNX's domain, and those in which its operators were written before it had one."""

ONNX: Mapping[str, Lowering] = {
    **ops_elementwise.OPERATORS,
    **ops_shape.OPERATORS,
    **ops_index.OPERATORS,
    **ops_order.OPERATORS,
    **ops_scatter.OPERATORS,
    **ops_reduce.OPERATORS,
    **ops_nn.OPERATORS,
    **ops_matmul.OPERATORS,
    **ops_conv.OPERATORS,
    **ops_conv_transpose.OPERATORS,
    **ops_einsum.OPERATORS,
    **ops_quant.OPERATORS,
    **ops_resize.OPERATORS,
    **ops_sample.OPERATORS,
    **ops_select.OPERATORS,
    **ops_signal.OPERATORS,
    **ops_ngrams.OPERATORS,
    **ops_recurrent.OPERATORS,
}
"""ONNX's own operators; their signatures are the schemas of the onnx package."""

OTHERS: Mapping[tuple[str, str], tuple[Lowering, Signature]] = {
    ("", "SimplifiedLayerNormalization"): SIMPLIFIED,
    **{("com.microsoft", name): entry for name, entry in MICROSOFT.items()},
    **{(d, name): entry for d in QONNX_DOMAINS for name, entry in ops_quant.QONNX.items()},
}
"""Operators that onnx has no schema of, with their signatures."""
