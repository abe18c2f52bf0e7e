"""Compiles a network for this machine and for 64-bit Arm, runs it, and checks what it computes.

python demo.py [FOLDER]     # for what is written; by default out/ beside examples/
"""

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
from rich.console import Console
from rich.table import Table

import tbc

HERE = Path(__file__).parent
MODEL = HERE / "digits" / "digits_mlp.onnx"
TARGETS = ("native", "armv8")
ALWAYS = ("obj", "static", "header")


def session(level: onnxruntime.GraphOptimizationLevel) -> onnxruntime.InferenceSession:
    """The model in onnxruntime, on one thread."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(MODEL, options, providers=["CPUExecutionProvider"])


def save(target: str, out: Path) -> tuple[list[Path], str]:
    """Compiles for a target; the files, and why there is no shared library among them."""
    model = tbc.compile(MODEL, target=target)
    folder = out / f"{MODEL.stem}-{target}"
    try:
        return list(model.save(folder, (*ALWAYS, "shared"))), ""
    except tbc.Unsupported as error:
        return list(model.save(folder, ALWAYS)), f"no shared library: {error.reason}"


def verified(target: str, images: np.ndarray) -> tuple[bool, str]:
    """Whether the target's code is right on the images, and how that was found."""
    try:
        report = tbc.verify(MODEL, target=target, feeds={"x": images})
    except tbc.Unsupported as error:
        return True, f"compiled, not run: {error.reason}"
    (output,) = report.outputs
    code = "bit-exact" if output.code.is_exact else f"{output.code.max_ulp} ulp off"
    verdict = "agrees with" if report.ok else "[bold red]DISAGREES[/] with"
    text = f"run by {report.runner}: {code}, {verdict} {report.oracle}"
    flips = f", {sum(f.count for f in report.flips)} flipped codes" if report.flips else ""
    return report.ok, f"{text} within {output.model.max_abs:.1e}{flips}"


def microseconds(runs: list[Callable[[], object]]) -> list[float]:
    """The median time of each call, measured in short turns so that all meet the same machine."""
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(60):
        for run, found in zip(runs, times, strict=True):
            start = time.perf_counter()
            for _ in range(50):
                run()
            found.append((time.perf_counter() - start) / 50 * 1e6)
    return [statistics.median(found) for found in times]


def main(out: Path) -> int:
    screen = Console(highlight=False, soft_wrap=True)
    pixels = np.load(HERE / "digits" / "test_images.npy")
    labels = np.load(HERE / "digits" / "test_labels.npy")
    images = pixels / np.float32(16)

    screen.print(f"[bold]tbc {tbc.__version__}[/]: {MODEL.name}, three layers of ternary weights")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column, justify in (("file", "left"), ("bytes", "right")):
        table.add_column(column, justify=justify)
    table.add_row(MODEL.name, f"{MODEL.stat().st_size:,}")
    notes, ok = [], True
    for target in TARGETS:
        with screen.status(f"compiling for {target}"):
            files, note = save(target, out)
        for file in files:
            table.add_row(str(file.relative_to(out.parent)), f"{file.stat().st_size:,}")
        notes += [f"{target}: {note}"] if note else []
    screen.print(table)

    with screen.status("running"):
        logits = tbc.compile(MODEL).run({"x": images})["logits"]
        expected = session(onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL).run(
            None, {"x": images}
        )[0]
    for who, scores in (("tbc", logits), ("onnxruntime", expected)):
        right = np.count_nonzero(scores.argmax(axis=1) == labels)
        screen.print(
            f"{who}: {right} of {len(labels)} held-out images right ({right / len(labels):.2%})"
        )
    for target in TARGETS:
        with screen.status(f"verifying {target}"):
            fine, text = verified(target, images)
        ok &= fine
        screen.print(f"{target}: {text}")

    with screen.status("measuring"):
        one = {"x": np.ascontiguousarray(images[:1])}
        compiled = tbc.compile(MODEL, dims={"batch": 1})
        fastest = session(onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL)
        mine, theirs = microseconds([lambda: compiled.run(one), lambda: fastest.run(None, one)])
    screen.print(
        f"one image, one thread, from Python: tbc {mine:.1f} µs, onnxruntime {theirs:.1f} µs "
        f"({theirs / mine:.1f} times)"
    )
    for note in notes:
        screen.print(f"[yellow]{note}[/]")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if sys.argv[1:] else HERE.parent / "out"))
