"""Teachers: a PyTorch program, a ``.attar`` file, or a cache of outputs. Only a program's layers can be read."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, fx, nn
from torch.func import functional_call

from attar._src.core.digest import digest
from attar._src.core.errors import SpecError
from attar._src.methods.teachers.cache import TeacherCache
from attar._src.model.interface import flatten_outputs, main_output
from attar._src.model.programs import copy_graph, to_device
from attar._src.model.taps import LayerTaps
from attar._src.runtime.session import Session
from attar._src.train.batch import Batch
from attar._src.work.context import Look, OpenTeacher, Teacher
from attar._src.work.learner import Learner


class LiveTeacher(OpenTeacher):
    """A PyTorch program in evaluation mode, without gradient, in the fabric's precision.

    Args:
        program: should not be changed while it teaches.
        fabric: gives precision and device.
        names: the arguments the program takes; empty if inputs are passed by position.
    """

    def __init__(self, program: nn.Module, fabric: Fabric, names: Sequence[str] = ()) -> None:
        self.program, self.fabric, self.names = program.eval(), fabric, tuple(names)
        self._state: dict[str, Tensor] = {}
        if fabric.device.type != "cpu":
            # Copies, because the module itself stays on the CPU, from which it is deployed.
            self._state = {name: each.to(fabric.device) for name, each in _tensors(program).items()}
            if isinstance(program, fx.GraphModule):
                to_device(program, fabric.device)
        self._tapped: dict[tuple[str, ...], tuple[fx.GraphModule, LayerTaps]] = {}

    def outputs(self, batch: Batch) -> Tensor:
        return main_output(self._outputs(self.program, batch)).float()

    def look(self, batch: Batch, layers: Sequence[str]) -> Look:
        if layers and not isinstance(self.program, fx.GraphModule):
            raise SpecError(f"layers of a {type(self.program).__name__} cannot be read; give a captured program")
        program, taps = self._with_taps(tuple(layers))
        outputs = self._outputs(program, batch)
        return Look(main_output(outputs).float(), flatten_outputs(outputs), {} if taps is None else taps.take())

    def _with_taps(self, layers: tuple[str, ...]) -> tuple[nn.Module, LayerTaps | None]:
        if not layers or not isinstance(self.program, fx.GraphModule):
            return self.program, None
        if layers not in self._tapped:
            tapped = copy_graph(self.program)
            self._tapped[layers] = tapped, LayerTaps(tapped, layers)
        return self._tapped[layers]

    def _outputs(self, program: nn.Module, batch: Batch) -> Any:
        inputs = batch.to(self.fabric.device).pick(self.names)
        with torch.no_grad(), self.fabric.autocast():
            return functional_call(program, self._state, inputs) if self._state else program(*inputs)

    @property
    def fingerprint(self) -> str:
        """Hash of the program, its tensors and the type it computes in."""
        kind = self.fabric.device.type
        with self.fabric.autocast():
            mixed = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.float32
        form = self.program.graph if isinstance(self.program, fx.GraphModule) else self.program
        return digest([str(mixed), str(form), *chain.from_iterable(_tensors(self.program).items())])


class DeployedTeacher(Teacher):
    """A ``.attar`` file run by ONNX Runtime on the CPU, in integers if it is quantized."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def outputs(self, batch: Batch) -> Tensor:
        names = [port.name for port in self.session.inputs]
        inputs = batch.pick(names)
        if len(inputs) != len(names):
            raise SpecError(
                f"the file of a teacher takes {', '.join(names)} and batches have {len(inputs)} inputs; use another"
            )
        feed = {name: each.cpu().numpy() for name, each in zip(names, inputs, strict=True)}
        output = torch.from_numpy(np.asarray(self.session.run(feed)[self.session.main_output]))
        return output.float().to(batch.inputs[0].device)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the file."""
        return self.session.artifact.sha256


class CachedTeacher(Teacher):
    """A cache of a teacher's outputs for training examples; the teacher itself for batches without an index."""

    def __init__(self, cache: TeacherCache, teacher: Teacher) -> None:
        self.cache, self.teacher = cache, teacher

    def outputs(self, batch: Batch) -> Tensor:
        if batch.index is None:
            return self.teacher.outputs(batch)
        return self.cache.look_up(batch.index, batch.variant).to(batch.inputs[0].device)


def live_teacher(learner: Learner, fabric: Fabric) -> LiveTeacher:
    """Return a trained learner, with its constraints, as a teacher."""
    return LiveTeacher(learner.graph(train=False), fabric, learner.captured.names)


def _tensors(program: nn.Module) -> dict[str, Tensor]:
    return {name: each.detach() for name, each in [*program.named_parameters(), *program.named_buffers()]}
