"""Ask LLVM which CPUs it knows and which features imply which; run as a script, as it may abort.

LLVM inlines a function only where the caller has all its features, so `caller` has `feature` just
if it may inline a function that differs by `+feature`.
"""

import json
import re
import subprocess
import sys
from collections.abc import Sequence


def names(triple: str) -> tuple[list[str], list[str]]:
    """All CPUs and all features that LLVM has for a triple."""
    text = _run("names", triple)
    cpus, features = text.split("Available features")
    return tuple(re.findall(r"(?m)^  (\S+) +- ", part) for part in (cpus, features))


def has(triple: str, questions: Sequence[tuple[str, str, str]]) -> list[bool]:
    """For each (CPU, feature string, feature): whether the first two have the third."""
    return json.loads(_run("has", triple, json.dumps(questions)))


def _run(*args: str) -> str:
    done = subprocess.run(
        [sys.executable, __file__, *args[:2]],
        input="".join(args[2:]),
        capture_output=True,
        text=True,
        check=args[0] == "has",  # some of LLVM's targets exit after their help
    )
    return done.stderr if args[0] == "names" else done.stdout


def _print_names(triple: str) -> None:
    import llvmlite.binding as llvm

    llvm.initialize_all_targets()
    llvm.Target.from_triple(triple).create_target_machine(cpu="help", codemodel="small")


def _print_has(triple: str, questions: list[tuple[str, str, str]]) -> None:
    import llvmlite.binding as llvm

    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    text = []
    for i, (cpu, features, feature) in enumerate(questions):
        more = ",".join(filter(None, (features, "+" + feature)))
        head = f'(ptr %p) "target-cpu"="{cpu}" "target-features"='
        text.append(f'define internal void @g{i}{head}"{more}" {{')
        text.append(f"  store volatile i32 {i}, ptr %p\n  ret void\n}}")
        text.append(f'define void @f{i}{head}"{features}" {{')
        text.append(f"  call void @g{i}(ptr %p)\n  ret void\n}}")
    module = llvm.parse_assembly(f'target triple = "{triple}"\n' + "\n".join(text))
    machine = llvm.Target.from_triple(triple).create_target_machine(codemodel="small", reloc="pic")
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(1))
    builder.getModulePassManager().run(module, builder)
    bodies = str(module)
    called = set(re.findall(r"call [^@\n]*@(g\d+)\(", bodies))
    print(json.dumps([f"g{i}" not in called for i in range(len(questions))]))


if __name__ == "__main__":
    if sys.argv[1] == "names":
        _print_names(sys.argv[2])
    else:
        _print_has(sys.argv[2], json.load(sys.stdin))
