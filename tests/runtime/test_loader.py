"""Compiled models in Python: binding of shapes, arrays in place, errors that say what is wrong."""

import ctypes
import itertools
import shutil
import struct
import sys
from concurrent.futures import ThreadPoolExecutor

import adder
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbc.codegen.host import host_target
from tbc.codegen.jit import Loaded
from tbc.codegen.link import can_link, link_shared, suffix
from tbc.codegen.modelinfo import TensorInfo, exported
from tbc.errors import IncompatibleArtifact, InternalError, Unsupported
from tbc.runtime import Model, bind_symbols, load
from tbc.runtime.dims import Dim, bind, split
from tbc.runtime.elf import damage
from tbc.self_test import Rule, SelfTest, checksum, elements
from tbc.text import parse_graph

HOST = host_target()
needs_linker = pytest.mark.skipif(not can_link(HOST), reason="there is no linker")


def jitted(**more):
    """The adder in this process, with other information about it if given."""
    model = adder.info(HOST, **more)
    loaded = Loaded(adder.compiled(HOST, model), HOST, ["tbc_adder"])
    return loaded.address("tbc_adder"), loaded


@pytest.fixture(scope="module")
def model():
    address, loaded = jitted()
    return Model(address, HOST.cpu_bits, keep=loaded)


def feeds(n, dtype=np.float32):
    x = np.arange(3 * n, dtype=dtype).reshape(n, 3)
    return {"x": x, "y.1": 10 * x}


@pytest.mark.parametrize("n", range(5))
def test_run_adds(model, n):
    result = model.run(feeds(n))
    assert list(result) == ["sum"]
    assert result["sum"].shape == (n, 3)
    assert result["sum"].dtype == np.float32
    np.testing.assert_array_equal(result["sum"], 11 * feeds(n)["x"] + np.float32(adder.WEIGHTS))


def test_every_phase_is_timed(model):
    (seconds,) = model.phase_seconds(feeds(4))
    assert seconds > 0
    with pytest.raises(ValueError, match="outside"):
        model.phase_seconds(feeds(5))


def test_a_model_describes_itself(model):
    assert (model.name, model.target) == ("adder", "native")
    assert [(t.name, t.dtype, t.dims) for t in model.inputs] == [
        ("x", np.float32, (Dim("n"), Dim("3"))),
        ("y.1", np.float32, (Dim("n"), Dim("3"))),
    ]
    assert model.symbols == (("n", 0, 4),)
    assert model.state_size == 0


def test_arrays_in_another_order_are_copied(model):
    x = np.asfortranarray(np.arange(12, dtype=np.float32).reshape(4, 3))
    y = np.arange(24, dtype=np.float32).reshape(4, 6)[:, ::2]
    expected = x + y + np.float32(adder.WEIGHTS)
    np.testing.assert_array_equal(model.run({"x": x, "y.1": y})["sum"], expected)


def test_a_contiguous_array_is_read_in_place(model):
    x = np.zeros((2, 3), np.float32)
    x.flags.writeable = False
    assert model._arrays({"x": x, "y.1": x})[0] is x


def test_calls_at_once_do_not_meet(model):
    def one(i):
        x = np.full((4, 3), i, np.float32)
        return model.run({"x": x, "y.1": x})["sum"]

    with ThreadPoolExecutor(8) as threads:
        for i, result in enumerate(threads.map(one, range(200))):
            np.testing.assert_array_equal(
                result, np.full((4, 3), 2 * i) + np.float32(adder.WEIGHTS)
            )
    assert 1 <= len(model._rooms) <= 8


def test_inputs_may_be_read_only_and_empty(model):
    frozen = np.ones((2, 3), np.float32)
    frozen.setflags(write=False)
    expected = np.full((2, 3), 2) + np.float32(adder.WEIGHTS)
    np.testing.assert_array_equal(model.run({"x": frozen, "y.1": frozen})["sum"], expected)
    empty = np.zeros((0, 3), np.float32)
    assert model.run({"x": empty, "y.1": empty})["sum"].shape == (0, 3)


def test_many_shapes_are_not_all_remembered():
    address, loaded = jitted(symbols=(("n", 0, 4), ("m", 0, 100)), inputs=_INPUTS)
    model = Model(address, HOST.cpu_bits, keep=loaded)
    for m in range(100):
        x = np.zeros((4, 3), np.float32)
        assert model.run({"x": x, "y.1": np.zeros((4, 3, m), np.float32)})["sum"].shape == (4, 3)
    assert 0 < len(model._plans) <= 64


