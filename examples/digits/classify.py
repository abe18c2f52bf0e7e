"""Classifies the held-out digits with both networks, compiled by tbc and run by onnxruntime."""

import argparse
import sys
from pathlib import Path

import numpy as np
import onnxruntime

import tbc

HERE = Path(__file__).parent
NETWORKS = {"digits_mlp": (64,), "digits_cnn": (1, 8, 8)}  # the shape of one image


def reference(path: Path, x: np.ndarray) -> np.ndarray:
    """What onnxruntime computes when it takes the graph as it stands."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"x": x})[0]


def classify(name: str, pixels: np.ndarray, labels: np.ndarray, save: Path | None) -> bool:
    """Prints how one network fares; false if tbc and onnxruntime disagree on any image."""
    path = HERE / f"{name}.onnx"
    x = (pixels / np.float32(16)).reshape(-1, *NETWORKS[name])
    model = tbc.compile(path, threads=1)
    if save:
        model.save(save / name)
    logits = model.run({"x": x})["logits"]
    expected = reference(path, x)

    predicted = logits.argmax(axis=1)
    differing = np.count_nonzero(predicted != expected.argmax(axis=1))
    print(f"{name}: {np.mean(predicted == labels):.2%} of {len(labels)} images correct")
    print(f"  first ten   {predicted[:10]}, labels {labels[:10]}")
    error = np.abs(logits - expected).max()
    print(f"  onnxruntime {differing} labels differ, logits within {error:.1e}")
    return differing == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target-dir", type=Path, help="also save the compiled networks here")
    save = parser.parse_args().target_dir
    pixels, labels = np.load(HERE / "test_images.npy"), np.load(HERE / "test_labels.npy")
    agreed = [classify(name, pixels, labels, save) for name in NETWORKS]
    return 0 if all(agreed) else 1


if __name__ == "__main__":
    sys.exit(main())
