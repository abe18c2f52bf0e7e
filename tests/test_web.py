"""tbc.mjs, the project around it, and examples/browser: in Node.js and in headless Chromium."""

from __future__ import annotations

import base64
import functools
import http.server
import json
import queue
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import adder
import numpy as np
import numpy.typing as npt
import pytest
from digits import NETWORKS, graph_of, images, write_digits
from strategies import assert_same
from toolchain import INCLUDE, ROOT, ZIG, needs_zig, run

import tbc
from tbc.codegen.artifacts import write_artifacts
from tbc.codegen.host import resolve_target
from tbc.codegen.machine import Workers
from tbc.driver import bound_batch, write
from tbc.runtime.structs import DTYPES
from tbc.self_test import Rule, SelfTest, checksum, elements
from tbc.target import parse

Array = npt.NDArray[Any]
Json = dict[str, Any]

RUNTIME = ROOT / "runtime/src/tbc.mjs"
EXAMPLE = ROOT / "examples/browser"
WEB = ROOT / "tests/web"
TARGETS = {"simd128": "wasm32+simd128", "plain": "wasm32"}
"""Folder of the example's build -> target."""
CHROMIUM = shutil.which("chromium")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)

pytestmark = [
    needs_zig,
    pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed"),
]
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example with its networks compiled as its README says, and the tests' scripts."""
    folder = tmp_path_factory.mktemp("site")
    for path in (*EXAMPLE.iterdir(), *WEB.iterdir(), RUNTIME):
        if path.is_file():
            shutil.copy(path, folder)
    with Workers(1) as workers:
        for place, target in TARGETS.items():
            for name in NETWORKS:
                build = folder / "build" / place
                write_digits(name, resolve_target(target), build, "shared", workers=workers)
            shutil.copy(RUNTIME, folder / "build" / place)
    return folder


def encoded(array: Array) -> Json:
    return {"dtype": str(array.dtype), "data": base64.b64encode(array.tobytes()).decode()}


def decoded(found: Json, dtype: np.dtype[Any]) -> Array:
    return np.frombuffer(base64.b64decode(found["data"]), dtype).reshape(found["shape"])


def call(model: str, inputs: Mapping[str, Any], **dims: object) -> Json:
    given = {k: encoded(v) if isinstance(v, np.ndarray) else v for k, v in inputs.items()}
    return {"model": model, "inputs": given, "dims": dims}


