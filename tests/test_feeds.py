"""Files of inputs that are damaged end in a typed error."""

from __future__ import annotations

import io
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tbc.errors import TbcError
from tbc.feeds import read_feeds
from tests.fuzz.fields import damaged


def saved(save: str, *args: object, **kwargs: object) -> bytes:
    file = io.BytesIO()
    getattr(np, save)(file, *args, **kwargs)
    return file.getvalue()


X = np.arange(6, dtype=np.float32).reshape(2, 3)
FILES = [
    saved("save", X),
    saved("savez", x=X, y=np.float32(1)),
    saved("savez_compressed", x=np.arange(600)),
]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("feeds") / "x.npy"


@settings(derandomize=True, database=None, suppress_health_check=[HealthCheck.data_too_large])
@given(st.sampled_from(FILES), st.randoms(use_true_random=False))
def test_damaged_files(path: Path, data: bytes, rng: random.Random) -> None:
    path.write_bytes(damaged(data, rng))
    try:
        read_feeds([str(path)], lambda: ["x"])
    except TbcError:
        return


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"(2, 3)", b"(1 << 9)", "not an .npy"),
        (b"(2, 3)", b"(2, -3)", "not an .npy"),
        (b"(2, 3)", b"((((((", "not an .npy"),
        (b"(2, 3), }      ", b"(99999999999,)}", "memory|not an .npy"),
        (b"<f4", b"|O8", "not an .npy"),
        (b"<f4", b"<f9", "not an .npy"),
    ],
)
def test_wrong_headers(path: Path, old: bytes, new: bytes, message: str) -> None:
    assert old in FILES[0]
    path.write_bytes(FILES[0].replace(old, new))
    with pytest.raises(TbcError, match=message):
        read_feeds([str(path)], lambda: ["x"])
