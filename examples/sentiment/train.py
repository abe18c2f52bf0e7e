"""Trains the network and writes every file of this folder that is not source.

    pip download --no-deps vaderSentiment==0.5
    python train.py vaderSentiment-0.5.zip

in an environment with requirements.txt installed takes some minutes on one core. Seeds and the
number of threads are fixed, so a second run on the same machine writes the same bytes.
"""

import argparse
import io
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import network
import numpy as np
import onnxruntime
import torch
from sentences import HERE, MOST, numbers, tokens
from torch import Tensor, nn

SOURCES = ("movieReviewSnippets", "amazonReviewSnippets")
ARCHIVE = "vaderSentiment-0.5/additional_resources/hutto_ICWSM_2014.tar.gz"
CLEAR = 0.5
"""The least |mean rating|, of -4 to 4, of a sentence that is taken to say something."""
HELD_OUT = 500
WORDS = 2048
BATCH = 64
LEARNING_RATE = 1.5e-3


def rated(path: Path) -> list[tuple[int, str]]:
    """Each sentence with 1 where its readers found it good, in the order of the files."""
    found: dict[str, int] = {}
    with zipfile.ZipFile(path) as package:
        packed = io.BytesIO(package.read(ARCHIVE))
    with tarfile.open(fileobj=packed) as archive:
        names = [f"hutto_ICWSM_2014/{source}_GroundTruth.txt" for source in SOURCES]
        files = [archive.extractfile(name).read().decode("latin-1") for name in names]
    for file in files:
        for line in file.splitlines():
            _, rating, text = line.split("\t", 2)
            text = " ".join("".join(c if " " <= c <= "~" else " " for c in text).split())
            if abs(float(rating)) >= CLEAR and 3 <= len(tokens(text)) <= MOST:
                found[text] = int(float(rating) > 0)
    return [(good, text) for text, good in found.items()]


def split(sentences: list[tuple[int, str]]) -> tuple[list, list]:
    """Those to train on, and `HELD_OUT` others, as many good ones as bad ones."""
    order = np.random.default_rng(0).permutation(len(sentences))
    taken: set[int] = set()
    for good in (0, 1):
        taken |= set([i for i in order if sentences[i][0] == good][: HELD_OUT // 2])
    return (
        [sentences[i] for i in order if i not in taken],
        [sentences[i] for i in order if i in taken],
    )


def padded(sentences: list[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Token numbers [n, longest], and which of them there are."""
    longest = max(map(len, sentences))
    x = torch.zeros(len(sentences), longest, dtype=torch.long)
    there = torch.zeros(len(sentences), longest, dtype=torch.bool)
    for i, sentence in enumerate(sentences):
        x[i, : len(sentence)] = torch.from_numpy(sentence)
        there[i, : len(sentence)] = True
    return x, there


def train(model: nn.Module, x: list[np.ndarray], y: Tensor, epochs: int) -> None:
    """Fits a network to sentences; a tenth of the words is hidden, each time others."""
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, weight_decay=0.05)
    steps = epochs * (len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    weight = 0.5 / torch.stack([(y == 0).float().mean(), (y == 1).float().mean()])
    model.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(x))[: len(x) // BATCH * BATCH].view(-1, BATCH):
            numbers, there = padded([x[i] for i in batch])
            numbers = numbers * (torch.rand(numbers.shape) > 0.1)
            scores = model(numbers, there)
            loss = nn.functional.cross_entropy(scores, y[batch], weight, label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()


def right(model: nn.Module, x: list[np.ndarray], y: np.ndarray) -> int:
    """How many sentences a network takes for what they are."""
    with torch.no_grad():
        scores = [model(*padded([sentence]))[0].numpy() for sentence in x]
    return int(np.count_nonzero(np.argmax(scores, axis=1) == y))


def scores_of(model: bytes, x: list[np.ndarray]) -> np.ndarray:
    """What onnxruntime computes when it takes the graph as it stands, f32 [n, 2]."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"tokens": sentence})[0] for sentence in x])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("package", type=Path, help="vaderSentiment-0.5.zip")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--output", type=Path, default=HERE)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)

    seen, unseen = split(rated(arguments.package))
    counts = Counter(token for _, text in seen for token in tokens(text))
    frequent = sorted(counts, key=lambda token: (-counts[token], token))[: WORDS - 1]
    words = ["", *sorted(frequent)]
    x, test = ([numbers(text, words) for _, text in part] for part in (seen, unseen))
    y, labels = (np.array([good for good, _ in part]) for part in (seen, unseen))

    models = {}
    for name, low_bit in (("float", False), ("ternary", True)):
        torch.manual_seed(0)
        models[name] = network.Sentiment(len(words), low_bit)
        train(models[name], x, torch.from_numpy(y), arguments.epochs)
        good = right(models[name], test, labels)
        print(f"{name}: {good} of {HELD_OUT} right ({good / HELD_OUT:.1%}), {len(x)} to train on")

    proto = network.exported(models["ternary"])
    scores = scores_of(proto.SerializeToString(), test)
    good = np.count_nonzero(scores.argmax(1) == labels)
    print(f"onnxruntime: {good} of {HELD_OUT} right, {proto.ByteSize()} bytes")
    (arguments.output / "sentiment.onnx").write_bytes(proto.SerializeToString())
    (arguments.output / "words.inc").write_text("".join(f'"{word}",\n' for word in words))
    lines = (f"{good}\t{text}\n" for good, text in unseen)
    (arguments.output / "held_out.tsv").write_text("".join(lines))


if __name__ == "__main__":
    main()
