"""Compiles LLVM text in a process of its own, because LLVM aborts on code that it cannot select.

Run by path (`python -P worker.py`), so that it imports llvmlite and nothing else of tbc. Requests
and replies are pickles on standard input and output:

    request  {"machine": {...}, "parts": [(text, passes), ...], "keep": [...], "kinds": [...]}
    reply    (True, {kind: bytes}) or (False, what LLVM said)
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
    """LLVM's TargetMachine for {triple, cpu, features, abi, reloc, code_model}."""
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
    parts: Sequence[tuple[str, bool]],
    keep: Iterable[str],
    kinds: Iterable[str],
) -> dict[str, bytes]:
    """The parts optimised one by one where they ask for it, linked, and emitted.

    Args:
        machine: see `target_machine`.
        parts: LLVM text, and whether the pass pipeline runs on it.
        keep: the symbols that stay visible, besides weak ones; all others become internal. They
            may be declared only.
        kinds: of "obj", "asm", "llvm" and "datalayout".
    """
    tm = target_machine(machine)
    layout = str(tm.target_data)
    done = {"datalayout": layout.encode()}
    if parts:
        modules = [_optimised(text, passes, layout, tm) for text, passes in parts]
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
            done["obj"] = tm.emit_object(module)
    return {kind: done[kind] for kind in kinds}


def _optimised(text: str, passes: bool, layout: str, tm: Any) -> Any:
    """The module of one part, after the pass pipeline if it is wanted."""
    # Without this attribute LLVM turns loops into calls of memcpy and memset.
    text = re.sub(r"^(define .*?)\{[ \t]*$", r'\1"no-builtins" {', text, flags=re.MULTILINE)
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
    return module


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
