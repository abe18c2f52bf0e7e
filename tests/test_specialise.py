"""Models whose shapes depend on what is fed: how much is fixed, when, and what is said of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import parser

import tbc
from tbc.errors import InvalidModel, Unfixed, Unsupported
from tbc.specialise import Specialised, Specialiser

Array = npt.NDArray[Any]


def model(text: str) -> onnx.ModelProto:
    return parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]>\n{text}')


OPEN = model("open (float[n, 3] x) => (float[n, 3] y) { y = Relu(x) }")
BOUNDED = model("""
bounded (float[n, 3] x) => (float[n, 3] y) <int64[1] start = {0}, int64[1] end = {1000000000}>
{ part = Slice(x, start, end, start) y = Add(x, part) }
""")
EXACT = model("""
exact (float[b, n] x) => (float[b, m] y) <int64[1] axis = {1}, int64[1] start = {1}, int64[1] end =
{2147483647}, int64[1] step = {2}>
{ odd = Slice(x, start, end, axis, step) start0 = Sub(start, axis) even = Slice(x, start0, end,
axis, step) y = Add(even, odd) }
""")
VALUED = model("""
valued (float[n, 6] x, int64[2] shape, float[n, 6] z) => (float[a, b] y)
{ s = Add(x, z) y = Reshape(s, shape) }
""")
BRANCHES = model("""
branches (float[n] x, bool wide) => (float[m] y) {
    y = If (wide) <
        then_branch = wide () => (float[k] both) { both = Concat<axis = 0>(x, x) },
        else_branch = narrow () => (float[l] same) { same = Identity(x) }
    >
}
""")
SIZED = model("sized (float[n] x) => (int64[1, m] y) { y = NonZero(x) }")


def floats(*shape: int) -> Array:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def fixed(special: Specialised) -> tuple[dict[str, tuple[int, int]], list[str]]:
    return dict(special.ranges), sorted(special.values)


def expected(proto: onnx.ModelProto, feeds: dict[str, Array]) -> list[Array]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return list(session.run(None, feeds))


@pytest.mark.parametrize(
    ("proto", "feeds", "ranges", "values"),
    [
        (OPEN, {"x": floats(5, 3)}, {"n": (0, 8)}, []),
        (BOUNDED, {"x": floats(5, 3)}, {"n": (1, 8)}, []),
        (BOUNDED, {"x": floats(0, 3)}, {"n": (0, 1)}, []),
        (EXACT, {"x": floats(3, 6)}, {"b": (1, 4), "n": (6, 6)}, []),
        (VALUED, {"x": floats(2, 6), "z": floats(2, 6), "shape": np.array([3, -1])},
         {"n": (1, 2)}, ["shape"]),
        (BRANCHES, {"x": floats(3), "wide": np.array(True)}, {"n": (1, 4)}, ["wide"]),
        (SIZED, {"x": np.array([0, 2, 0, 1], np.float32)}, {"n": (1, 4)}, ["x"]),
    ],
    ids=["open", "bounded", "empty", "exact", "valued", "branches", "sized"],
)  # fmt: skip
def test_no_more_is_fixed_than_need_be(
    proto: onnx.ModelProto,
    feeds: dict[str, Array],
    ranges: dict[str, tuple[int, int]],
    values: list[str],
) -> None:
    assert fixed(Specialiser(proto).specialise(feeds)) == (ranges, values)
    for got, wanted in zip(
        tbc.compile(proto).run(feeds).values(), expected(proto, feeds), strict=True
    ):
        np.testing.assert_array_equal(got, wanted)


def test_what_was_fixed_is_fixed_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    specialiser = Specialiser(EXACT)
    specialiser.specialise({"x": floats(3, 6)})
    imports = 0
    import_ = specialiser.import_

    def counted(*args: Any) -> Any:
        nonlocal imports
        imports += 1
        return import_(*args)

    monkeypatch.setattr(specialiser, "import_", counted)
    assert fixed(specialiser.specialise({"x": floats(1, 8)})) == ({"b": (1, 1), "n": (8, 8)}, [])
    assert imports == 1


def test_a_variant_serves_what_fits_it() -> None:
    compiled = tbc.compile(VALUED)
    for shape, n in (([4, 3], 2), ([3, -1], 2), ([4, 3], 2), ([4, -1], 4), ([-1, 2], 3)):
        feeds = {"x": floats(n, 6), "z": floats(n, 6), "shape": np.array(shape)}
        (y,) = compiled.run(feeds).values()
        np.testing.assert_array_equal(y, (feeds["x"] + feeds["z"]).reshape(shape))
    assert len(compiled._variants) == 4
    for n in range(1, 14):
        feeds = {"x": floats(n, 6), "z": floats(n, 6), "shape": np.array([n * 6, 1])}
        (y,) = compiled.run(feeds).values()
        np.testing.assert_array_equal(y, (feeds["x"] + feeds["z"]).reshape(-1, 1))
    assert len(compiled._variants) == 8


def test_inputs_are_known_before_a_graph_is() -> None:
    compiled = tbc.compile(VALUED, dims={"n": 2})
    assert [(t.name, t.dtype, [d.text for d in t.dims]) for t in compiled.inputs] == [
        ("x", np.float32, ["2", "6"]),
        ("shape", np.int64, ["2"]),
        ("z", np.float32, ["2", "6"]),
    ]
    with pytest.raises(Unfixed, match="the new shape depends on the data"):
        _ = compiled.graph


def test_an_input_with_a_value_is_one_no_more(tmp_path: Path) -> None:
    compiled = tbc.compile(VALUED, dims={"n": 2}, inputs={"shape": [4, 3]})
    assert [t.name for t in compiled.inputs] == ["x", "z"]
    feeds = {"x": floats(2, 6), "z": floats(2, 6)}
    (y,) = compiled.run(feeds).values()
    np.testing.assert_array_equal(y, (feeds["x"] + feeds["z"]).reshape(4, 3))
    assert compiled.save(tmp_path, ("obj",))
    with pytest.raises(ValueError, match="no input 'shape'"):
        compiled.run({**feeds, "shape": np.array([4, 3])})


@pytest.mark.parametrize(
    ("proto", "hint"),
    [
        (VALUED, 'tbc.compile(…, inputs={"shape": …})'),
        (EXACT, 'tbc.compile(…, dims={"n": 128})'),
        (BOUNDED, 'tbc.compile(…, dims={"n": (1, 512)})'),
        (model("two (float[a, b] x) => (float[a, b] y) { y = Relu(x) }"),
         'tbc.compile(…, dims={"a": (1, 512), "b": (1, 512)})'),
    ],
)  # fmt: skip
def test_saving_says_what_to_fix(proto: onnx.ModelProto, hint: str, tmp_path: Path) -> None:
    with pytest.raises(Unfixed) as caught:
        tbc.compile(proto).save(tmp_path)
    assert caught.value.hint == hint
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("proto", "feeds", "error", "words"),
    [
        (EXACT, {"x": floats(3, 5)}, ValueError, "with b up to 4, n = 5: .*'y': Add: .*3 is not 2"),
        (VALUED, {"x": floats(1, 6), "z": floats(1, 6), "shape": np.array([4, -1])}, ValueError,
         "with n = 1, the value of shape: .*Reshape"),
        (VALUED, {"x": floats(1, 6), "z": floats(2, 6), "shape": np.array([4, -1])}, ValueError,
         "'z' has 2 along axis 0"),
        (VALUED, {"x": floats(1, 6), "z": floats(1, 6), "shape": np.array([4, 2], np.int32)},
         ValueError, "'shape' has dtype int32, not int64"),
        (SIZED, {"x": floats(5000)}, Unsupported, "NonZero: .*5000 elements, too many .*n = 5000"),
    ],
)  # fmt: skip
def test_inputs_that_nothing_helps(
    proto: onnx.ModelProto, feeds: dict[str, Array], error: type[Exception], words: str
) -> None:
    compiled = tbc.compile(proto)
    with pytest.raises(error, match=words):
        compiled.run(feeds)


def test_what_nothing_can_mend_is_refused_at_once() -> None:
    with pytest.raises(Unsupported, match="Multinomial"):
        tbc.compile(model("m (float[n, 3] x, int64 k) => (int32[n, 1] y) { y = Multinomial(x) }"))
    with pytest.raises(InvalidModel, match="3 is not 4"):
        tbc.compile(model("m (float[n, 3] x, float[4] z) => (float[n, 3] y) { y = Add(x, z) }"))
    with pytest.raises(Unfixed, match="NonZero"):
        tbc.compile(model("m (float[5000] x) => (int64[1, m] y) { y = NonZero(x) }"))
