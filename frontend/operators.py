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
    ops_sequence,
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
    **ops_sequence.OPERATORS,
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

LIMITS: Mapping[str, str] = {
    **ops_conv_transpose.LIMITS,
    **ops_einsum.LIMITS,
    **ops_elementwise.LIMITS,
    **ops_index.LIMITS,
    **ops_matmul.LIMITS,
    **ops_ngrams.LIMITS,
    **ops_nn.LIMITS,
    **ops_order.LIMITS,
    **ops_reduce.LIMITS,
    **ops_resize.LIMITS,
    **ops_sample.LIMITS,
    **ops_select.LIMITS,
    **ops_sequence.LIMITS,
    **ops_shape.LIMITS,
    **ops_signal.LIMITS,
    "If": "where data decides, both branches have the same types",
    "Loop": "what its rounds give is stacked only if no data decides how many there are",
    "Scan": "no length that is known to be 0; up to opset 8, no symbolic batch",
}
"""What is not supported of ONNX's operators, for people; theirs is in the others' signatures."""

_RANDOM = "its results are random"
_TEXT = "its values are text"
REFUSED: Mapping[tuple[str, str], str] = {
    ("", name): reason
    for reason, names in (
        (_RANDOM, "Bernoulli Multinomial RandomNormal RandomNormalLike RandomUniform"),
        (_RANDOM, "RandomUniformLike"),
        (_TEXT, "RegexFullMatch StringConcat StringNormalizer StringSplit"),
        ("it runs a graph for each tensor of a sequence", "SequenceMap"),
        ("how many boxes it keeps depends on the data", "NonMaxSuppression"),
        ("it decodes files of images", "ImageDecoder"),
    )
    for name in names.split()
}
"""ONNX's operators that have no lowering, and why."""

_OPTIMISED = (
    "onnxruntime has rewritten the model for the caches of one CPU; save it with "
    "ORT_ENABLE_EXTENDED, or compile the model that onnxruntime was given"
)
REFUSED_DOMAINS: Mapping[str, str] = {
    "ai.onnx.ml": "ai.onnx.ml has trees, tables and text, but no tensor algebra",
    "ai.onnx.preview.training": "training is not supported",
    "ai.onnx.training": "training is not supported",
    "com.microsoft.nchwc": _OPTIMISED,
    "com.ms.internal.nhwc": _OPTIMISED,
}
"""Domains that have no lowerings, and why."""
