"""A decoded file on examples that calibration does not see."""

from __future__ import annotations

from pathlib import Path

from attar._src.artifact.limits import Limits
from attar._src.methods.allocate.judge import Judge, OutputError
from attar._src.runtime.session import Session
from attar._src.work.calibration_inputs import CalibrationInputs


def judge_file(path: Path, judge: Judge, held: CalibrationInputs, limits: Limits | None) -> OutputError:
    """Return how far the outputs of a file on ``held`` are from the reference of ``judge``."""
    session = Session(path, limits=limits)
    names, main = [port.name for port in session.inputs], session.main_output
    return judge.judge(
        session.run({name: tensor.numpy() for name, tensor in zip(names, batch, strict=True)})[main]
        for batch in held.batches
    )
