"""Fuzzes the compiler up to the program: `python -m tests.fuzz.run --seconds 3600`.

With atheris (`pip install atheris`, where it has a wheel) inputs that reach new code are kept and
changed further; without it, only the seeds are. What is found is written to a folder, once for each
place in the code; `--replay FILE` runs one such file.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import onnx

try:
    import atheris
except ImportError:
    atheris = None

SLACK = 5
"""Times the limit of a process that also records what code it reaches."""
OPTIONS = ("-max_len=20000", "-timeout=600", "-rss_limit_mb=0", "-print_final_stats=1")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--plain", action="store_true", help="do without atheris")
    parser.add_argument("--quick", action="store_true", help="only the seeds that are made here")
    parser.add_argument("--findings", type=Path, default=Path("out/findings"))
    parser.add_argument("--replay", type=Path)
    args = parser.parse_args()
    if args.processes > 1:
        return _several(args.processes, args.seed, sys.argv[1:])
    guided = atheris is not None and not args.plain and not args.replay
    with atheris.instrument_imports(include=["tbc"]) if guided else nullcontext():
        from tests.fuzz import seeds, session, target
    if args.replay:
        print(target.check(args.replay.read_bytes()))
        return 0
    models = list(seeds.generated()) if args.quick else seeds.seeds()
    print(f"{len(models)} seeds, {'atheris' if guided else 'without atheris'}", flush=True)
    limit = target.SECONDS * (SLACK if guided else 1)
    tried = session.Session(args.findings, args.seconds, limit)
    (_guided if guided else _plain)(tried, models, args.seed)
    return 0


def _several(count: int, seed: int, arguments: Sequence[str]) -> int:
    """Run so many processes with seeds of their own; the greatest exit status."""
    command = [sys.executable, "-m", "tests.fuzz.run", *arguments]
    running = [
        subprocess.Popen([*command, "--processes", "1", "--seed", str(seed + i)])
        for i in range(count)
    ]
    return max(process.wait() for process in running)


def _plain(session: Any, models: Sequence[bytes], seed: int) -> None:
    """Changes of the seeds, until the session ends the process."""
    from tests.fuzz.mutation import mutated_bytes

    rng = random.Random(seed)
    protos = [onnx.ModelProto.FromString(data) for data in models]
    for data in models:
        session(data)
    while True:
        session(mutated_bytes(rng.choice(models), rng, protos))


def _guided(session: Any, models: Sequence[bytes], seed: int) -> None:
    """Changes of the seeds and of what reaches new code, until the session ends the process."""
    from tests.fuzz.mutation import mutated_bytes

    protos = [onnx.ModelProto.FromString(data) for data in models]

    def change(data: bytes, most: int, number: int) -> bytes:
        return mutated_bytes(data, random.Random(number), protos)[:most]

    with tempfile.TemporaryDirectory() as folder:
        for number, data in enumerate(models):
            (Path(folder) / str(number)).write_bytes(data)
        atheris.Setup(
            [sys.argv[0], *OPTIONS, f"-seed={seed}", f"-artifact_prefix={folder}/", folder],
            session,
            custom_mutator=change,
        )
        atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
