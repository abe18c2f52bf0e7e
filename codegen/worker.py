"""Compiles LLVM text in a process of its own, because LLVM aborts on code that it cannot select.

Run by path (`python -P worker.py`), so that it imports llvmlite and nothing else of tbc. Requests
and replies are pickles on standard input and output:

    request  {"machine": {...}, "parts": [(text, passes, attributes), ...], "keep": [...],
              "kinds": [...]}
    reply    (True, {kind: bytes}) or (False, what LLVM said)

LLVM tells how large the frame of a function is only as a warning that it is larger than allowed, so
nothing is allowed, and the warnings are read. They go to standard error, which must be a file.
"""

from __future__ import annotations

import os
import pickle
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import llvmlite.binding as llvm


def initialize() -> None:
    """Make LLVM's targets known; to be called once a process."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()


def target_machine(machine: Mapping[str, str]) -> Any:
    """LLVM's TargetMachine for {triple, cpu, features, abi, reloc, code_model, attributes}.

    The last are of all functions, and for `compile_parts`.
    """
    return llvm.Target.from_triple(machine["triple"]).create_target_machine(
        cpu=machine["cpu"],
        features=machine["features"],
        opt=3,
        reloc=machine["reloc"],
        codemodel=machine["code_model"],
        abiname=machine["abi"],
    )


def compile_parts(
    machine: Mapping[str, str],
    parts: Sequence[tuple[str, bool, str]],
    keep: Iterable[str],
    kinds: Iterable[str],
) -> dict[str, bytes]:
    """The parts optimised one by one where they ask for it, linked, and emitted.

    Args:
        machine: see `target_machine`.
        parts: LLVM text, whether the pass pipeline runs on it, and attributes of its functions.
        keep: the symbols that stay visible, besides weak ones; all others become internal. They
            may be declared only.
        kinds: of "obj", "asm", "llvm", "datalayout" and, beside "obj", "stack": the bytes of stack
            that the deepest chain of calls takes, as a decimal number.
    """
    tm = target_machine(machine)
    layout = str(tm.target_data)
    done = {"datalayout": layout.encode()}
    if parts:
        added = machine["attributes"]
        modules = [
            _optimised(text, passes, layout, tm, f"{own} {added}") for text, passes, own in parts
        ]
        module = modules[0]
        for other in modules[1:]:
            module.link_in(other)
        _internalize(module, frozenset(keep), tm)
        # Code generation rewrites the module, so the text comes first, and asm from a copy.
        if "llvm" in kinds:
            done["llvm"] = str(module).encode()
        if "asm" in kinds:
            done["asm"] = tm.emit_assembly(module.clone()).encode()
        if "obj" in kinds:
            chains = _calls(module)
            done["obj"], frames = _object(module, tm)
            done["stack"] = str(_deepest(chains, frames)).encode()
    return {kind: done[kind] for kind in kinds}


def _optimised(text: str, passes: bool, layout: str, tm: Any, attributes: str) -> Any:
    """The module of one part, after the pass pipeline if it is wanted."""
    # Without this attribute LLVM turns loops into calls of memcpy and memset.
    head = rf'\1"no-builtins" "warn-stack-size"="0" {attributes} {{'
    text = re.sub(r"^(define .*?)\{[ \t]*$", head, text, flags=re.MULTILINE)
    module = llvm.parse_assembly(text)
    module.data_layout = layout
    module.verify()
    if passes:
        options = llvm.create_pipeline_tuning_options(speed_level=2)
        # The emitters have chosen vectors and unrolling already.
        options.loop_interleaving = False
        options.loop_vectorization = False
        options.slp_vectorization = False
        options.loop_unrolling = False
        builder = llvm.create_pass_builder(tm, options)
        builder.getModulePassManager().run(module, builder)
        optimised = str(module)
        if tm.triple.startswith(("arm", "thumb")) and "fpext half" in optimised:
            module = llvm.parse_assembly(_COPYSIGN.sub(_SIGN_OF_BITS, optimised))
            module.verify()
    return module


_COPYSIGN = re.compile(
    r"^  %([\w.]+) = (?:tail )?call float @llvm\.copysign\.f32\(float (\S+), float (\S+)\).*$",
    re.MULTILINE,
)
_SIGN_OF_BITS = r"""
  %to.\1 = bitcast float \2 to i32
  %from.\1 = bitcast float \3 to i32
  %magnitude.\1 = and i32 %to.\1, 2147483647
  %sign.\1 = and i32 %from.\1, -2147483648
  %bits.\1 = or i32 %magnitude.\1, %sign.\1
  %\1 = bitcast i32 %bits.\1 to float"""
"""What `copysign` means. Its selection for Arm with half registers (Cortex-M55) looks through the
widening of a half, whose sign it then takes for one of 32 bits, and aborts."""


def _internalize(module: Any, keep: frozenset[str], tm: Any) -> None:
    """Hide every definition but `keep`, drop what nothing uses, and see that nothing is missing."""

    def symbols() -> list[Any]:
        both = (*module.functions, *module.global_variables)
        return [symbol for symbol in both if not symbol.name.startswith("llvm.")]

    for symbol in symbols():
        shared = symbol.name in keep or symbol.linkage == llvm.Linkage.weak_any
        if not symbol.is_declaration and not shared:
            symbol.visibility = "default"  # LLVM allows nothing else on an internal symbol
            symbol.linkage = "internal"
    builder = llvm.create_pass_builder(tm, llvm.create_pipeline_tuning_options(speed_level=0))
    manager = llvm.create_new_module_pass_manager()
    manager.add_global_dead_code_eliminate_pass()
    manager.run(module, builder)
    missing = [s.name for s in symbols() if s.is_declaration and s.name not in keep]
    if missing:
        raise RuntimeError(f"nothing defines {', '.join(missing)}")


RETURN = 8
"""Bytes of a return address, where it is not among the frame's own."""
FRAME = re.compile(r".*stack frame size \((\d+)\) exceeds limit \(0\) in function '([^']+)'.*\n?")
"""LLVM's warning of a frame: its size, and whose it is."""

