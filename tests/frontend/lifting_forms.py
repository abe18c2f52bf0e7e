"""The forms in which exporters and quantisers write low-bit weights, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from forms import (
    Form,
    K,
    N,
    chosen,
    signs,
    trits,
)
from forms_layers import (
    binary_bitlinear,
    bitnet_offline,
    bitnet_online,
    bitnet_packed,
    conv_integer,
    convolution,
    half,
    inference_gemm,
    integer_matmul,
    onebit,
    recurrent,
    ste_mlp,
)
from forms_products import (
    batch_of_weights,
    billm,
    dequantised_along_k,
    dynamic_codes_and_gains,
    einsum,
    folded_norm,
    fused_qkv_product,
    fused_qkv_weight,
    gemm,
    product,
    reshaped_weight,
    shared_weight,
    weight_on_the_left,
)
from forms_quantisers import (
    dynamic_quantisation,
    int2,
    nbits,
    qcdq_dynamo,
    qcdq_torchscript,
    qdq_per_channel,
    qlinear_conv,
    qlinear_matmul,
    qonnx_binary,
    qonnx_ternary,
)
from onnxruntime_oracle import LARGEST_WEIGHT

THREE = (-3.0, -1.0, 1.0, 3.0)
FORMS: Mapping[str, Callable[[], Form]] = {
    "bitnet online": bitnet_online,
    "bitnet offline": bitnet_offline,
    "bitnet packed": bitnet_packed,
    "BitLinear, straight-through": ste_mlp,
    "BitLinear, inference": inference_gemm,
    "BitLinear, int32 MatMul": lambda: integer_matmul(trits(2, K, N), "trit per tensor"),
    "BitLinear, int32 MatMul, columns of 1 and 2": lambda: integer_matmul(
        trits(2, K, N) * np.resize([1, 2], (K, 1)), "3 planes of sign per tensor"
    ),
    "OneBit": onebit,
    "binary BitLinear": binary_bitlinear,
    "half-precision weight": half,
    "Conv": lambda: convolution(0.5 * trits(2, 16, 4, 3, 3), 1, 2, True, "trit per tensor"),
    "Conv of floats": lambda: convolution(
        0.5 * trits(2, 16, 4, 3, 3), 1, 2, False, "trit per tensor"
    ),
    "Conv, scales of channels": lambda: convolution(
        trits(2, 16, 4, 3, 3) * np.linspace(1, 2, 16, dtype=np.float32).reshape(-1, 1, 1, 1),
        1,
        2,
        True,
        "trit per row",
    ),
    "depthwise Conv": lambda: convolution(
        0.5 * trits(2, 16, 1, 3, 3), 16, 2, True, "trit per tensor, depthwise"
    ),
    "Conv1d": lambda: convolution(0.5 * trits(2, 16, 4, 3), 1, 1, True, "trit per tensor"),
    "depthwise Conv1d": lambda: convolution(
        0.5 * trits(2, 16, 1, 3), 16, 1, True, "trit per tensor, depthwise"
    ),
    "grouped Conv": lambda: convolution(
        0.5 * trits(2, 32, 16, 3, 3), 2, 2, True, "trit per tensor"
    ),
    "grouped Conv of floats": lambda: convolution(
        0.5 * signs(2, 16, 8, 3, 3), 2, 2, False, "sign per tensor"
    ),
    "grouped Conv1d": lambda: convolution(0.5 * trits(2, 32, 16, 3), 2, 1, True, "trit per tensor"),
    "Conv of 2 bits": lambda: convolution(
        chosen(2, THREE, 16, 4, 3, 3), 1, 2, True, "2 planes of sign per tensor"
    ),
    "ConvInteger": conv_integer,
    **{
        f"{op}, {way}": partial(recurrent, op, way)
        for op in ("RNN", "GRU", "LSTM")
        for way in ("forward", "bidirectional")
    },
    "Brevitas QCDQ, TorchScript": qcdq_torchscript,
    "Brevitas QCDQ, dynamo": qcdq_dynamo,
    "QONNX Quant": qonnx_ternary,
    "QONNX BipolarQuant": qonnx_binary,
    "MatMulInteger, i8": lambda: dynamic_quantisation(
        (-LARGEST_WEIGHT, 0, LARGEST_WEIGHT), 0, np.int8, "trit per tensor"
    ),
    "MatMulInteger, u8": lambda: dynamic_quantisation(
        (0, 128, 255), 128, np.uint8, "2 planes of sign per tensor"
    ),
    "MatMulInteger, 2 bits": lambda: dynamic_quantisation(
        (-2, -1, 0, 1), 0, np.int8, "2 planes of sign per tensor"
    ),
    "QLinearMatMul": qlinear_matmul,
    "QDQ, scales of channels": qdq_per_channel,
    "QLinearConv": qlinear_conv,
    "INT2": lambda: int2(False, False),
    "INT2, blocks": lambda: int2(True, False),
    "UINT2, blocks and zero point": lambda: int2(True, True),
    "MatMulNBits, ternary": lambda: nbits((0, 1, 2), 1, "trit groups of 32"),
    "MatMulNBits, default zero point": lambda: nbits((1, 2, 3), None, "trit groups of 32"),
    "MatMulNBits, all codes": lambda: nbits((0, 1, 2, 3), None, "2 planes of sign groups of 32"),
    "MatMulNBits, three codes": lambda: nbits((0, 2, 3), None, "2 planes of sign groups of 32"),
    "MatMulNBits, 4 bits of which few": lambda: nbits(
        (0, 8, 15), None, "2 planes of sign per tensor", bits=4, one_scale=True
    ),
    "MatMulNBits, level 4": lambda: nbits((0, 1, 2), 1, "trit groups of 32", accuracy=4),
    "MatMulNBits, level 4, one scale": lambda: nbits(
        (0, 1, 2), 1, "trit per tensor", accuracy=4, one_scale=True
    ),
    "MatMulNBits, level 4, all codes": lambda: nbits(
        (0, 1, 2, 3), None, "2 planes of sign groups of 32", accuracy=4
    ),
    "2 bits": lambda: product(chosen(2, THREE, N, K), "2 planes of sign per tensor"),
    "2 bits, codes": lambda: product(
        chosen(2, (-2, -1, 0, 1), N, K), "2 planes of sign per tensor", quantised=True
    ),
    "3 bits": lambda: product(
        chosen(2, range(8), N, K) - 3, "3 planes of sign per tensor", quantised=True
    ),
    "ternary with a zero point": lambda: product(
        chosen(2, (-2, -1, 0), N, K), "trit per tensor", quantised=True
    ),
    "binary of any levels": lambda: product(chosen(2, (0.2, 0.7), N, K), "sign per tensor"),
    "BiLLM": lambda: product(
        billm(), "2 planes of sign groups of 128", "2 planes of sign groups of 16"
    ),
    "BiLLM, codes": lambda: product(
        billm(), "2 planes of sign groups of 128", "2 planes of sign groups of 16", quantised=True
    ),
    "gain of a norm in the weight": lambda: folded_norm(False),
    "gain of a norm and scales of rows": lambda: folded_norm(True),
    "DequantizeLinear along k": lambda: dequantised_along_k(False),
    "DequantizeLinear along k, codes": lambda: dequantised_along_k(True),
    "DynamicQuantizeLinear and gains": dynamic_codes_and_gains,
    "Conv, scales of input channels": lambda: convolution(
        signs(2, 16, 4, 3, 3) * np.linspace(1, 2, 4, dtype=np.float32).reshape(-1, 1, 1),
        1,
        2,
        False,
        "sign per tensor",
    ),
    "grouped Conv, scales of input channels": lambda: convolution(
        trits(2, 32, 16, 3, 3) * np.linspace(1, 2, 16, dtype=np.float32).reshape(-1, 1, 1),
        2,
        2,
        False,
        "trit per tensor",
    ),
    "fused QKV, weight sliced": fused_qkv_weight,
    "fused QKV, product sliced": fused_qkv_product,
    "shared weight": shared_weight,
    **{f"Gemm, transA={a} transB={b}": partial(gemm, a, b) for a in (0, 1) for b in (0, 1)},
    "weight on the left": weight_on_the_left,
    "weight through Reshape and Cast": reshaped_weight,
    "batch of weights": batch_of_weights,
    "Einsum": einsum,
}
