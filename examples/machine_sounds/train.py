"""Trains the network and writes every file of this folder that is not source.

    python train.py

in an environment with requirements.txt installed takes some minutes on one core. Seeds and the
number of threads are fixed, so a second run on the same machine writes the same bytes.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
from network import AutoEncoder, exported
from sounds import FAULTS, MACHINES, STEP, auc, clip, codes, log_mel, windows
from torch import Tensor, nn

HERE = Path(__file__).parent
Codes = npt.NDArray[np.uint8]
Scores = dict[str, npt.NDArray[np.float64]]
SEEN = 60
"""Clips of a machine to train on, all of them normal."""
UNSEEN = 1000
"""The first seed of clips to try."""
HELD_OUT = 20
"""Clips of a machine to try, normal ones and of each fault."""
EPOCHS = 40
BATCH = 256
LEARNING_RATE = 2e-3


def train(model: AutoEncoder, x: Tensor) -> None:
    """Fits a network to windows."""
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, weight_decay=1e-4)
    steps = EPOCHS * (len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    model.train()
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(x))[: len(x) // BATCH * BATCH].view(-1, BATCH):
            loss = nn.functional.mse_loss(model(x[batch]), x[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()


def features(given: Codes) -> Tensor:
    """Windows of codes in standard deviations, as the exported network takes them."""
    return (torch.from_numpy(given).float() - 128) * STEP


def score(model: AutoEncoder, given: Codes) -> float:
    """A clip's: the mean of its windows' errors."""
    x = features(given)
    with torch.no_grad():
        return float(nn.functional.mse_loss(model(x), x))


def report(name: str, score_of: Callable[[Codes], float], tried: dict[str, list[Codes]]) -> Scores:
    """Print the AUC of each fault, and of all; the scores by fault."""
    scores = {fault: np.array([score_of(c) for c in clips]) for fault, clips in tried.items()}
    normal = scores[""]
    found = {fault: auc(normal, scores[fault]) for fault in FAULTS}
    found["all"] = auc(normal, np.concatenate([scores[fault] for fault in FAULTS]))
    print(f"{name}:", ", ".join(f"{fault} {value:.3f}" for fault, value in found.items()))
    return scores


def main() -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    machines = range(MACHINES)
    seen = [log_mel(clip(machine, seed)) for machine in machines for seed in range(SEEN)]
    every = np.concatenate(seen)
    bands = np.stack([every.mean(0), every.std(0)]).astype(np.float32)

    def given(machine: int, seed: int, fault: str = "") -> Codes:
        return windows(codes(log_mel(clip(machine, seed, fault)), *bands))

    x = features(np.concatenate([windows(codes(frames, *bands)) for frames in seen]))
    unseen = range(UNSEEN, UNSEEN + HELD_OUT)
    tried = {
        fault: [given(machine, seed, fault) for machine in machines for seed in unseen]
        for fault in ("", *FAULTS)
    }
    models = {}
    for name, low_bit in (("float", False), ("ternary", True)):
        torch.manual_seed(0)
        models[name] = AutoEncoder(low_bit)
        train(models[name], x)
        report(name, partial(score, models[name]), tried)

    proto = exported(models["ternary"])
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )

    def run(given: Codes) -> float:
        return float(np.mean([session.run(None, {"codes": window[None]})[0] for window in given]))

    scores = report("onnxruntime", run, tried)
    threshold = np.quantile(scores[""], 0.9)
    found = np.mean(np.concatenate([scores[fault] for fault in FAULTS]) > threshold)
    print(
        f"{proto.ByteSize()} bytes; {found:.0%} of the faults above {threshold:.3f}, 10% of others"
    )
    (HERE / "machine_sounds.onnx").write_bytes(proto.SerializeToString())
    np.save(HERE / "bands.npy", bands)
    shown = [codes(log_mel(clip(0, UNSEEN, fault)), *bands) for fault in ("", *FAULTS)]
    (HERE / "clips.bin").write_bytes(np.stack(shown).tobytes())


if __name__ == "__main__":
    main()
