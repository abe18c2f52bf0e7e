"""Decoder blocks of BitNet b1.58 as ONNX: by plain operators, and by those of onnxruntime."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = npt.NDArray[Any]

MICROSOFT = "com.microsoft"
EPSILON = 1e-5
CODES = {"f32": TensorProto.FLOAT, "f16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
CODES |= {"int8": TensorProto.INT8}


@dataclass(frozen=True)
class Decoder:
    """The sizes of a decoder, and how it is written in ONNX.

    Attributes:
        new: positions that a run computes.
        past: positions that the caches hold before; None for an axis of any size.
        room: positions that the caches of "fused" blocks have room for, in one buffer for past and
            present; 0 where they grow.
        style: "plain" operators, or "fused" ones of onnxruntime.
        cache: the element type of the caches: "f32", "f16", "bf16" or "int8" (plain blocks only).
        head: the weights of the last product: "f32", "f16", "int8" (DynamicQuantizeLinear and
            MatMulInteger), "qdq" (int8 a row), "nbits8" or "nbits4" (MatMulNBits); "" for none.
        table: the element type of the embedding: "f32", "f16" or "int8" with a scale a row.
        gate: "relu2", or "silu" for x * sigmoid(x).
        longest: positions that there are angles for.
        largest: weight of an "int8" or "qdq" head.
    """

    hidden: int = 2560
    heads: int = 20
    shared: int = 5
    size: int = 128
    inner: int = 6912
    vocabulary: int = 32000
    new: int = 1
    past: int | None = 512
    room: int = 0
    style: str = "plain"
    cache: str = "f32"
    head: str = "int8"
    table: str = "f16"
    gate: str = "relu2"
    longest: int = 1024
    largest: int = 127

    @property
    def total(self) -> int:
        """Positions after a run."""
        assert self.past is not None
        return self.past + self.new

    def model(self, seed: int = 0) -> onnx.ModelProto:
        """tokens, position_ids (plain) or lengths (fused), past_k, past_v -> y, present_k, v."""
        return _Writer(self, np.random.default_rng(seed)).model()

    def feeds(self, past: int | None = None, seed: int = 1) -> dict[str, Array]:
        """Random inputs."""
        rng = np.random.default_rng(seed)
        past = self.past if past is None else past
        assert past is not None
        found: dict[str, Array] = {"tokens": rng.integers(0, self.vocabulary, (1, self.new))}
        if self.style == "plain":
            found["position_ids"] = np.arange(past, past + self.new)[None]
        else:
            found["lengths"] = np.array([[past + self.new - 1]], np.int32)
        shape = (1, self.shared, self.room or past, self.size)
        for name in ("past_k", "past_v"):
            x = rng.standard_normal(shape, np.float32)
            x[:, :, past:] = 0
            if self.cache == "int8":
                found[name] = np.clip(np.rint(x * 32), -127, 127).astype(np.int8)
            else:
                dtype = helper.tensor_dtype_to_np_dtype(CODES[self.cache])
                found[name] = x.astype(dtype)
        return found


@dataclass
class _Writer:
    d: Decoder
    rng: np.random.Generator
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[TensorProto] = field(default_factory=list)

    def op(self, op: str, *args: str | Array | float, outputs: int = 1, **attributes: Any) -> Any:
        names = [a if isinstance(a, str) else self.const(a) for a in args]
        results = [f"v{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op, names, results, **attributes))
        return results[0] if outputs == 1 else results

    def const(self, array: Array | float) -> str:
        if isinstance(array, float):
            array = np.array(array, np.float32)
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def ints(self, *numbers: int) -> str:
        return self.const(np.array(numbers, np.int64))

    # -- parts ------------------------------------------------------------------------------------

    def norm(self, x: str, width: int) -> str:
        gain = (1 + 0.1 * self.rng.standard_normal(width)).astype(np.float32)
        if self.d.style == "fused":
            return str(self.op("SimplifiedLayerNormalization", x, gain, epsilon=EPSILON))
        square = self.op("Pow", x, 2.0)
        mean = self.op("ReduceMean", square, self.ints(-1), keepdims=1)
        root = self.op("Sqrt", self.op("Add", mean, EPSILON))
        return str(self.op("Mul", self.op("Mul", x, self.op("Div", 1.0, root)), gain))

    def rounded(self, x: str) -> tuple[str, str]:
        """Codes of 8 bits by the largest of a row, and what to divide by."""
        top = self.op("ReduceMax", self.op("Abs", x), self.ints(-1), keepdims=1)
        scale = self.op("Div", 127.0, self.op("Clip", top, EPSILON))
        codes = self.op("Round", self.op("Mul", x, scale))
        return self.op("Clip", codes, -128.0, 127.0), scale

    def linear(self, x: tuple[str, str], rows: int, columns: int) -> str:
        w = self.rng.integers(-1, 2, (columns, rows), np.int8)
        wide = self.op("Cast", w, to=TensorProto.FLOAT)
        sums = self.op("MatMul", x[0], wide)
        scale = float(1 / np.sqrt(columns))
        return str(self.op("Mul", self.op("Div", sums, x[1]), scale))

    def by_heads(self, x: str, heads: int) -> str:
        shaped = self.op("Reshape", x, self.ints(1, -1, heads, self.d.size))
        return str(self.op("Transpose", shaped, perm=[0, 2, 1, 3]))

    def angles(self) -> tuple[Array, Array]:
        half = self.d.size // 2
        rates = 10000.0 ** (-np.arange(half) / half)
        turns = np.arange(self.d.longest)[:, None] * rates
        return np.cos(turns).astype(np.float32), np.sin(turns).astype(np.float32)

    def rotated(self, x: str, cos: str, sin: str) -> str:
        half = self.d.size // 2
        low = self.op("Slice", x, self.ints(0), self.ints(half), self.ints(-1))
        high = self.op("Slice", x, self.ints(half), self.ints(1 << 60), self.ints(-1))
        turned = self.op("Concat", self.op("Neg", high), low, axis=-1)
        return str(self.op("Add", self.op("Mul", x, cos), self.op("Mul", turned, sin)))

    def attention(self, q: str, k: str, v: str) -> str:
        if self.d.style == "fused":
            cos, sin = self.angles()
            total = np.array(self.d.room or self.d.total, np.int32)
            node = helper.make_node(
                "GroupQueryAttention",
                [q, k, v, "past_k", "past_v", "lengths", self.const(total), self.const(cos),
                 self.const(sin)],
                ["attended", "present_k", "present_v"],
                domain=MICROSOFT, num_heads=self.d.heads, kv_num_heads=self.d.shared, do_rotary=1,
            )  # fmt: skip
            self.nodes.append(node)
            return "attended"
        return self.plain_attention(q, k, v)

    def plain_attention(self, q: str, k: str, v: str) -> str:
        d = self.d
        tables = (np.concatenate([t, t], -1) for t in self.angles())
        cos, sin = (
            self.op("Unsqueeze", self.op("Gather", t, "position_ids"), self.ints(1)) for t in tables
        )
        q, k = (
            self.rotated(self.by_heads(x, h), cos, sin) for x, h in ((q, d.heads), (k, d.shared))
        )
        v = self.by_heads(v, d.shared)
        k, v = (self.cached(x, name) for x, name in ((k, "k"), (v, "v")))
        keys, values = (self.repeated(x) for x in (k, v))
        scores = self.op("MatMul", q, self.op("Transpose", keys, perm=[0, 1, 3, 2]))
        scores = self.op("Mul", scores, float(1 / np.sqrt(d.size)))
        length = self.op("Shape", k, start=2, end=3)
        key = self.op("Range", np.array(0), self.op("Squeeze", length), np.array(1))
        seen = self.op("LessOrEqual", key, self.op("Unsqueeze", "position_ids", self.ints(1, 3)))
        mask = self.op("Where", seen, 0.0, float(np.finfo(np.float32).min))
        weights = self.op("Softmax", self.op("Add", scores, mask), axis=-1)
        y = self.op("Transpose", self.op("MatMul", weights, values), perm=[0, 2, 1, 3])
        return str(self.op("Reshape", y, self.ints(1, -1, d.heads * d.size)))

    def cached(self, x: str, name: str) -> str:
        """The cache with x appended, as f32; the cache itself is an output."""
        cache = self.d.cache
        if cache == "int8":
            x = self.op("QuantizeLinear", x, 1 / 32, np.array(0, np.int8))
        elif cache != "f32":
            x = self.op("Cast", x, to=CODES[cache])
        self.nodes.append(
            helper.make_node("Concat", [f"past_{name}", x], [f"present_{name}"], axis=2)
        )
        if cache == "int8":
            return str(self.op("DequantizeLinear", f"present_{name}", 1 / 32, np.array(0, np.int8)))
        if cache != "f32":
            return str(self.op("Cast", f"present_{name}", to=TensorProto.FLOAT))
        return f"present_{name}"

    def repeated(self, x: str) -> str:
        """Each head of the cache for the heads of its group, as exporters write it."""
        d = self.d
        wide = self.op("Unsqueeze", x, self.ints(2))
        shape = self.op(
            "Concat", self.ints(1, d.shared, d.heads // d.shared),
            self.op("Shape", x, start=2, end=4), axis=0,
        )  # fmt: skip
        return str(
            self.op("Reshape", self.op("Expand", wide, shape), self.ints(1, d.heads, -1, d.size))
        )

    def gated(self, x: tuple[str, str]) -> str:
        d = self.d
        gate, up = (self.linear(x, d.inner, d.hidden) for _ in range(2))
        if d.gate == "relu2":
            top = self.op("Relu", gate)
            return str(self.op("Mul", self.op("Mul", top, top), up))
        return str(self.op("Mul", self.op("Mul", gate, self.op("Sigmoid", gate)), up))

    def embedded(self) -> str:
        d = self.d
        shape = (d.vocabulary, d.hidden)
        table = self.rng.standard_normal(shape, np.float32)
        if d.table == "f32":
            return str(self.op("Gather", table, "tokens"))
        if d.table == "f16":
            rows = self.op("Gather", table.astype(np.float16), "tokens")
            return str(self.op("Cast", rows, to=TensorProto.FLOAT))
        scales = (np.abs(table).max(1) / 127).astype(np.float32)
        codes = np.rint(table / scales[:, None]).astype(np.int8)
        rows = self.op("Cast", self.op("Gather", codes, "tokens"), to=TensorProto.FLOAT)
        factors = self.op("Unsqueeze", self.op("Gather", scales, "tokens"), self.ints(-1))
        return str(self.op("Mul", rows, factors))

    def headed(self, x: str) -> str:
        d = self.d
        w = (self.rng.standard_normal((d.vocabulary, d.hidden), np.float32)) / 50
        if d.head == "f32":
            return str(self.op("MatMul", x, np.ascontiguousarray(w.T)))
        if d.head == "f16":
            half = self.op("Cast", np.ascontiguousarray(w.T.astype(np.float16)), to=1)
            return str(self.op("MatMul", x, half))
        if d.head.startswith("nbits"):
            return self.nbits_head(x, w, int(d.head[5:]))
        scales = (np.abs(w).max(1) / d.largest).astype(np.float32)
        codes = np.ascontiguousarray(np.rint(w / scales[:, None]).astype(np.int8).T)
        if d.head == "qdq":
            wide = self.op(
                "DequantizeLinear", codes, scales, np.zeros(len(scales), np.int8), axis=1
            )
            return str(self.op("MatMul", x, wide))
        q, scale, zero = self.op("DynamicQuantizeLinear", x, outputs=3)
        sums = self.op("Cast", self.op("MatMulInteger", q, codes, zero), to=TensorProto.FLOAT)
        return str(self.op("Mul", self.op("Mul", sums, scale), scales))

    def nbits_head(self, x: str, w: Array, bits: int) -> str:
        d, block, middle = self.d, 16, 1 << (bits - 1)
        parts = w.reshape(d.vocabulary, -1, block)
        scales = np.abs(parts).max(2) / (middle - 1)
        codes = (np.rint(parts / scales[..., None]) + middle).astype(np.uint8)
        if bits == 4:
            codes = codes[..., ::2] | codes[..., 1::2] << 4
        return str(
            self.op(
                "MatMulNBits", x, codes, scales.astype(np.float32), domain=MICROSOFT, bits=bits,
                K=d.hidden, N=d.vocabulary, block_size=block,
            )
        )  # fmt: skip

    # -- the whole --------------------------------------------------------------------------------

    def model(self) -> onnx.ModelProto:
        d = self.d
        x = self.embedded()
        normal = self.rounded(self.norm(x, d.hidden))
        widths = (d.heads * d.size, d.shared * d.size, d.shared * d.size)
        q, k, v = (self.linear(normal, width, d.hidden) for width in widths)
        y = self.norm(self.attention(q, k, v), d.heads * d.size)
        x = self.op("Add", x, self.linear(self.rounded(y), d.hidden, d.heads * d.size))
        inner = self.norm(self.gated(self.rounded(self.norm(x, d.hidden))), d.inner)
        x = self.op("Add", x, self.linear(self.rounded(inner), d.hidden, d.inner))
        y = self.norm(x, d.hidden)
        y = self.headed(y) if d.head else y
        self.nodes.append(helper.make_node("Identity", [y], ["y"]))
        inputs = [helper.make_tensor_value_info("tokens", TensorProto.INT64, [1, d.new])]
        if d.style == "plain":
            kind = ("position_ids", TensorProto.INT64, [1, d.new])
        else:
            kind = ("lengths", TensorProto.INT32, [1, 1])
        inputs.append(helper.make_tensor_value_info(*kind))
        past = "past" if d.past is None else d.past
        shape = [1, d.shared, d.room or past, d.size]
        for name in ("past_k", "past_v"):
            inputs.append(helper.make_tensor_value_info(name, CODES[d.cache], shape))
        outputs = [onnx.ValueInfoProto(name=name) for name in ("y", "present_k", "present_v")]
        graph = helper.make_graph(self.nodes, "decoder", inputs, outputs, self.constants)
        opsets = [helper.make_opsetid("", 21), helper.make_opsetid(MICROSOFT, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)
