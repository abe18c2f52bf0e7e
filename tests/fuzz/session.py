"""What one fuzzing process tries, finds and says."""

from __future__ import annotations

import hashlib
import os
import sys
import time
import traceback
from collections import Counter
from pathlib import Path

from tests.fuzz.target import TooSlow, check

REPORT = 60
"""Seconds between two lines of progress."""
_FRAMES = 4


class Session:
    """What one process has tried and found.

    Attributes:
        outcomes: how often inputs ended as what.
        found: how often something was found at a place.
    """

    def __init__(self, folder: Path, seconds: float, limit: float):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.seconds, self.limit = folder, seconds, limit
        self.outcomes: Counter[str] = Counter()
        self.found: Counter[str] = Counter()
        self._start = self._said = time.monotonic()

    def __call__(self, data: bytes) -> None:
        """Check one input; exits once the time is over."""
        try:
            self.outcomes[check(data, self.limit)] += 1
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            self._keep(data, error)
        now = time.monotonic()
        if now - self._said > REPORT or now - self._start > self.seconds:
            self._said = now
            self._report(now - self._start)
        if now - self._start > self.seconds:
            sys.stdout.flush()
            os._exit(1 if self.found else 0)  # atheris would go on after SystemExit

    def _keep(self, data: bytes, error: BaseException) -> None:
        place = _place(error)
        self.found[place] += 1
        if self.found[place] == 1:
            path = self.folder / f"{hashlib.sha256(place.encode()).hexdigest()[:10]}.onnx"
            path.write_bytes(data)
            text = "".join(traceback.format_exception(error))
            path.with_suffix(".txt").write_text(f"{place}\n\n{text}")
            print(f"found: {path}: {place}: {error}", flush=True)

    def _report(self, seconds: float) -> None:
        total = sum(self.outcomes.values()) + sum(self.found.values())
        ends = ", ".join(f"{count} {name}" for name, count in self.outcomes.most_common())
        print(f"{seconds:.0f} s: {total} inputs: {ends}; {len(self.found)} findings", flush=True)


def _place(error: BaseException) -> str:
    """The kind of an error and where in the compiler it came from."""
    cause = error.__cause__ or error
    frames = [f for f in traceback.extract_tb(cause.__traceback__) if "/tbc/" in f.filename]
    if isinstance(error, TooSlow):  # it stops anywhere in a loop
        return f"TooSlow in {frames[2].name}" if len(frames) > 2 else "TooSlow"
    places = (f"{Path(f.filename).name}:{f.lineno}" for f in reversed(frames[-_FRAMES:]))
    return f"{type(cause).__name__} at {' < '.join(places)}"
