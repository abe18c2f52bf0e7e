"""IR text: a graph as a Python function.

    batch = dim(1, 512)
    def mlp(x: f32[batch, 64], key: f32[64] = "past.key"):
        v2: trit[10, 64] = const("0123456789abcdef")
        v3: f32[batch, 10] = dot(x, v2)
        v4: f32 = const(0.5)
        v5: f32[batch, 10] = mul(v3, v4)
        return {"y": v5}

- `dim(lo, hi)` declares a symbol; without `hi` it is unbounded.
- The default of a parameter is the input's name, where that is no identifier (and for every
  parameter after such a one). `dim(…, name="…")` and a docstring do so for a symbol and the graph.
- A line is one value with its type. Positional arguments are values; keyword arguments are the
  operation's fields, those that hold their default left out. `check(v)` is one of the graph's
  checks.
- An operation is called by its class in snake case, a `Unary` or `Binary` by its `fn`; `PRINTED`
  has the exceptions.
- `dim(0, below=…)` is the number of a loop's round. A function within the function is the body of
  the loops that name it.
- Constants of up to 16 elements are written out; of the others stands the digest, and
  `dump_constants` writes their elements to a file beside the text.
- Values are numbered in the order in which the outputs, then the checks, need them: the text
  depends on nothing but the graph.
"""

from tbc.text_parser import parse_graph
from tbc.text_printer import INLINE, PRINTED, dump_constants, print_graph

__all__ = ["INLINE", "PRINTED", "dump_constants", "parse_graph", "print_graph"]
