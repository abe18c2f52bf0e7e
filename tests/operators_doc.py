"""What docs/operators.md says, from the tables of the frontend: `python -m tests.operators_doc`."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from onnx import defs

from tbc.frontend.importer import CONTROL
from tbc.frontend.nodes import ONNX_DOMAINS
from tbc.frontend.operators import (
    LIMITS,
    ONNX,
    OTHERS,
    QONNX_DOMAINS,
    REFUSED,
    REFUSED_DOMAINS,
)
from tbc.frontend.reader import OLDEST_OPSET
from tbc.types import DType

DOCUMENT = Path(__file__).parents[1] / "docs" / "operators.md"
NEWEST = defs.onnx_opset_version()

HEAD = """\
# Operators

What tbc compiles, by domain. This file is made of the compiler's own tables by `make docs`.

- What decides a shape, such as the second input of Reshape, is a constant or computed from shapes.
  Otherwise give its value when you compile; the backend of the onnx package does so by itself.
- A limit that says *number* means that a symbolic size must be fixed (`--dim seq=128`).
- Element types are those of the first input. *Floats* are f16, bf16, f32 and f64; *integers* are
  signed and unsigned ones of 8 to 64 bits; *narrow integers* are i2, u2, i4 and u4, and *small
  floats* those of 8 bits, and f4e2m1. These two are stored, moved and cast. As inputs and outputs
  of a model they are bytes.
- What is refused is an error that names the node, the operator and the reason.
"""

ONNX_HEAD = f"""
## ONNX

Opsets {OLDEST_OPSET} to {NEWEST}. *Versions* are the opsets that gave the operator a meaning which
such a model can ask for. Those with an ƒ are compiled as the function body that ONNX gives.
"""

MICROSOFT_HEAD = """
## onnxruntime

The domain `com.microsoft`, version 1: what exported and optimised models, and onnxruntime's
quantiser, contain.
"""

QONNX_HEAD = """
## QONNX

The domain `qonnx.custom_op.general`, and its older names `onnx.brevitas` and
`finn.custom_op.general`.
"""

REFUSED_HEAD = """
## Refused

Tensors of text, of complex numbers and of scales in f8e8m0; inputs and outputs that are sequences
or optional values; and these operators:
"""

GROUPS = (
    ("floats", ("f16", "bf16", "f32", "f64")),
    ("integers", ("i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64")),
    ("bool", ("bool",)),
    ("narrow integers", ("i2", "u2", "i4", "u4")),
    ("small floats", ("f8e4m3fn", "f8e4m3fnuz", "f8e5m2", "f8e5m2fnuz", "f4e2m1")),
)
TYPE_NAMES = {
    "float16": "f16",
    "bfloat16": "bf16",
    "float": "f32",
    "double": "f64",
    "bool": "bool",
    **{f"float8{kind}": f"f8{kind}" for kind in ("e4m3fn", "e4m3fnuz", "e5m2", "e5m2fnuz")},
    "float4e2m1": "f4e2m1",
    **{f"int{bits}": f"i{bits}" for bits in (2, 4, 8, 16, 32, 64)},
    **{f"uint{bits}": f"u{bits}" for bits in (2, 4, 8, 16, 32, 64)},
}


def element_types(dtypes: Iterable[DType]) -> str:
    """Element types as text, whole groups by their names."""
    given = [d.name for d in dtypes]
    parts: list[str] = []
    for group, members in GROUPS:
        found = [n for n in given if n in members]
        parts += [group] if len(found) == len(members) else found
    return ", ".join(parts)


def types_of(schema: Any) -> list[DType]:
    """tbc's types of the first input, or of the output of an operator without inputs."""
    formals = schema.inputs or schema.outputs
    if not formals:
        return []
    allowed = {c.type_param_str: c.allowed_type_strs for c in schema.type_constraints}
    texts = allowed.get(formals[0].type_str, [formals[0].type_str])
    names = {TYPE_NAMES.get(t.rstrip(")").rpartition("(")[2]) for t in texts}
    return [d for d in DType if d.name in names]


def history() -> dict[tuple[str, str], list[Any]]:
    """All versions of the operators in ONNX's domains for inference, the oldest first."""
    found = defaultdict(list)
    for schema in defs.get_all_schemas_with_history():
        if schema.domain in ONNX_DOMAINS:
            found[schema.domain, schema.name].append(schema)
    return {k: sorted(v, key=lambda s: s.since_version) for k, v in sorted(found.items())}


def versions(schemas: Sequence[Any]) -> str:
    """The versions that a model of a supported opset can mean, and when the operator ended."""
    since = [s.since_version for s in schemas if not s.deprecated]
    first = max((v for v in since if v <= OLDEST_OPSET), default=since[0])
    text = ", ".join(str(v) for v in since if v >= first)
    if schemas[-1].deprecated:
        text += f" (until {schemas[-1].since_version - 1})"
    return text


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """A table's lines."""
    yield ""
    yield f"| {' | '.join(head)} |"
    yield "|---" * len(head) + "|"
    for row in rows:
        yield re.sub(r"  +", " ", f"| {' | '.join(row)} |")


def onnx_rows(domain: str) -> Iterator[Sequence[str]]:
    """A row for each operator of one of ONNX's domains that is compiled."""
    for (of, name), schemas in history().items():
        newest = next(s for s in reversed(schemas) if not s.deprecated)
        own = of == "" and (name in ONNX or name in CONTROL)
        function = newest.has_function or newest.has_context_dependent_function
        if of == domain and (of, name) not in REFUSED and (own or function):
            label = name if own else f"{name} ƒ"
            limits = LIMITS.get(name, "") if of == "" else ""
            yield label, versions(schemas), element_types(types_of(newest)), limits


def other_rows(domain: str) -> Iterator[Sequence[str]]:
    """A row for each operator of a domain that onnx has no schemas of."""
    for (of, name), (_, signature) in sorted(OTHERS.items()):
        if of == domain:
            yield name, element_types(signature.dtypes), signature.limits


def refused_rows() -> Iterator[Sequence[str]]:
    """A row for each reason why operators are refused."""
    by_reason = defaultdict(list)
    for (_, name), reason in REFUSED.items():
        by_reason[reason].append(name)
    for reason, names in sorted(by_reason.items(), key=lambda item: sorted(item[1])):
        yield ", ".join(sorted(names)), reason
    for domain, reason in sorted(REFUSED_DOMAINS.items()):
        yield f"all of `{domain}`", reason


def text() -> str:
    """The document."""
    onnx_head = ("operator", "versions", "element types", "limits")
    other_head = ("operator", "element types", "limits")
    lines = [
        HEAD.rstrip("\n"),
        ONNX_HEAD.rstrip("\n"),
        *table(onnx_head, onnx_rows("")),
        "\nOf onnxruntime, but in ONNX's own domain:",
        *table(other_head, other_rows("")),
        "\nThe domain `ai.onnx.preview`:",
        *table(onnx_head, onnx_rows("ai.onnx.preview")),
        MICROSOFT_HEAD.rstrip("\n"),
        *table(other_head, other_rows("com.microsoft")),
        QONNX_HEAD.rstrip("\n"),
        *table(other_head, other_rows(QONNX_DOMAINS[0])),
        REFUSED_HEAD.rstrip("\n"),
        *table(("operators", "why"), refused_rows()),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    DOCUMENT.write_text(text())