def in_node(folder: Path, *steps: Json) -> list[Json]:
    """The answers of calls.mjs to the steps; see there."""
    for path in (RUNTIME, WEB / "calls.mjs", WEB / "node.mjs"):
        shutil.copy(path, folder)
    command = ["node", str(folder / "node.mjs")]
    done = subprocess.run(
        command, input=json.dumps(steps), capture_output=True, text=True, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    answers: list[Json] = json.loads(done.stdout)
    return answers


# -- networks -------------------------------------------------------------------------------------


def steps_of_digits() -> list[Json]:
    """All four modules at once, each with all images, one module after the other for each image."""
    steps = [
        {"load": f"{place}/{name}", "file": f"build/{place}/lib{name}.wasm"}
        for place in TARGETS
        for name in NETWORKS
    ]
    for i in range(len(images("digits_mlp"))):
        for place in TARGETS:
            for name in NETWORKS:
                steps.append(call(f"{place}/{name}", {"x": images(name)[i]}))
    return [*steps, *({"test": f"{place}/{name}"} for place in TARGETS for name in NETWORKS)]


@functools.cache
def native_logits(name: str) -> Array:
    return tbc.compile(ROOT / f"examples/digits/{name}.onnx").run({"x": images(name)})["logits"]


def check_digits(answers: list[Json]) -> None:
    """The same bits as this machine's own code gives."""
    kinds = [(place, name) for place in TARGETS for name in NETWORKS]
    models, calls, tests = answers[:4], answers[4:-4], answers[-4:]
    assert tests == [{}] * 4
    for (place, name), found in zip(kinds, models, strict=True):
        described = found["model"]
        assert (described["name"], described["target"]) == (name, TARGETS[place])
        assert described["inputs"][0]["shape"] == [1, *NETWORKS[name]]
    for number, (_, name) in enumerate(kinds):
        found = [decoded(c["outputs"]["logits"], np.dtype(np.float32)) for c in calls[number::4]]
        assert_same(np.concatenate(found), native_logits(name))


def test_digits_in_node(site: Path) -> None:
    check_digits(in_node(site, *steps_of_digits()))


def test_the_program_in_the_document(site: Path) -> None:
    (program,) = re.findall(r"^```js\n(.*?)^```$", (ROOT / "docs/web.md").read_text(), re.M | re.S)
    build = site / "build"
    shutil.copy(RUNTIME, build)
    (build / "program.mjs").write_text(program)
    done = subprocess.run(["node", "program.mjs"], capture_output=True, text=True, cwd=build)
    assert re.fullmatch(r"\[ 1, 10 \] \d\n", done.stdout), done


# -- the page -------------------------------------------------------------------------------------

LINES = [
    "128,30 170,50 180,130 165,205 128,225 90,205 76,130 88,50 128,30",
    "128,30 128,220",
    "80,80 100,40 150,40 165,80 140,140 80,220 180,220",
    "80,50 150,40 170,80 120,120 170,160 150,220 80,210",
    "120,30 75,140 190,140/155,90 155,225",
    "170,40 90,40 85,120 150,115 170,160 150,215 80,215",
    "150,30 100,80 80,150 90,210 140,220 165,180 140,140 95,150",
    "70,40 185,40 120,225",
    "128,120 90,80 128,40 165,80 90,170 128,220 165,170 128,120",
    "165,70 130,40 95,70 110,115 160,100 165,70 160,150 130,220",
]
"""By digit, strokes on the paper that show it, as polylines of SVG."""


def strokes(lines: str) -> list[list[list[int]]]:
    return [
        [[int(number) for number in point.split(",")] for point in line.split()]
        for line in lines.split("/")
    ]


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Files of a folder, and a queue for what is posted."""

    def __init__(self, *arguments: Any, posted: queue.Queue[bytes], directory: str) -> None:
        self.posted = posted
        super().__init__(*arguments, directory=directory)

    def guess_type(self, path: Any) -> str:
        return "text/javascript" if str(path).endswith(".mjs") else super().guess_type(path)

    def do_POST(self) -> None:
        self.posted.put(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        """Nothing."""


@pytest.fixture
def posted(site: Path) -> Iterator[tuple[str, queue.Queue[bytes]]]:
    """The address of a server of the site, and what is posted to it."""
    found: queue.Queue[bytes] = queue.Queue()
    handler = functools.partial(_Handler, posted=found, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", found
        server.shutdown()


@needs_chromium
def test_chromium(
    site: Path, posted: tuple[str, queue.Queue[bytes]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    steps = {"steps": steps_of_digits(), "lines": [strokes(lines) for lines in LINES]}
    (site / "steps.json").write_text(json.dumps(steps))
    without = "<head><script>WebAssembly.validate = () => false;</script>"
    (site / "plain.html").write_text((site / "index.html").read_text().replace("<head>", without))
    address, answers = posted
    profile = tmp_path_factory.mktemp("profile")
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", f"{address}/browser.html"]
    with (profile / "said").open("w+") as said:
        browser = subprocess.Popen(command, stdout=said, stderr=said)
        try:
            found = json.loads(answers.get(timeout=120))
        except queue.Empty:
            said.seek(0)
            pytest.fail(f"chromium posted nothing: {said.read()}")
        finally:
            browser.terminate()
            browser.wait()
    assert "error" not in found, found["error"]
    check_digits(found["answers"])
    assert found["features"] == {"simd128": True, "relaxed": True}
    for page, target in (("index", TARGETS["simd128"]), ("plain", TARGETS["plain"])):
        assert found[page]["digits"] == [[str(digit), ""] for digit in range(10)]
        assert found[page]["said"].startswith(f"digits_mlp, compiled for {target} by tbc")


# -- tbc.mjs --------------------------------------------------------------------------------------


def wasm(folder: Path, name: str = "adder", weights_file: str = "", **more: Any) -> Path:
    """The adder, for n from 0 to 4, as a module."""
    target = parse("wasm32")
    info = adder.info(target, name, weights_file, **more)
    made = {"obj": adder.compiled(target, info)}
    (written,) = write_artifacts(folder, info, target, made, ("shared",), None)
    return written.path


def pair(n: int) -> dict[str, Array]:
    x = np.arange(n * 3, dtype=np.float32)
    return {"x": x, "y.1": x * 2}


@pytest.mark.parametrize("n", range(5))
def test_a_size_follows_from_an_input(n: int, tmp_path: Path) -> None:
    load = {"load": "m", "file": str(wasm(tmp_path))}
    for dims in ({}, {"n": n}):
        _, found = in_node(tmp_path, load, call("m", pair(n), **dims))
        x = pair(n)["x"].reshape(n, 3)
        expected = x + x * 2 + np.array(adder.WEIGHTS, np.float32)
        assert_same(decoded(found["outputs"]["sum"], np.dtype(np.float32)), expected)


def test_wrong_calls_are_named(tmp_path: Path) -> None:
    x = pair(2)
    nan = np.full(6, np.nan, np.float32)
    wrong: list[tuple[Json, int, str]] = [
        (call("m", {"x": x["x"]}), 7, "input 'y.1' is not given"),
        (call("m", {**x, "z": x["x"]}), 7, "there is no input 'z'"),
        (
            call("m", {**x, "x": x["x"].astype(np.float64)}),
            7,
            "takes Float32Array, not Float64Array",
        ),
        (call("m", {**x, "x": "text"}), 7, "takes Float32Array, not String"),
        (call("m", {**x, "y.1": x["x"][:3]}), 5, "'y.1', float32[2,3], is given 3 elements, not 6"),
        (call("m", {**x, "x": x["x"][:5]}), 5, "is given 5 elements, not 3"),
        (call("m", x, n=1), 5, "is given 6 elements, not 3"),
        (call("m", pair(5)), 5, "the size 'n' is 5, not 0 to 4"),
        (call("m", x, n=1.5), 5, "the size 'n' is 1.5"),
        (call("m", x, k=2), 5, "there is no size 'k'"),
        (call("m", {**x, "x": nan}), 7, "an input holds a value the model cannot accept"),
    ]
    load = {"load": "m", "file": str(wasm(tmp_path))}
    _, *answers, right = in_node(tmp_path, load, *(c for c, _, _ in wrong), call("m", x))
    for found, (_, status, text) in zip(answers, wrong, strict=True):
        assert found["status"] == status, found
        assert found["message"].startswith("adder: ")
        assert text in found["message"]
    assert right["outputs"]


def test_arrays_of_numbers(tmp_path: Path) -> None:
    load = {"load": "m", "file": str(wasm(tmp_path))}
    _, found = in_node(tmp_path, load, call("m", {"x": [1, 2, 3], "y.1": [0, 0, 0.5]}))
    sums = decoded(found["outputs"]["sum"], np.dtype(np.float32))
    np.testing.assert_array_equal(sums, [[1.5, 1, 7.5]])


def test_weights_beside_the_module(tmp_path: Path) -> None:
    module = str(wasm(tmp_path, weights_file="adder.weights"))
    right, wrong, short = (tmp_path / f"{name}.weights" for name in ("right", "wrong", "short"))
    data = adder.weights(parse("wasm32"))
    right.write_bytes(data)
    wrong.write_bytes(data[:-1] + b"\1")
    short.write_bytes(data[:-1])
    load = {"load": "m", "file": module}
    steps = [load, *({**load, "weights": str(file)} for file in (wrong, short, right))]
    *refused, _, found = in_node(tmp_path, *steps, call("m", pair(1)))
    assert [answer["status"] for answer in refused] == [6, 6, 6]
    expected = pair(1)["x"] * 3 + np.array(adder.WEIGHTS, np.float32)
    assert_same(decoded(found["outputs"]["sum"], np.dtype(np.float32)), expected[None])


def test_what_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "text.wasm").write_text("no module")
    (tmp_path / "empty.wasm").write_bytes(b"\0asm\1\0\0\0")
    module = wasm(tmp_path).read_bytes()
    (tmp_path / "cut.wasm").write_bytes(module[: len(module) // 2])
    huge = wasm(tmp_path / "huge", arena_size=(1 << 32) - (1 << 16))
    files = ("missing.wasm", "text.wasm", "cut.wasm", "empty.wasm", str(huge))
    found = in_node(tmp_path, *({"load": "m", "file": file} for file in files))
    assert [answer["status"] for answer in found] == [10, 2, 2, 1, 9]
    for file, answer in zip(files[:3], found, strict=False):
        assert file in answer["message"]


def by_hand(folder: Path, *options: str) -> str:
    """tests/c/every_type.c as a module."""
    module = folder / "every.wasm"
    flags = ("-target", "wasm32-freestanding", "-std=c99", "-O1", "-nostdlib", "-fno-builtin")
    export = ("--no-entry", "--export-table", "--export=tbc_models", "--export-memory")
    linked = (f"-Wl,{flag}" for flag in export)
    source = ROOT / "tests/c/every_type.c"
    run(
        ZIG,
        "cc",
        *flags,
        "-fno-sanitize=all",
        f"-I{INCLUDE}",
        *options,
        *linked,
        source,
        "-o",
        module,
    )
    return str(module)


PROBES = """
import { supports } from "./tbc.mjs";
const asked = [];
WebAssembly.validate = (bytes) => asked.push(Buffer.from(bytes).toString("base64"));
supports("simd128");
supports("relaxed-simd");
console.log(JSON.stringify(asked));
"""


def test_probes(tmp_path: Path) -> None:
    """Each is valid just where an engine has the feature."""
    wasmtime = pytest.importorskip("wasmtime", reason="wasmtime is not installed")
    shutil.copy(RUNTIME, tmp_path)
    (tmp_path / "probes.mjs").write_text(PROBES)
    simd, relaxed = map(base64.b64decode, json.loads(run("node", tmp_path / "probes.mjs").stdout))
    valid = []
    for features in ((False, False), (True, False), (True, True)):
        config = wasmtime.Config()
        config.wasm_relaxed_simd = features[1]
        config.wasm_simd = features[0]
        engine = wasmtime.Engine(config)
        for module in (simd, relaxed):
            try:
                wasmtime.Module.validate(engine, module)
                valid.append(True)
            except wasmtime.WasmtimeError:
                valid.append(False)
    assert valid == [False, False, True, False, True, True]


def test_every_type(tmp_path: Path) -> None:
    """Also state, alignment, and an arena larger than the module's own memory."""
    draw = np.random.default_rng(0)
    types = ["f32 float32 Float32", "u8 uint8 Uint8", "i8 int8 Int8", "u16 uint16 Uint16"]
    types += ["i16 int16 Int16", "i32 int32 Int32", "i64 int64 BigInt64", "bool bool Uint8"]
    types += ["f16 float16 Uint16", "f64 float64 Float64", "u32 uint32 Uint32"]
    types += ["u64 uint64 BigUint64", "bf16 uint16 Uint16"]
    named = {name: (np.dtype(dtype), array) for name, dtype, array in map(str.split, types)}
    feeds = {
        name: np.frombuffer(draw.bytes(6 * dtype.itemsize), np.uint8).view(dtype)
        for name, (dtype, _) in named.items()
    }
    load = {"load": "m", "file": by_hand(tmp_path)}
    again, reset = call("m", feeds), {"reset": "m"}
    _, first, second, _, third = in_node(tmp_path, load, again, again, reset, again)
    for name, (dtype, array) in named.items():
        output = first["outputs"][f"of {name}"]
        assert output["type"] == f"{array}Array"
        assert decoded(output, dtype).tobytes() == feeds[name].tobytes()
        assert output["shape"] == [3, 2]
    calls = [decoded(a["outputs"]["calls"], np.dtype(np.uint32)) for a in (first, second, third)]
    assert [int(c[0]) for c in calls] == [1, 2, 1]


def test_self_test(tmp_path: Path) -> None:
    """Inputs of every type are made as Python makes them, which the model's outputs are."""
    draw = np.random.default_rng(0)
    rules = [
        Rule(0, 2)
        if t == np.bool_
        else Rule(0 if t.kind == "u" else -100, int(draw.integers(2, 128)))
        for t in DTYPES.values()
    ]
    pairs = zip(rules, DTYPES.values(), strict=True)
    inputs = [elements(i, rule, dtype, 6) for i, (rule, dtype) in enumerate(pairs)]
    total = checksum([*inputs, np.array([1], np.uint32)])
    steps = []
    for name, expected in (("right", total), ("wrong", total ^ 1)):
        (tmp_path / name).mkdir()
        words = ",".join(f"{word}u" for word in SelfTest(expected, (3,), tuple(rules)).words)
        steps.append({"load": name, "file": by_hand(tmp_path / name, f"-DTEST={words}")})
        steps += [{"test": name}] * 2
    (tmp_path / "none").mkdir()
    steps += [{"load": "none", "file": by_hand(tmp_path / "none")}, {"test": "none"}]
    _, *right, _, wrong, _, _, none = in_node(tmp_path, *steps)
    assert right == [{}, {}]
    assert (wrong["status"], none["status"]) == (11, 12)


def test_another_abi(tmp_path: Path) -> None:
    (found,) = in_node(tmp_path, {"load": "m", "file": by_hand(tmp_path, "-DABI=99")})
    assert (found["status"], "99, not" in found["message"]) == (1, True)


def test_it_agrees_with_the_header() -> None:
    header, module = (INCLUDE / "tbc.h").read_text(), RUNTIME.read_text()
    (abi,) = re.findall(r"#define TBC_ABI (\d+)u", header)
    assert f"export const ABI = {abi};" in module
    codes = dict(re.findall(r"TBC_(?:OK|ERROR_(\w+)) = (\d+)", header))
    texts = re.findall(r'case TBC_\w+: return "(.*)";', header)
    listed = re.search(r"const TEXTS = \[(.*?)\];", module, re.S)
    assert listed is not None
    assert re.findall(r'"(.*)"', listed[1]) == texts
    own = re.search(r"const STATUS = \{(.*?)\}", module, re.S)
    assert own is not None
    for name, code in re.findall(r"(\w+): (\d+)", own[1]):
        assert codes[name] == code


# -- the project ----------------------------------------------------------------------------------


def test_project(tmp_path: Path) -> None:
    """Three files; the page's script runs the model."""
    with Workers(1) as workers:
        graph, _ = bound_batch(graph_of("digits_mlp"))
        target = resolve_target("wasm32+simd128")
        write(graph, target, "digits_mlp", tmp_path, ("project",), workers, project="web")
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["index.html", "libdigits_mlp.wasm", "tbc.mjs"]
    script = re.search(
        r"<script type=\"module\">(.*)</script>", (tmp_path / "index.html").read_text(), re.S
    )
    assert script is not None
    page = "globalThis.document = {getElementById: () => ({})};"
    (tmp_path / "page.mjs").write_text(f"{script[1]}\nconsole.log(said.textContent);")
    (tmp_path / "run.mjs").write_text(f'{page}\nawait import("./page.mjs");')
    done = subprocess.run(["node", "run.mjs"], capture_output=True, text=True, cwd=tmp_path)
    assert re.fullmatch(r"logits\[1,10\]:( -?\d+\.\d+){10}\n", done.stdout), done
