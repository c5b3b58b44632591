"""Teachers: a PyTorch program, a ``.attar`` file, or a cache of outputs.

| class                    | cost of a step                            | use                                        |
|--------------------------|-------------------------------------------|--------------------------------------------|
| :class:`LiveTeacher`     | a forward pass in PyTorch                 | any augmentation, any device               |
| :class:`DeployedTeacher` | a forward pass in ONNX Runtime on the CPU | a teacher that is a file                   |
| :class:`CachedTeacher`   | a look-up                                 | few variants, many epochs or many students |

All are a ``Teacher``; only the first is an ``OpenTeacher``, whose layers can be read. ``benchmarks/README.md`` has
timings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, fx, nn
from torch.func import functional_call

from attar._src.core.digest import digest
from attar._src.core.errors import SpecError, UnknownName
from attar._src.methods.teachers.cache import TeacherCache
from attar._src.model.capture import to_device
from attar._src.model.outputs import main_output
from attar._src.model.programs import copy_graph
from attar._src.model.taps import LayerTaps
from attar._src.runtime.session import Session
from attar._src.train.batch import Batch
from attar._src.work.context import OpenTeacher, Teacher
from attar._src.work.learner import Learner


class LiveTeacher:
    """A PyTorch program in evaluation mode, without gradient, in the fabric's precision.

    Args:
        program: called with the inputs named by ``names``. It is put into evaluation mode, and should not be changed
            while it teaches.
        fabric: gives precision and device.
        names: the arguments it takes; empty if inputs are passed by position.
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
        """Return the main output for a batch, float32 on the fabric's device."""
        return self._main_output(self.program, batch)

    def look(self, batch: Batch, layers: Sequence[str]) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return main output and layer path -> output for a batch, in float32 or wider, on the fabric's device.

        Raises:
            UnknownName: a layer does not exist.
            SpecError: the program is not a captured one.
        """
        if not isinstance(self.program, fx.GraphModule):
            raise SpecError(f"layers of a {type(self.program).__name__} cannot be read; give a captured program")
        if tuple(layers) not in self._tapped:
            tapped = copy_graph(self.program)
            self._tapped[tuple(layers)] = tapped, LayerTaps(tapped, layers)
        program, taps = self._tapped[tuple(layers)]
        return self._main_output(program, batch), taps.take()

    def _main_output(self, program: nn.Module, batch: Batch) -> Tensor:
        inputs = batch.to(self.fabric.device).pick(self.names)
        with torch.no_grad(), self.fabric.autocast():
            outputs = functional_call(program, self._state, inputs) if self._state else program(*inputs)
        return main_output(outputs).float()

    @property
    def fingerprint(self) -> str:
        """Hash of the program, its tensors and the type it computes in."""
        kind = self.fabric.device.type
        with self.fabric.autocast():
            mixed = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.float32
        form = self.program.graph if isinstance(self.program, fx.GraphModule) else self.program
        return digest([str(mixed), str(form), *chain.from_iterable(_tensors(self.program).items())])


class DeployedTeacher:
    """A ``.attar`` file run by ONNX Runtime, in integers if it is quantized.

    Args:
        session: opened with the threads of the run.
    """

    def __init__(self, session: Session) -> None:
        self.session = session

    def outputs(self, batch: Batch) -> Tensor:
        """Return the main output for a batch, float32 on the batch's device.

        Raises:
            SpecError: the batch has another number of inputs than the file.
            DataError: the inputs have other names, shapes or types.
        """
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


class CachedTeacher:
    """A cache of a teacher's outputs for training examples, and the teacher itself for other examples.

    Args:
        cache: made from the feed of the training.
        teacher: computes outputs of batches without index, such as those of validation.
    """

    def __init__(self, cache: TeacherCache, teacher: Teacher) -> None:
        self.cache, self.teacher = cache, teacher

    def outputs(self, batch: Batch) -> Tensor:
        """Return the main output for a batch, float32 (cached in half precision), on the batch's device.

        Raises:
            SpecError: the batch has an index but no variants, or the cache lacks its examples or variants.
        """
        if batch.index is None:
            return self.teacher.outputs(batch)
        return self.cache.look_up(batch.index, batch.variant).to(batch.inputs[0].device)


def live_teacher(learner: Learner, fabric: Fabric) -> LiveTeacher:
    """Return a trained learner, with its constraints, as a teacher."""
    return LiveTeacher(learner.graph(train=False), fabric, learner.captured.names)


@dataclass(frozen=True)
class TeacherAnswers:
    """Outputs of teachers for a batch.

    Attributes:
        outputs: name of a model -> its main output.
        features: name of a model -> path of a module -> its output, for the requested layers.
    """

    outputs: Mapping[str, Tensor]
    features: Mapping[str, Mapping[str, Tensor]]


def ask_teachers(
    teachers: Mapping[str, Teacher], names: Sequence[str], layers: Mapping[str, Sequence[str]], batch: Batch
) -> TeacherAnswers:
    """Return the outputs of the named teachers for a batch.

    Args:
        teachers: name -> teacher.
        names: the teachers to ask.
        layers: name of a teacher -> paths of its modules to read.
        batch: the examples.

    Raises:
        SpecError: a teacher's layers cannot be read, or a layer does not exist.
    """
    outputs: dict[str, Tensor] = {}
    features: dict[str, Mapping[str, Tensor]] = {}
    for name in names:
        teacher = teachers[name]
        if not layers.get(name):
            outputs[name] = teacher.outputs(batch)
            continue
        if not isinstance(teacher, OpenTeacher):
            raise SpecError(f"teacher {name!r} is a file or a cache and has outputs only; give it as a program")
        try:
            outputs[name], features[name] = teacher.look(batch, layers[name])
        except UnknownName as error:
            raise SpecError(f"teacher {name!r}: {error}") from error
    return TeacherAnswers(outputs, features)


def _tensors(program: nn.Module) -> dict[str, Tensor]:
    """Return name -> parameter or buffer of a program, without gradient."""
    return {name: each.detach() for name, each in [*program.named_parameters(), *program.named_buffers()]}