_INPUTS = (
    TensorInfo("x", 1, 2, (4, 3), "n,3", 48),
    TensorInfo("y.1", 1, 3, (4, 3, 100), "n,3,m", 48),
)

X = np.zeros((2, 3), np.float32)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"x": X}, "no array is given for the input 'y.1'"),
        ({"x": X, "y.1": X, "z": X}, "there is no input 'z'; the inputs are x, y.1"),
        ({"x": X, "y.1": X.astype(np.float64)}, "input 'y.1' has dtype float64, not float32"),
        ({"x": X, "y.1": X.astype(">f4")}, "input 'y.1' has dtype >f4, not float32"),
        ({"x": X[0], "y.1": X}, r"input 'x' has rank 1, not 2: \(n, 3\)"),
        ({"x": X, "y.1": X[:1]}, r"input 'y.1' has 1 along axis 0, not 2 \(n\)"),
        ({"x": X[:, :2], "y.1": X}, "input 'x' has 2 along axis 1, not 3$"),
        (feeds(5), "dimension 'n' is 5, outside 0..4"),
        ({"x": X * np.nan, "y.1": X}, "an input of 'adder' holds a value it cannot accept"),
    ],
)
def test_wrong_feeds_say_what_is_wrong(model, wrong, message):
    with pytest.raises(ValueError, match=message):
        model.run(wrong)


def test_the_model_itself_checks_dimensions():
    address, loaded = jitted(symbols=(("n", 0, 9),))
    with pytest.raises(ValueError, match="not compiled for dimensions"):
        Model(address, HOST.cpu_bits, keep=loaded).run(feeds(5))


