"""The network as ONNX: for one frame a call, or for all frames of a clip at once.

A layer of the first form takes the codes of its last frames as an input, `past<i>`, and gives those
of the next call as an output, `present<i>`: what `tbc compile --state past0=present0` keeps.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WIDTH, TAPS = 48, 3
DILATIONS = (1, 2, 4, 8, 8)
"""Frames between those that a layer looks at."""
STATES = {f"past{i}": f"present{i}" for i in range(len(DILATIONS))}
REACH = 1 + (TAPS - 1) * sum(DILATIONS)
"""Frames that a score depends on."""
INPUT_SCALE = 1 / 32


def keywords(constants: dict, frames: int = 0) -> onnx.ModelProto:
    """Features i8 [1, 20, 1] -> scores f32 [1, 12, 1], with states; or of so many frames at once.

    Args:
        constants: of layer i the trits `w<i>` i8 [n, c, taps], their scales `w<i>_scale` and biases
            `b<i>`; and `scale<i>`, that of the codes that go into it, but for layer 0.
        frames: 0 for the first form.
    """
    count, bands = len(DILATIONS), constants["w0"].shape[1]
    values = {**constants, "scale0": np.array(INPUT_SCALE, np.float32)}
    values |= {f"zero{i}": np.array(0, np.uint8 if i else np.int8) for i in range(count + 1)}
    numbers = {"start": 0, "one": 1, "end": 1 << 30, "time": 2}
    values |= {name: np.array([number]) for name, number in numbers.items()}
    inputs = [helper.make_tensor_value_info("features", TensorProto.INT8, [1, bands, frames or 1])]
    classes = constants[f"w{count}"].shape[0]
    scores = [1, classes, frames or 1]
    outputs = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, scores)]
    node, nodes, codes = helper.make_node, [], "features"
    for i, dilation in enumerate((*DILATIONS, 1)):
        lag = (values[f"w{i}"].shape[2] - 1) * dilation
        pads = [lag, 0] if frames else [0, 0]
        if lag and not frames:
            shape, type = [1, values[f"w{i}"].shape[1], lag], (TensorProto.UINT8, TensorProto.INT8)
            inputs.append(helper.make_tensor_value_info(f"past{i}", type[i == 0], shape))
            outputs.append(helper.make_tensor_value_info(f"present{i}", type[i == 0], shape))
            values[f"dilation{i}"] = np.array([dilation])
            taps = [f"past{i}", "start", "end", "time", f"dilation{i}"]
            nodes += [
                node("Slice", taps, [f"earlier{i}"]),
                node("Concat", [f"earlier{i}", codes], [f"taps{i}"], axis=2),
                node("Slice", [f"past{i}", "one", "end", "time"], [f"kept{i}"]),
                node("Concat", [f"kept{i}", codes], [f"present{i}"], axis=2),
            ]
            codes, dilation = f"taps{i}", 1
        name = "scores" if i == count else f"sums{i}"
        nodes += [
            node("DequantizeLinear", [codes, f"scale{i}", f"zero{i}"], [f"x{i}"]),
            node("DequantizeLinear", [f"w{i}", f"w{i}_scale"], [f"weight{i}"], axis=0),
            node("Conv", [f"x{i}", f"weight{i}", f"b{i}"], [name], dilations=[dilation], pads=pads),
        ]
        if i < count:
            following = f"scale{i + 1}", f"zero{i + 1}"
            nodes.append(node("Relu", [name], [f"positive{i}"]))
            nodes.append(node("QuantizeLinear", [f"positive{i}", *following], [f"codes{i}"]))
            codes = f"codes{i}"
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()]
    graph = helper.make_graph(nodes, "keywords", inputs, outputs, tensors)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def constants_of(proto: onnx.ModelProto) -> dict:
    """What `keywords` was given, from what it gave."""
    made = ("scale0", "zero", "start", "one", "end", "time", "dilation")
    arrays = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
    return {name: a for name, a in arrays.items() if not name.startswith(made)}
