"""`tbc compile --tune`: the fastest kernels for the shapes of a model's dots, measured here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tbc.api import is_native
from tbc.bench.contestants import code_of
from tbc.bench.dots import Dot, Product
from tbc.bench.memory import Ring
from tbc.bench.timing import in_turns
from tbc.errors import Unsupported
from tbc.ir import Graph
from tbc.kernels import BY_NAME, WORTH, Kernel, kernels_for
from tbc.passes import UNSELECTED
from tbc.passes.select import by_cost, codes_of, dot_shapes
from tbc.target import Target
from tbc.tuning import Choice, DotShape, Tuning
from tbc.types import DType

ROWS = (1, 2, 3, 4, 5, 6, 8, 12, 16, 24, 32, 64, 128)
"""Numbers of activation rows that are measured, of those that a dot can have."""
ROUNDS = 40
"""Samples of each kernel and number of rows."""
COLD = 512 << 20
"""Bytes of weights that are read in turn for dots whose weights are streamed."""


@dataclass(frozen=True)
class Tuner:
    """Measures kernels by themselves, all that a dot can have in turns.

    What surrounds a dot is the same for all of its kernels. Scales of groups are not applied, nor
    are sums for zero points, which all kernels do alike.

    Attributes:
        target: this machine.
        rounds: samples of each kernel and number of rows.
        progress: told what is being done.
        cold: bytes of weights that are read in turn where they are streamed.
    """

    target: Target
    rounds: int
    progress: Callable[[str], None]
    cold: int = COLD

    def tune(self, graph: Graph) -> Tuning:
        """The fastest kernels for the dots of a graph whose symbols have bounds.

        Raises:
            Unsupported: this machine cannot run code for the target.
            InternalError: a kernel computes something wrong.
        """
        if not is_native(self.target):
            reason = f"this machine cannot run code for {self.target.name}, so nothing is measured"
            raise Unsupported(reason, hint="--tuning FILE of a machine that can")
        for step in UNSELECTED:
            graph = step(graph, self.target)
        return Tuning(tuple(map(self._choice, dot_shapes(graph))))

    def _choice(self, shape: DotShape) -> Choice:
        """The kernels of the layout that is fastest for the least rows; each where it is fastest.

        Of kernels that take about the same time, the one before stays.
        """
        dtype = DType[shape.activations]
        kernels = [
            kernel
            for code in codes_of(shape)
            for kernel in kernels_for(self.target, code, dtype, shape.k, shape.group)
        ]
        tried = rows_between(shape.least, shape.most)
        times = {m: self.times(kernels, shape, m) for m in tried}
        expected = by_cost(shape, self.target)[0][0].name
        names, starts = fastest(times, expected)
        seen = {k.name: {m: round(times[m][k.name] * 1e6, 3) for m in tried} for k in kernels}
        return Choice(shape, names, starts, seen)

    def times(self, kernels: Sequence[Kernel], shape: DotShape, m: int) -> Mapping[str, float]:
        """Seconds of the product for m rows, by kernel."""
        product = Product(m, shape.n, shape.k)
        self.progress(f"tuning {product.name}: {len(kernels)} kernels")
        code = code_of(product, kernels, self.target)
        dots = {kernel.name: Dot(kernel, product, code) for kernel in kernels}
        ring = None
        if shape.is_streamed:
            ring = Ring(max(self.cold, *(dot.bytes for dot in dots.values())))
        calls = {name: dot.cold(ring) if ring else dot.hot() for name, dot in dots.items()}
        found = in_turns(calls, self.rounds)
        return {name: found[name].median / dot.part for name, dot in dots.items()}


def rows_between(least: int, most: int) -> tuple[int, ...]:
    """The numbers of rows that tell of those from `least` to `most`, ascending."""
    largest = min(most, ROWS[-1])
    least = min(least, largest)
    return tuple(sorted({least, largest, *(m for m in ROWS if least < m < largest)}))


def fastest(
    times: Mapping[int, Mapping[str, float]], expected: str
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Kernels, and where each but the first starts.

    Of kernels that take about the same time, the one that is expected or used already is taken.

    Args:
        times: seconds by numbers of rows, ascending, and kernel.
        expected: for the least rows.
    """
    names: list[str] = []
    starts: list[int] = []
    for m, found in times.items():
        last = names[-1] if names else expected
        if names:
            layout = BY_NAME[last].layout()
            found = {name: t for name, t in found.items() if BY_NAME[name].layout() == layout}
        quickest = min(found, key=found.__getitem__)
        chosen = quickest if found[quickest] < WORTH * found[last] else last
        if not names or chosen != last:
            names.append(chosen)
            starts.append(m)
    return tuple(names), tuple(starts[1:])
