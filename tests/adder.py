"""A hand-written model for tests: sum[n, 3] = x + y + weights, for n from 0 to 4."""

import struct
import zlib

from tbc.codegen.llvm_text import Module
from tbc.codegen.machine import compile_module
from tbc.codegen.modelinfo import ModelInfo, TensorInfo, exported, model_constant
from tbc.target import Target

WEIGHTS = (0.5, -1.0, 4.0)

_CODE = """
define internal i32 @run(ptr %call) nounwind {
entry:
  %inputs = load ptr, ptr %call
  %x = load ptr, ptr %inputs
  %inputs1 = getelementptr ptr, ptr %inputs, i32 1
  %y = load ptr, ptr %inputs1
  %call1 = getelementptr ptr, ptr %call, i32 1
  %outputs = load ptr, ptr %call1
  %out = load ptr, ptr %outputs
  %call2 = getelementptr ptr, ptr %call, i32 2
  %arena = load ptr, ptr %call2
  %call4 = getelementptr ptr, ptr %call, i32 4
  %given = load ptr, ptr %call4
  %none = icmp eq ptr %given, null
  %w = select i1 %none, ptr @WEIGHTS, ptr %given
  %call5 = getelementptr ptr, ptr %call, i32 5
  %dims = load ptr, ptr %call5
  %n = load SIZE, ptr %dims
  %large = icmp ugt SIZE %n, 4
  br i1 %large, label %bad_dim, label %aligned
aligned:
  %address = ptrtoint ptr %arena to SIZE
  %low = and SIZE %address, 63
  %skew = icmp ne SIZE %low, 0
  br i1 %skew, label %bad_align, label %start
start:
  store SIZE %n, ptr %arena
  %total = mul SIZE %n, 3
  br label %head
head:
  %i = phi SIZE [ 0, %start ], [ %next, %body ]
  %more = icmp ult SIZE %i, %total
  br i1 %more, label %body, label %done
body:
  %column = urem SIZE %i, 3
  %xp = getelementptr float, ptr %x, SIZE %i
  %yp = getelementptr float, ptr %y, SIZE %i
  %wp = getelementptr float, ptr %w, SIZE %column
  %op = getelementptr float, ptr %out, SIZE %i
  %xv = load float, ptr %xp
  %yv = load float, ptr %yp
  %wv = load float, ptr %wp
  %s = fadd float %xv, %yv
  %t = fadd float %s, %wv
  store float %t, ptr %op
  %next = add SIZE %i, 1
  %nan = fcmp uno float %xv, 0.0
  br i1 %nan, label %bad_value, label %head
done:
  ret i32 0
bad_dim:
  ret i32 5
bad_align:
  ret i32 4
bad_value:
  ret i32 7
}
define internal i32 @run_phase(ptr %call, i32 %phase, i32 %part, i32 %parts) nounwind {
  %r = call i32 @run(ptr %call)
  ret i32 %r
}
define internal i32 @output_shape(ptr %call, i32 %index, ptr %shape) nounwind {
  %call5 = getelementptr ptr, ptr %call, i32 5
  %dims = load ptr, ptr %call5
  %n = load SIZE, ptr %dims
  store SIZE %n, ptr %shape
  %shape1 = getelementptr SIZE, ptr %shape, i32 1
  store SIZE 3, ptr %shape1
  ret i32 0
}
"""


def weights(target: Target) -> bytes:
    """The bytes of the weights in the target's order."""
    return struct.pack(("<" if target.little_endian else ">") + "3f", *WEIGHTS)


def info(target: Target, name: str = "adder", weights_file: str = "", **more) -> ModelInfo:
    """What `tbc_<name>` says."""

    def tensor(name):
        return TensorInfo(name, 1, 2, (4, 3), "n,3", 48)

    return ModelInfo(
        **{
            "name": name,
            "version": "0.1.0",
            "target": target.name,
            "cpu_bits": target.cpu_bits,
            "inputs": (tensor("x"), tensor("y.1")),
            "outputs": (tensor("sum"),),
            "symbols": (("n", 0, 4),),
            "align": 64,
            "arena_size": 64,
            "fast_size": 0,
            "state_size": 0,
            "weights_size": 12,
            "weights_sum": zlib.crc32(weights(target)),
            "phases": 1,
            "weights_file": weights_file,
            **more,
        }
    )


def text(target: Target, model: ModelInfo) -> str:
    """The whole model as LLVM text."""
    module = Module(target.triple)
    symbol = None if model.weights_file else "adder_weights"
    if symbol:
        module.constant(symbol, weights(target), align=64)
    code = _CODE.replace("@WEIGHTS", f"@{symbol}" if symbol else "null")
    module.functions["run"] = code.replace("SIZE", f"i{target.index_bits}")
    model_constant(
        module,
        model,
        target,
        {"run": "run", "run_phase": "run_phase", "output_shape": "output_shape"},
        symbol,
    )
    return module.text()


def compiled(target: Target, model: ModelInfo) -> bytes:
    """The model as an object file."""
    keep = exported(model)
    return compile_module(text(target, model), target, passes=True, kinds={"obj"}, keep=keep)["obj"]
