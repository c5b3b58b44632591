"""What the cases share: a quantized file beside its floating module."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

import attar


@dataclass
class File:
    """A quantized module, its report and its open file."""

    quantized: Any
    report: dict[str, Any]
    session: Any

    @property
    def reasons(self) -> dict[str, str]:
        """Layers that do not run in integers -> why."""
        return {layer.name: layer.reason for layer in self.session.layers if not layer.integer}


def quantized(net, data, folder, **options) -> File:
    """The file of a module, 8 bits for weights and activations."""
    result = attar.quantize(net, data, **{"bits": 8, "activations": 8, **options})
    report = result.save(folder / "m.attar")
    return File(result, report, attar.Session(folder / "m.attar"))


def run(session, *inputs) -> list[Any]:
    """The outputs of a file on several inputs."""
    found = session.run({port.name: x.numpy() for port, x in zip(session.inputs, inputs, strict=True)})
    return list(found.values()) if isinstance(found, dict) else [found]


def decibels(wanted, got) -> float:
    """The signal-to-noise ratio of an output."""
    wanted, got = (np.asarray(torch.as_tensor(each).detach(), np.float64) for each in (wanted, got))
    return float(10 * np.log10((wanted**2).mean() / max(((wanted - got) ** 2).mean(), 1e-300)))
