"""Trains both networks and writes every file of this folder that is not source.

Run `python train.py` in an environment with requirements.txt installed; it takes a minute on one
core. Seeds and the number of threads are fixed, so a second run on the same machine writes the
same bytes.
"""

from pathlib import Path

import models
import numpy as np
import onnx
import onnxruntime
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

HERE = Path(__file__).parent
HELD_OUT = 360
BATCH = 64
LEARNING_RATE = 1e-2
NETWORKS = {
    # name: the network, the shape of one image, epochs
    "digits_mlp": (models.digits_mlp, (64,), 300),
    "digits_cnn": (models.digits_cnn, (1, 8, 8), 150),
}


def shifted(images: Tensor) -> Tensor:
    """Each image of [n, 8, 8] moved by -1, 0 or 1 pixels along both axes."""
    n = len(images)
    padded = nn.functional.pad(images, (1, 1, 1, 1))
    top, left = torch.randint(0, 3, (2, n, 1))
    rows, columns = top + torch.arange(8), left + torch.arange(8)
    return padded[torch.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]


def train(model: nn.Module, shape: tuple[int, ...], epochs: int, x: Tensor, y: Tensor) -> None:
    """Fits `model` to images [n, 8, 8] and labels [n]; every second batch or so is shifted."""
    batches = len(x) // BATCH
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE, total_steps=epochs * batches
    )
    model.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(x))[: batches * BATCH].view(batches, BATCH):
            images = shifted(x[batch]) if torch.rand(()) < 0.5 else x[batch]
            logits = model(images.reshape(-1, *shape))
            loss = nn.functional.cross_entropy(logits, y[batch], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


def export(model: nn.Module, shape: tuple[int, ...], path: Path) -> None:
    """Writes `model` as one self-contained ONNX file with a dynamic batch axis."""
    program = torch.onnx.export(
        model,
        (torch.rand(2, *shape),),
        input_names=["x"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        dynamo=True,
        verbose=False,
    )
    proto = program.model_proto
    graph = proto.graph
    # The exporter records stack traces with paths of the machine that ran it.
    for item in (proto, graph, *graph.node, *graph.input, *graph.output, *graph.value_info):
        del item.metadata_props[:]
    for item in (*graph.node, *graph.initializer):
        item.doc_string = ""
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, path)


def logits_of(path: Path, x: np.ndarray) -> np.ndarray:
    """What onnxruntime computes when it takes the graph as it stands."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def c_header(images: np.ndarray, labels: np.ndarray) -> str:
    """The test set as C arrays: images uint8 [n, 64] in 0..16, labels uint8 [n]."""
    n, pixels = images.shape
    rows = ",\n".join("    {" + ",".join(map(str, image)) + "}" for image in images)
    lines = ",\n".join("    " + ",".join(map(str, part)) for part in np.split(labels, n // 40))
    return f"""/* Held-out digits, written by train.py: pixels from 0 to 16, row by row. */
#ifndef TEST_DIGITS_H
#define TEST_DIGITS_H

#include <stdint.h>

#define TEST_DIGITS {n}
#define TEST_PIXELS {pixels}

static const uint8_t test_images[TEST_DIGITS][TEST_PIXELS] = {{
{rows}
}};

static const uint8_t test_labels[TEST_DIGITS] = {{
{lines}
}};

#endif
"""


def main() -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    digits = load_digits()
    images, test_images, labels, test_labels = train_test_split(
        digits.images.astype(np.uint8),
        digits.target.astype(np.uint8),
        test_size=HELD_OUT,
        stratify=digits.target,
        random_state=0,
    )
    test_images = test_images.reshape(HELD_OUT, 64)
    np.save(HERE / "test_images.npy", test_images)
    np.save(HERE / "test_labels.npy", test_labels)
    (HERE / "test_digits.h").write_text(c_header(test_images, test_labels))

    x, y = torch.tensor(images) / 16.0, torch.tensor(labels).long()
    for name, (build, shape, epochs) in NETWORKS.items():
        torch.manual_seed(0)
        model = build()
        train(model, shape, epochs, x, y)
        frozen = models.freeze(model)
        path = HERE / f"{name}.onnx"
        export(frozen, shape, path)

        test = (test_images / np.float32(16)).reshape(HELD_OUT, *shape)
        with torch.no_grad():
            expected = frozen(torch.tensor(test)).numpy()
        actual = logits_of(path, test)
        differing = np.count_nonzero(actual.argmax(1) != expected.argmax(1))
        if differing:
            raise SystemExit(f"{name}: onnxruntime and PyTorch disagree on {differing} images")
        correct = np.count_nonzero(actual.argmax(1) == test_labels)
        print(
            f"{name}: {correct} of {HELD_OUT} correct ({correct / HELD_OUT:.2%}), "
            f"{path.stat().st_size} bytes, onnxruntime within "
            f"{np.abs(actual - expected).max():.1e} of PyTorch"
        )


if __name__ == "__main__":
    main()
