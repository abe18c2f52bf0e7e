"""Makes the words, trains the network on them, and writes the files here that are no source.

    python train.py

in an environment with requirements.txt installed, where espeak-ng 1.51 is, takes some minutes on
one core. Seeds and the number of threads are fixed, so a second run on the same machine writes the
same bytes. The voices of the held-out clips are none that the network was trained on.
"""

import argparse
from pathlib import Path

import network
import numpy as np
import onnxruntime
import torch
from features import HERE, RATE, features
from speech import CLASSES, OTHERS, UNHEARD, WORDS, clip, spoken, ulaw, voices
from streaming import STATES, keywords
from torch import Tensor, nn

HELD_OUT_VOICES = 18
EACH, SHOWN = 400, 10
"""Clips of a word to train on; held-out clips of a class that are kept in this folder."""
SAID = (0, 4, 8, 10, 11)
"""The classes of the clips in speech.ulaw, a second each."""
BATCH, LEARNING_RATE = 100, 3e-3


def utterances(words: list[str], voices: list[str], rng: np.random.Generator) -> list[np.ndarray]:
    """Words, each by a random voice."""
    return [spoken(word, str(rng.choice(voices)), rng) for word in words]


def clips(each: int, noises: int, others: list[str], voices: list[str], seed: int) -> tuple:
    """Samples i16 [n, 16192] and class numbers [n]: of a word `each` times `noises`."""
    rng = np.random.default_rng(seed)
    found = []
    for number, word in enumerate(WORDS):
        for x in utterances([word] * each, voices, rng):
            found += [(clip(x, rng), number) for _ in range(noises)]
    unknown = [others[i % len(others)] for i in range(each * 3)]
    found += [(clip(x, rng), len(WORDS)) for x in utterances(unknown, voices, rng)]
    found += [(clip(None, rng), len(WORDS) + 1) for _ in range(each)]
    samples, labels = zip(*found, strict=True)
    return np.stack(samples), np.array(labels)


def heard(samples: np.ndarray) -> np.ndarray:
    """Features i8 [n, 20, 50] of clips."""
    return np.stack([features(each).T for each in samples])


def train(model: nn.Module, x: Tensor, y: Tensor, epochs: int) -> None:
    """Fits a network to the last scores of clips, which are moved by up to three frames."""
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, weight_decay=0.01)
    steps = epochs * (len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    model.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(x))[: len(x) // BATCH * BATCH].view(-1, BATCH):
            given = x[batch][:, :, : x.shape[2] - int(torch.randint(0, 4, ()))]
            loss = nn.functional.cross_entropy(
                model(given)[:, :, -1], y[batch], label_smoothing=0.05
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()


def accuracy(model: nn.Module, x: Tensor, y: np.ndarray) -> float:
    with torch.no_grad():
        scores = torch.cat([model(part)[:, :, -1] for part in x.split(200)])
    return float((scores.argmax(1).numpy() == y).mean())


def streamed(model: bytes, x: np.ndarray) -> np.ndarray:
    """The last scores of each clip, f32 [n, 12], by onnxruntime, frame after frame."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    shapes = {
        i.name: (i.shape, np.int8 if i.name == "past0" else np.uint8) for i in session.get_inputs()
    }
    state = {name: np.zeros(*shapes[name]) for name in STATES}
    found = []
    for each in x:
        for frame in each.T:
            scores, *new = session.run(None, {"features": frame[None, :, None], **state})
            state = dict(zip(STATES, new, strict=True))
        found.append(scores[0, :, 0])
    return np.array(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--output", type=Path, default=HERE)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)

    names = np.random.default_rng(0).permutation(voices()).tolist()
    strangers, known = names[:HELD_OUT_VOICES], names[HELD_OUT_VOICES:]
    samples, y = clips(EACH, 2, list(OTHERS), known, 1)
    x = heard(samples)
    test_samples, labels = clips(EACH // 5, 1, [*OTHERS[::2], *UNHEARD], strangers, 2)
    test = heard(test_samples)
    print(
        f"{len(known)} voices, {len(x)} clips; held out {len(strangers)} voices, {len(test)} clips"
    )

    given, unseen = (torch.from_numpy(each).float() / 32 for each in (x, test))
    models = {}
    for name, low_bit in (("float", False), ("ternary", True)):
        torch.manual_seed(0)
        models[name] = network.Keywords(low_bit)
        train(models[name], given, torch.from_numpy(y), arguments.epochs)
        print(f"{name}: {accuracy(models[name], unseen, labels):.1%}", flush=True)

    proto = keywords(models["ternary"].constants())
    scores = streamed(proto.SerializeToString(), test)
    print(f"onnxruntime: {(scores.argmax(1) == labels).mean():.1%}, {proto.ByteSize()} bytes")
    (arguments.output / "keywords.onnx").write_bytes(proto.SerializeToString())
    shown = np.concatenate([np.nonzero(labels == c)[0][:SHOWN] for c in range(len(CLASSES))])
    np.savez_compressed(
        arguments.output / "held_out.npz",
        features=test[shown],
        labels=labels[shown].astype(np.uint8),
    )
    said = np.concatenate([test_samples[np.nonzero(labels == c)[0][0]][-RATE:] for c in SAID])
    (arguments.output / "speech.ulaw").write_bytes(ulaw(said).tobytes())


if __name__ == "__main__":
    main()
