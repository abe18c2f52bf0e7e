"""Changed models end in a program or a typed error, in time: the fuzzer's question, a few times.

`make fuzz` asks it for an hour, guided by the code that inputs reach.
"""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.fields import damaged
from tests.fuzz.mutation import mutated
from tests.fuzz.seeds import generated
from tests.fuzz.target import SECONDS, check

DATA = tuple(generated())
MODELS = tuple(map(onnx.ModelProto.FromString, DATA))
SLACK = 10
"""Times the limit: machines are shared."""
_QUIET = settings(
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
CHANGES = st.randoms(use_true_random=False)


@pytest.mark.parametrize("data", DATA)
def test_seeds_compile(data: bytes) -> None:
    assert check(data, SLACK * SECONDS) == "compiled"


@settings(_QUIET, max_examples=300)
@given(st.sampled_from(MODELS), CHANGES)
def test_changed_models(model: onnx.ModelProto, rng: random.Random) -> None:
    check(mutated(model, rng, MODELS), SLACK * SECONDS)


@settings(_QUIET, max_examples=200)
@given(st.sampled_from(DATA), CHANGES)
def test_changed_bytes(data: bytes, rng: random.Random) -> None:
    check(damaged(data, rng), SLACK * SECONDS)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_many_changed_models(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(500):
        check(mutated(rng.choice(MODELS), rng, MODELS), SLACK * SECONDS)


@pytest.mark.slow
def test_the_fuzzer_runs(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.fuzz.run", "--quick", "--plain", "--seconds", "5"]
    done = subprocess.run(
        [*command, "--findings", tmp_path / "findings"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
    assert "0 findings" in done.stdout
