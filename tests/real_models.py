"""Networks of others that pip ships, in `build/models`, and inputs that look like theirs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

Array = npt.NDArray[Any]

FOLDER = Path(__file__).parent.parent / "build/models"
IS_THERE = (FOLDER / "fetched").exists()
ABSENT = f"the networks are not in {FOLDER}: run `make models`"

_SILERO = FOLDER / "silero_vad/data"
_OCR = FOLDER / "rapidocr_onnxruntime/models"
F = np.float32


@dataclass(frozen=True)
class RealModel:
    """A network.

    Attributes:
        path: its file.
        feeds: inputs of a usual size.
        fixed: those of the feeds that a program would compile in.
    """

    name: str
    path: Path
    feeds: Mapping[str, Array]
    fixed: tuple[str, ...] = field(default=())

    def session(self) -> onnxruntime.InferenceSession:
        """onnxruntime on one thread."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        return onnxruntime.InferenceSession(
            str(self.path), options, providers=["CPUExecutionProvider"]
        )


def speech(samples: int, rate: int, batch: int = 1) -> Array:
    """f32[batch, samples]: harmonics of a gliding voice in syllables, over noise."""
    time = np.arange(samples) / rate
    signal = np.zeros((batch, samples))
    for row in range(batch):
        pitch = 110 * (1 + row / 4) * (1 + 0.2 * np.sin(2 * np.pi * 1.3 * time))
        phase = 2 * np.pi * np.cumsum(pitch) / rate
        voice = sum(np.sin(h * phase) / h for h in range(1, 20))
        syllables = np.clip(np.sin(2 * np.pi * 4 * time + row), 0, 1)
        signal[row] = 0.2 * voice * syllables
    return (signal + np.random.default_rng(samples).normal(0, 0.01, signal.shape)).astype(F)


def page(batch: int, height: int, width: int) -> Array:
    """f32[batch, 3, height, width] from -1 to 1: dark strokes in lines on light paper."""
    rng = np.random.default_rng(height * width)
    image = np.full((batch, 1, height, width), 0.9)
    image += rng.normal(0, 0.03, image.shape)
    for top in range(8, height - 16, 32):
        for left in range(8, width - 12, 14):
            image[:, :, top : top + 16, left : left + 3] = -0.8
            row = top + int(rng.integers(0, 14))
            image[:, :, row : row + 3, left : left + 10] = -0.8
    return np.repeat(image, 3, axis=1).clip(-1, 1).astype(F)


def text_bytes(batch: int) -> Array:
    """i32[batch, 2048]: what magika reads of a file, its first and its last 1024 bytes."""
    source = np.frombuffer(Path(__file__).read_bytes(), np.uint8).astype(np.int32)
    ends = [(source[row : row + 1024], source[-1024 - row :][:1024]) for row in range(batch)]
    return np.stack([np.concatenate(both) for both in ends])


def _silero() -> list[RealModel]:
    windows = {"input": speech(576, 16000), "state": np.zeros((2, 1, 128), F)}
    rate = {"sr": np.array(16000)}
    sequence = {"input": windows["input"], **{n: np.zeros((1, 1, 128), F) for n in "hc"}}
    feeds: dict[str, tuple[dict[str, Array], tuple[str, ...]]] = {
        "silero_vad": ({**windows, **rate}, ("sr",)),
        "silero_vad_16k_op15": ({**windows, **rate}, ("sr",)),
        "silero_vad_half": (windows, ()),
        "silero_vad_op18_ifless": ({**windows, **rate}, ("sr",)),
        "silero_vad_openvino_16k": (windows, ()),
        "silero_vad_16k_sequence": (sequence, ()),
    }
    return [RealModel(n, _SILERO / f"{n}.onnx", f, fixed) for n, (f, fixed) in feeds.items()]


REAL_MODELS = {
    m.name: m
    for m in (
        *_silero(),
        RealModel("magika", FOLDER / "magika/models/standard_v3_3/model.onnx",
                  {"bytes": text_bytes(1)}),
        RealModel("ocr_direction", _OCR / "ch_ppocr_mobile_v2.0_cls_infer.onnx",
                  {"x": page(1, 48, 192)}),
        RealModel("ocr_detection", _OCR / "ch_PP-OCRv4_det_infer.onnx", {"x": page(1, 128, 160)}),
        RealModel("ocr_recognition", _OCR / "ch_PP-OCRv4_rec_infer.onnx", {"x": page(1, 48, 160)}),
    )
}  # fmt: skip
"""By name."""
