"""The small functions that C code of a model may need, in C: what LLVM has as instructions."""

from __future__ import annotations

BUILTINS = {
    "from_half": "__gnu_h2f_ieee",
    "to_half": "__gnu_f2h_ieee",
    "double_to_half": "__aeabi_d2h",
    **{
        f"{name}{f}": f"{name}{f}"
        for name in ("sqrt", "fmod", "fma", "floor", "ceil", "trunc", "roundeven", "round")
        for f in ("f", "")
    },
}
"""By name in C, the function of `builtins` that does it."""

_BITS = """\
static {to} {{symbol}}_{name}({source} x) {{{{
    union {{{{ {source} from; {to} to; }}}} same;
    same.from = x;
    return same.to;
}}}}"""

HELPERS: dict[str, tuple[str, tuple[str, ...]]] = {
    **{
        name: (_BITS.format(name=name, source=source, to=to), ())
        for name, source, to in (
            ("bitsf", "float", "uint32_t"),
            ("from_bitsf", "uint32_t", "float"),
            ("bits", "double", "uint64_t"),
            ("from_bits", "uint64_t", "double"),
        )
    },
    **{
        f"is_nan{f}": (f"static int {{symbol}}_is_nan{f}({type} x) {{{{ return x != x; }}}}", ())
        for f, type in (("f", "float"), ("", "double"))
    },
    **{
        f"abs{f}": (
            f"static {type} {{symbol}}_abs{f}({type} x) {{{{\n"
            f"    return {{symbol}}_from_bits{f}({{symbol}}_bits{f}(x) & {mask});\n}}}}",
            (f"bits{f}", f"from_bits{f}"),
        )
        for f, type, mask in (
            ("f", "float", "0x7fffffffu"),
            ("", "double", "0x7fffffffffffffffull"),
        )
    },
    "copy": (
        """\
static void {symbol}_copy(unsigned char *to, const unsigned char *from, uint32_t size) {{
    for (uint32_t i = 0; i < size; i++) to[i] = from[i];
}}""",
        (),
    ),
}
"""By name, the text of a helper with `{symbol}` for the prefix, and the helpers that it calls."""


def helpers_text(wanted: set[str], symbol: str) -> str:
    """The definitions of some helpers, and of those that they need."""
    needed = wanted.union(*(HELPERS[name][1] for name in wanted))
    texts = (text.format(symbol=symbol) for name, (text, _) in HELPERS.items() if name in needed)
    return "\n\n".join(texts)
