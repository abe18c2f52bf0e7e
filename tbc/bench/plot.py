"""Rooflines: what each contestant reaches, under what reading and arithmetic allow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from tbc.bench.report import BenchReport, Case, Row

SIZE = {"width": 900, "height": 440, "left": 70, "right": 560, "top": 40, "bottom": 380}
COLORS = {"dot": "#1b6ca8", "layer": "#c0392b", "peer": "#7f8c8d"}
"""By kind, of what is marked."""


@dataclass(frozen=True)
class Axis:
    """A logarithmic axis from `low` to `high`, powers of ten, between two places."""

    low: int
    high: int
    start: float
    end: float

    @staticmethod
    def around(values: Sequence[float], start: float, end: float) -> Axis:
        """The axis that shows all of some positive values."""
        low = math.floor(math.log10(min(values)))
        return Axis(low, max(math.ceil(math.log10(max(values))), low + 1), start, end)

    def at(self, value: float) -> float:
        """The place of a value."""
        part = (math.log10(value) - self.low) / (self.high - self.low)
        return round(self.start + part * (self.end - self.start), 1)

    def ticks(self) -> list[dict[str, object]]:
        """The powers of ten, and where they are."""
        powers = range(self.low, self.high + 1)
        return [{"at": self.at(10.0**power), "text": f"{10.0**power:g}"} for power in powers]


def roofline(report: BenchReport) -> str:
    """An SVG with a panel for each case that has limits."""
    panels = [_panel(case) for case in report.cases if _best(case.rows, "stream")]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("roofline.svg.j2").render(panels=panels, **SIZE)


def _best(rows: Sequence[Row], kind: str, is_float: bool = False) -> float:
    """The highest limit of a kind, in GB/s or GMAC/s; 0 if there is none."""
    found = (r for r in rows if r.kind == kind and r.is_float == is_float)
    return max((r.gb_per_s or r.gmac_per_s or 0.0 for r in found), default=0.0)


def _panel(case: Case) -> dict[str, object]:
    """A case as places in a picture."""
    reading = _best(case.rows, "stream")
    tops = {is_float: _best(case.rows, "peak", is_float) for is_float in (False, True)}
    marked = [
        (row, row.gmac_per_s / row.gb_per_s, row.gmac_per_s)
        for row in case.rows
        if row.kind in COLORS and row.gmac_per_s and row.gb_per_s
    ]
    knees = [top / reading for top in tops.values() if top]
    speeds = [speed for _, _, speed in marked] + [top for top in tops.values() if top]
    x = Axis.around([*(m for _, m, _ in marked), *knees], SIZE["left"], SIZE["right"])
    y = Axis.around(speeds, SIZE["bottom"], SIZE["top"])

    def roof(top: float) -> str:
        """From where the slope enters the picture to the right end."""
        knee, bottom = top / reading, 10.0**y.low
        first = max(10.0**x.low, bottom / reading)
        places = [(first, first * reading), (knee, top), (10.0**x.high, top)]
        return " ".join(f"{x.at(a)},{y.at(b)}" for a, b in places if a >= first)

    return {
        "title": f"{case.name}, weights {case.weights}",
        "x_ticks": x.ticks(),
        "y_ticks": y.ticks(),
        "roofs": [
            {"points": roof(top), "is_float": f, "name": "f32" if f else "integers"}
            for f, top in tops.items()
            if top
        ],
        "marks": [
            {"x": x.at(m), "y": y.at(s), "color": COLORS[row.kind], "text": f"{row.name}, {s:.1f}"}
            for row, m, s in marked
        ],
    }