def test_a_misaligned_arena_is_a_bug():
    address, loaded = jitted(align=1, arena_size=200)
    model = Model(address, HOST.cpu_bits, keep=loaded)
    room = model._take_room()
    room.call.arena = -(-room.call.arena // 64) * 64 + 1
    model._rooms.append(room)
    with pytest.raises(InternalError, match="status 4"):
        model.run(feeds(1))


def test_another_abi_is_refused_before_anything_is_read():
    word = ctypes.c_uint32(1)
    with pytest.raises(IncompatibleArtifact, match="ABI 1; this tbc has 4"):
        Model(ctypes.addressof(word), HOST.cpu_bits)


def test_another_cpu_is_refused():
    address, _loaded = jitted(cpu_bits=1 << 40)
    with pytest.raises(IncompatibleArtifact, match=r"this CPU lacks \(bits 0x10000000000"):
        Model(address, HOST.cpu_bits)


def test_weights_may_come_from_outside():
    address, loaded = jitted(weights_file="adder.weights")
    with pytest.raises(IncompatibleArtifact, match="weights of 'adder' are absent"):
        Model(address, HOST.cpu_bits, keep=loaded)
    with pytest.raises(IncompatibleArtifact, match="not the weights of 'adder'"):
        Model(address, HOST.cpu_bits, weights=bytes(12), keep=loaded)
    with pytest.raises(IncompatibleArtifact, match="not the weights of 'adder'"):
        Model(address, HOST.cpu_bits, weights=adder.weights(HOST) + b"\0", keep=loaded)
    model = Model(address, HOST.cpu_bits, weights=adder.weights(HOST), keep=loaded)
    assert model._weights.ctypes.data % 64 == 0
    np.testing.assert_array_equal(
        model.run({"x": X, "y.1": X})["sum"], np.float32([adder.WEIGHTS] * 2)
    )


def test_a_state_is_the_callers():
    address, loaded = jitted(state_size=100)
    model = Model(address, HOST.cpu_bits, keep=loaded)
    with pytest.raises(ValueError, match="needs a state of 100 bytes"):
        model.run(feeds(1))
    state = model.new_state()
    assert (state.size, state.ctypes.data % 64, state.any()) == (100, 0, False)
    model.run(feeds(1), state=state)


def library(folder, linker="", **more):
    model = adder.info(HOST, **more)
    path = folder / f"libadder{suffix(HOST)}"
    link_shared(adder.compiled(HOST, model), HOST, path, exported(model), linker)
    return path


@needs_linker
def test_load_a_shared_library(tmp_path):
    model = load(library(tmp_path), HOST.cpu_bits)
    np.testing.assert_array_equal(
        model.run(feeds(2))["sum"], 11 * feeds(2)["x"] + np.float32(adder.WEIGHTS)
    )


@needs_linker
def test_load_maps_the_weights_beside_the_library(tmp_path):
    path = library(tmp_path, weights_file="adder.weights")
    with pytest.raises(IncompatibleArtifact, match=r"weights cannot be read") as caught:
        load(path, HOST.cpu_bits)
    assert caught.value.file == str(path)
    for file in (tmp_path / "adder.weights", tmp_path / "elsewhere"):
        file.write_bytes(adder.weights(HOST))
    (tmp_path / "empty").write_bytes(b"")
    for weights in (None, tmp_path / "elsewhere"):
        model = load(str(path), HOST.cpu_bits, weights)
        np.testing.assert_array_equal(
            model.run({"x": X, "y.1": X})["sum"], np.float32([adder.WEIGHTS] * 2)
        )
    with pytest.raises(IncompatibleArtifact):
        load(path, HOST.cpu_bits, tmp_path / "empty")


@needs_linker
def test_load_refuses_what_does_not_fit(tmp_path):
    with pytest.raises(IncompatibleArtifact, match="this CPU lacks"):
        load(library(tmp_path, cpu_bits=1 << 40), HOST.cpu_bits)
    (tmp_path / "bad.so").write_bytes(b"not a library")
    with pytest.raises(IncompatibleArtifact, match="not a model that this machine can load"):
        load(tmp_path / "bad.so", HOST.cpu_bits)
    with pytest.raises(IncompatibleArtifact, match="cannot be read"):
        load(tmp_path / "absent.so", HOST.cpu_bits)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ELF is Linux's")
def test_load_refuses_a_truncated_library(tmp_path):
    path = library(tmp_path)
    data = path.read_bytes()
    cut = tmp_path / "cut.so"
    for size in (0, 5, 64, 100, len(data) // 4, len(data) // 2):
        cut.write_bytes(data[:size])
        with pytest.raises(IncompatibleArtifact, match="not a model that this machine can load"):
            load(cut, HOST.cpu_bits)


def loaded_size(data):
    """How much of a library of tbc's own is mapped."""
    (start,), (count,) = struct.unpack_from("<Q", data, 32), struct.unpack_from("<H", data, 56)
    segments = (struct.unpack_from("<IIQQQQ", data, start + 56 * i) for i in range(count))
    return max(s[2] + s[5] for s in segments)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ELF is Linux's")
def test_a_changed_byte_in_what_is_mapped_is_seen(tmp_path):
    path = library(tmp_path)
    data = bytearray(path.read_bytes())
    assert damage(path) == ""
    owner = data.index(b"tbc\0") - 12
    # Without the head of the note it is any linker's library, and that is all that changes.
    for at in {*range(64, loaded_size(data), 3)} - {*range(owner, owner + 16)}:
        data[at] ^= 1 << at % 8
        path.write_bytes(data)
        data[at] ^= 1 << at % 8
        assert damage(path) in ("the file is damaged", "the file is truncated"), at
    path.write_bytes(data)
    assert damage(path) == ""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ELF is Linux's")
@pytest.mark.parametrize("linker", ["", "cc", "ld"])
def test_load_refuses_a_library_with_holes(tmp_path, linker):
    """Whoever linked it, zeros in place of tables are seen; in place of weights too."""
    if linker and shutil.which(linker) is None:
        pytest.skip(f"there is no {linker}")
    path = library(tmp_path, linker)
    data = path.read_bytes()
    weights = data.index(adder.weights(HOST))
    holes = [(64, 120), (64, len(data)), (len(data) // 2, len(data)), (weights, weights + 12)]
    for number, (start, end) in enumerate([(0, len(data)), *holes]):
        holed = tmp_path / f"{number}.so"  # the process keeps what it has opened
        holed.write_bytes(data[:start] + bytes(end - start) + data[end:])
        with pytest.raises(IncompatibleArtifact, match=r"not a model that|damaged"):
            load(holed, HOST.cpu_bits)
    assert load(path, HOST.cpu_bits).name == "adder"


def test_dimensions_are_split_at_outer_commas():
    assert split("") == ()
    assert split("batch,1,min(seq, 8),a - 2*(b,c)") == tuple(
        map(Dim, ("batch", "1", "min(seq, 8)", "a - 2*(b,c)"))
    )


@given(st.integers(-9, 9), st.integers(1, 9), st.integers(0, 9))
def test_dimensions_have_the_values_that_python_gives(a, b, c):
    values = {"a": a, "b": b, "c d": c, "c d - 1": 5, "c": 100}
    for text in ("a", "a + b", "a - 2*b", "-a", "a // b", "min(a, b)", "max(a, b, 3)", "7"):
        assert Dim(text).value(values) == eval(text, {}, values)
    assert Dim("c d").value(values) == c
    assert Dim("c d*2 + c d - 1*3 + c").value(values) == c * 2 + 5 * 3 + 100


@pytest.mark.parametrize("text", ["a()", "a.b", "abs(a)", "a ** b", "1.5", "'a'", "a if a else b"])
def test_a_dimension_is_nothing_but_arithmetic(text):
    with pytest.raises(ValueError, match="is not a dimension"):
        Dim(text).value({"a": 1, "b": 1})


SYMBOLS = (("past", 0, 8), ("seq", 1, 4), ("one", 1, 1))


def test_plain_dimensions_bind_and_the_others_are_checked():
    shapes = [("mask", split("past + seq,one"), (5, 1)), ("x", split("seq"), (2,))]
    kv = ("kv", split("past"), (3,))
    assert bind(SYMBOLS, [*shapes, kv]) == {"past": 3, "seq": 2, "one": 1}
    with pytest.raises(ValueError, match=r"'mask' has 6 along axis 0, not 5 \(past \+ seq\)"):
        bind(SYMBOLS, [("mask", split("past + seq,one"), (6, 1)), *shapes[1:], kv])
    with pytest.raises(ValueError, match="no input's shape decides the dimension 'past'"):
        bind(SYMBOLS, shapes)
    with pytest.raises(ValueError, match=r"'seq' is 0, outside 1..4"):
        bind(SYMBOLS, [("x", split("seq"), (0,)), kv])
    assert bind([("n", 2, None)], [("x", split("n"), (7,))]) == {"n": 7}
    with pytest.raises(ValueError, match=r"'n' is 1, outside 2\.\.$"):
        bind([("n", 2, None)], [("x", split("n"), (1,))])


@given(st.permutations([("a", ("past",)), ("b", ("past", "seq")), ("c", ("past + seq",))]))
def test_the_order_of_inputs_does_not_matter(order):
    sizes = {"past": 3, "seq": 2, "past + seq": 5}
    shapes = [
        (name, tuple(map(Dim, dims)), tuple(sizes[dim] for dim in dims)) for name, dims in order
    ]
    assert bind(SYMBOLS, shapes) == {"past": 3, "seq": 2, "one": 1}


def test_symbols_of_a_graph_are_bound_by_arrays():
    text = (
        "n = dim()\nm = dim(1)\ndef f(x: f32[n, 3], y: f32[n + m], z: f32[m]):\n    return {'r': x}"
    )
    graph = parse_graph(text)
    arrays = {"x": np.zeros((2, 3)), "y": np.zeros(6), "z": np.zeros(4)}
    assert bind_symbols(graph.inputs, arrays) == {"n": 2, "m": 4}
    for wrong in itertools.combinations(arrays, 2):
        with pytest.raises(ValueError, match="no array is given"):
            bind_symbols(graph.inputs, {name: arrays[name] for name in wrong})


# -- the self-test --------------------------------------------------------------------------------


def of_self_test(rules, n, wrong):
    """A model whose test's sum is that of NumPy's outputs, with some bits of it turned."""
    x, y = (elements(i, rule, np.dtype(np.float32), n * 3) for i, rule in enumerate(rules))
    outputs = (x + y).reshape(n, 3) + np.float32(adder.WEIGHTS)
    test = SelfTest(checksum([outputs]) ^ wrong, (n,), tuple(rules))
    address, loaded = jitted(self_test=test)
    return Model(address, HOST.cpu_bits, keep=loaded)


@pytest.mark.parametrize("n", [1, 4])
def test_a_self_test(n):
    rules = [Rule(-128, 256), Rule(3, 1)]
    of_self_test(rules, n, 0).self_test()
    with pytest.raises(InternalError, match="'adder' does not pass its self-test"):
        of_self_test(rules, n, 1 << 31).self_test()


def test_no_self_test(model):
    with pytest.raises(Unsupported, match="'adder' has no self-test"):
        model.self_test()
