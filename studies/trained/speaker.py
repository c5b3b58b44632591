"""Speaker verification: the voice encoder of Resemblyzer (three-layer LSTM), equal-error rate on synthesized voices."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from sources import captions, package_folder
from torch import nn

RATE, FRAMES, MELS, WINDOW, HOP = 16_000, 160, 40, 400, 160
#: Variants of eSpeak NG's English voice: the first ones calibrate, the rest are tested.
VOICES = """
Adam Alex Alicia Andrea Andy Annie antonio aunty belinda benjamin boris caleb david Denis Diogo ed edward Gene
Gustave Henrique Hugo iven Jacky john kaukovalta linda marcelo Marco Mario max michael michel miguel mike Mr Nguyen
pablo paul pedro quincy rob robert steph Storm travis victor zac anika grandpa norbert sandro shelby f1 f2 f3 f4 f5
m1 m2 m3 m4 m5 m6 m7 m8 klatt klatt2 klatt3 klatt4 croak
""".split()  # noqa: SIM905
CALIBRATION, UTTERANCES = 16, 12
METRIC = "equal-error rate, %"


class VoiceEncoder(nn.Module):
    """Mel spectrograms ``(N, 160, 40)`` -> embeddings ``(N, 256)`` of length 1."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(MELS, 256, 3, batch_first=True)
        self.linear = nn.Linear(256, 256)

    def forward(self, mels: torch.Tensor) -> torch.Tensor:
        _, (hidden, _) = self.lstm(mels)
        embedded = torch.relu(self.linear(hidden[-1]))
        return embedded / torch.norm(embedded, dim=1, keepdim=True)


def module() -> nn.Module:
    """Return the encoder with the weights that the package ``resemblyzer`` carries."""
    path = package_folder("resemblyzer") / "pretrained.pt"
    state = torch.load(path, map_location="cpu", weights_only=True)["model_state"]
    encoder = VoiceEncoder()
    encoder.load_state_dict({name: value for name, value in state.items() if not name.startswith("similarity")})
    return encoder.eval()


def inputs() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the mel spectrograms for calibration and those for the test, speaker by speaker."""
    texts = captions(len(VOICES) * UTTERANCES)
    jobs = [(VOICES[place // UTTERANCES], text) for place, text in enumerate(texts)]
    with ThreadPoolExecutor(2) as pool:
        mels = np.stack(list(pool.map(lambda job: _spectrogram(*job), jobs)))
    cut = CALIBRATION * UTTERANCES
    return mels[:cut], mels[cut:]


def score(embedded: NDArray[np.float32]) -> float:
    """Return the equal-error rate over all pairs of utterances."""
    similar = embedded @ embedded.T
    speakers = np.repeat(np.arange(len(embedded) // UTTERANCES), UTTERANCES)
    pairs = np.triu_indices(len(embedded), 1)
    scores, same = similar[pairs], (speakers[:, None] == speakers)[pairs]
    order = np.argsort(-scores, kind="stable")
    hit = np.cumsum(same[order]) / same.sum()
    false = np.cumsum(~same[order]) / (~same).sum()
    place = int(np.argmin(np.abs(false - (1 - hit))))
    return float(50 * (false[place] + 1 - hit[place]))


def _spectrogram(voice: str, text: str) -> NDArray[np.float32]:
    """Say a text and return its mel spectrogram (power, Slaney's filters), 1.6 s from its loudest part."""
    said = subprocess.run(["espeak-ng", "-v", f"en+{voice}", "--stdout", text], capture_output=True, check=True).stdout
    sound = np.frombuffer(said[44:], "<i2").astype(np.float64) / 32768  # 22,050 samples a second
    places = np.arange(0, len(sound) - 1, 22_050 / RATE)
    sound = np.interp(places, np.arange(len(sound)), sound)
    sound *= 10 ** (-30 / 20) / max(float(np.sqrt(np.mean(sound**2))), 1e-9)
    padded = np.pad(sound, WINDOW // 2, mode="constant")
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    power = np.abs(np.fft.rfft(frames * window, axis=1)) ** 2
    mels = power @ _filters().T
    start = max(0, (len(mels) - FRAMES) // 2)
    mels = mels[start : start + FRAMES]
    return np.pad(mels, ((0, FRAMES - len(mels)), (0, 0))).astype(np.float32)


def _filters() -> NDArray[np.float64]:
    """Return Slaney's mel filters of equal area, ``(40, 201)``."""
    step = np.log(6.4) / 27

    def hertz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp(step * (mel - 15)))

    top = 15 + np.log(RATE / 2 / 1000) / step
    edges = hertz(np.linspace(0, top, MELS + 2))
    bins = np.linspace(0, RATE / 2, WINDOW // 2 + 1)
    slopes = edges[:, None] - bins
    width = np.diff(edges)
    rising, falling = -slopes[:-2] / width[:-1, None], slopes[2:] / width[1:, None]
    triangles = np.maximum(0, np.minimum(rising, falling))
    return triangles * (2 / (edges[2:] - edges[:-2]))[:, None]