_CALLEE = re.compile(r"\bcall [^@]*@([\w.$]+)\(")


def _object(module: Any, tm: Any) -> tuple[bytes, dict[str, int]]:
    """The object file, and the frames of its functions in bytes; those of none are left out.

    Standard error is a file (`machine._Process` has it), which keeps what LLVM says as it dies.
    """
    start = os.lseek(2, 0, os.SEEK_END)
    obj = tm.emit_object(module)
    said = bytearray()
    os.lseek(2, start, os.SEEK_SET)
    while more := os.read(2, 1 << 20):
        said += more
    frames = FRAME.findall(said.decode(errors="replace"))
    return obj, {name: int(size) for size, name in frames}


def _calls(module: Any) -> dict[str, frozenset[str]]:
    """The functions that each calls, by name; code generation adds calls of any weak one."""
    functions = [f for f in module.functions if not f.is_declaration]
    weak = frozenset(f.name for f in functions if f.linkage == llvm.Linkage.weak_any)
    return {
        f.name: frozenset(_CALLEE.findall(str(f))) | (frozenset() if f.name in weak else weak)
        for f in functions
    }


def _deepest(calls: Mapping[str, frozenset[str]], frames: Mapping[str, int]) -> int:
    """The bytes of the deepest chain of calls, return addresses included; nothing calls itself."""
    depth: dict[str, int] = {}

    def below(name: str) -> int:
        if name not in depth:
            deepest = max((below(n) for n in calls[name] if n in calls), default=0)
            depth[name] = frames.get(name, 0) + RETURN + deepest
        return depth[name]

    return max(map(below, calls), default=0)


def main() -> None:
    """Answer requests until standard input ends."""
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever LLVM prints must not end up between the replies
    initialize()
    while True:
        try:
            request = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            reply: tuple[bool, object] = (True, compile_parts(**request))
        except RuntimeError as error:
            reply = (False, str(error))
        pickle.dump(reply, replies)
        replies.flush()


if __name__ == "__main__":
    main()
