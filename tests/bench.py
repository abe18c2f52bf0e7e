"""How fast compiled models run beside onnxruntime, on one thread: `python -m tests.bench`.

Its parts are `digits`, the networks of the demo; `linear`, layers of random trits; and `models`,
networks of others, which `make models` fetches. `--steps` shows where tbc's code for these spends
its time.

Each case is timed as a Python program sees it: one call, arrays in, arrays out. The contestants of
a case take turns in short samples, so that whatever else the machine does meets all of them;
reported are the median and the quartiles of the samples, in the time of the thread where the system
tells it. Weights stay in the cache from call to call. onnxruntime runs at its default level of
graph optimisations, the fastest.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from dataclasses import asdict, dataclass
from itertools import repeat

import numpy as np
import onnxruntime
from rich.console import Console
from rich.table import Table

from tbc.bench.timing import Quartiles, in_turns
from tbc.codegen.host import host_target
from tests.bench_cases import Case, digits, linear
from tests.bench_models import models

PARTS = {"digits": digits, "linear": linear, "models": models}
SAMPLE = 2e-3
"""Seconds that a sample takes at least."""


@dataclass(frozen=True)
class Timing:
    """Microseconds a call: the median and the quartiles of the samples."""

    case: str
    contestant: str
    median_us: float
    lower_us: float
    upper_us: float
    gmac_per_s: float


# -- timing ---------------------------------------------------------------------------------------


def check(case: Case) -> None:
    """Nothing if the contestants agree: what is wrong need not be fast."""
    results = {name: call() for name, call in case.calls.items()}
    expected, *others = results.values()
    for other in others:
        error = np.abs(other - expected).max() / np.abs(expected).max()
        if not error <= case.tolerance:
            raise SystemExit(f"{case.name}: {', '.join(results)} differ by {error:.2g}")


def timings(case: Case, rounds: int) -> list[Timing]:
    """Every contestant of a case, in turns."""
    check(case)
    turns = {name: repeat(call) for name, call in case.calls.items()}
    found = in_turns(turns, rounds, SAMPLE)
    return [timing(case, name, seconds) for name, seconds in found.items()]


def timing(case: Case, contestant: str, seconds: Quartiles) -> Timing:
    speed = case.macs / seconds.median / 1e9
    lower, median, upper = (t * 1e6 for t in (seconds.lower, seconds.median, seconds.upper))
    return Timing(case.name, contestant, median, lower, upper, speed)


def machine() -> dict[str, str]:
    """What the numbers are about."""
    target = host_target()
    return {
        "cpu": target.cpu,
        "features": " ".join(sorted(target.features)),
        "system": platform.platform(),
        "python": platform.python_version(),
        "onnxruntime": onnxruntime.__version__,
    }


def show(console: Console, results: list[Timing]) -> None:
    """The results of one case as a table; ratios are to its first contestant."""
    table = Table(title=results[0].case, title_justify="left", box=None, pad_edge=False)
    table.add_column(no_wrap=True, min_width=24)
    for heading in ("median µs", "quartiles µs", "GMAC/s", "ratio"):
        table.add_column(heading, justify="right", no_wrap=True)
    for r in results:
        table.add_row(
            r.contestant,
            f"{r.median_us:.1f}",
            f"{r.lower_us:.1f} .. {r.upper_us:.1f}",
            f"{r.gmac_per_s:.1f}" if r.gmac_per_s else "",
            f"{r.median_us / results[0].median_us:.2f}",
        )
    console.print(table, "")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; by default all")
    parser.add_argument("--steps", action="store_true", help="the slowest steps of each model")
    parser.add_argument("--json", action="store_true", help="the results as JSON")
    parser.add_argument("--rounds", type=int, default=40, help="samples of each contestant")
    arguments = parser.parse_args()
    if wrong := [part for part in arguments.parts if part not in PARTS]:
        parser.error(f"there is no part {wrong[0]}")
    console = Console(stderr=arguments.json)
    about = machine()
    title = f"{about['cpu']}, {about['system']}, onnxruntime {about['onnxruntime']}, one thread"
    console.print(title, "", highlight=False, soft_wrap=True)
    results = []
    for case in (case for part in arguments.parts or PARTS for case in PARTS[part]()):
        found = timings(case, arguments.rounds)
        show(console, found)
        for line in case.steps() if arguments.steps else ():
            console.print(line, highlight=False, soft_wrap=True, markup=False)
        results += found
    if arguments.json:
        json.dump({"machine": about, "results": [asdict(r) for r in results]}, sys.stdout, indent=2)
        print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
