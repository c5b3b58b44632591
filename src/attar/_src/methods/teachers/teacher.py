"""Teachers: what another model learns from, as a program of PyTorch, a ``.attar`` file, or a cache of kept outputs.

| class             | a step costs                               | for                                          |
|-------------------|--------------------------------------------|----------------------------------------------|
| :class:`Live`     | a forward pass in PyTorch                  | any augmentation, any device                 |
| :class:`Deployed` | a forward pass in ONNX Runtime, on the CPU | the same, where the teacher is a file        |
| :class:`Banked`   | a look-up                                  | counted variants and many epochs or students |

All of them are a ``Teacher``; only the first can be looked into, being an
``Open``. ``benchmarks/README.md`` has what each takes.
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
    """A program of PyTorch, in evaluation mode, without gradient, in the fabric's precision.

    Args:
        program: called with the inputs of a batch that ``names`` has. Put into evaluation mode; else left as it is,
            and not to be changed while it teaches.
        fabric: precision and device are its own.
        names: the arguments it takes; none where they are given by position.
    """

    def __init__(self, program: nn.Module, fabric: Fabric, names: Sequence[str] = ()) -> None:
        self.program, self.fabric, self.names = program.eval(), fabric, tuple(names)
        self._state: dict[str, Tensor] = {}
        if fabric.device.type != "cpu":
            # Copies there: the module itself stays where it is deployed from.
            self._state = {name: each.to(fabric.device) for name, each in _tensors(program).items()}
            if isinstance(program, fx.GraphModule):
                to_device(program, fabric.device)
        self._tapped: dict[tuple[str, ...], tuple[fx.GraphModule, LayerTaps]] = {}

    def outputs(self, batch: Batch) -> Tensor:
        """Return the main output for a batch in float32, on the fabric's device."""
        return self._first(self.program, batch)

    def look(self, batch: Batch, layers: Sequence[str]) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return the main output for a batch and the values of layers, in at least float32, on the fabric's device.

        Raises:
            UnknownName: there is no such layer.
            SpecError: the program is not a captured one, whose layers are not known.
        """
        if not isinstance(self.program, fx.GraphModule):
            raise SpecError(f"a {type(self.program).__name__} is no captured program; its layers are not known")
        if tuple(layers) not in self._tapped:
            tapped = copy_graph(self.program)
            self._tapped[tuple(layers)] = tapped, LayerTaps(tapped, layers)
        program, taps = self._tapped[tuple(layers)]
        return self._first(program, batch), taps.take()

    def _first(self, program: nn.Module, batch: Batch) -> Tensor:
        inputs = batch.to(self.fabric.device).pick(self.names)
        with torch.no_grad(), self.fabric.autocast():
            found = functional_call(program, self._state, inputs) if self._state else program(*inputs)
        return main_output(found).float()

    @property
    def fingerprint(self) -> str:
        """A hash of the program, its tensors and the type it computes in."""
        kind = self.fabric.device.type
        with self.fabric.autocast():
            mixed = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.float32
        form = self.program.graph if isinstance(self.program, fx.GraphModule) else self.program
        return digest([str(mixed), str(form), *chain.from_iterable(_tensors(self.program).items())])


class DeployedTeacher:
    """A ``.attar`` file, run by ONNX Runtime: in integers where the file is quantized, else in float32.

    Args:
        session: opened with as many threads as a run may use.
    """

    def __init__(self, session: Session) -> None:
        self.session = session

    def outputs(self, batch: Batch) -> Tensor:
        """Return the main output for a batch in float32, on the batch's device.

        Raises:
            DataError: the inputs are not those of the file.
        """
        names = [port.name for port in self.session.inputs]
        inputs = batch.pick(names)
        if len(inputs) != len(names):
            raise SpecError(
                f"a teacher's file takes {', '.join(names)}, batches have {len(inputs)} inputs; take another"
            )
        feed = {name: each.cpu().numpy() for name, each in zip(names, inputs, strict=True)}
        found = torch.from_numpy(np.asarray(self.session.run(feed)[self.session.main_output]))
        return found.float().to(batch.inputs[0].device)

    @property
    def fingerprint(self) -> str:
        """The file's SHA-256."""
        return self.session.artifact.sha256


class CachedTeacher:
    """A cache of what a teacher said of the training examples, and the teacher itself for all others.

    Args:
        cache: made of the feed that is trained on.
        teacher: asked where a batch does not say which examples it has, as those of validation do not.
    """

    def __init__(self, cache: TeacherCache, teacher: Teacher) -> None:
        self.cache, self.teacher = cache, teacher

    def outputs(self, batch: Batch) -> Tensor:
        """Return the main output for a batch in float32, rounded to half precision, on the batch's device.

        Raises:
            SpecError: the batch says which examples it has and not which variants, or others than the cache's.
        """
        if batch.index is None:
            return self.teacher.outputs(batch)
        return self.cache.look_up(batch.index, batch.variant).to(batch.inputs[0].device)


def live_teacher(learner: Learner, fabric: Fabric) -> LiveTeacher:
    """Return what a learner has become as a teacher; its constraints hold."""
    return LiveTeacher(learner.graph(train=False), fabric, learner.captured.names)


def deployed_teacher(session: Session) -> DeployedTeacher:
    """Return an opened file as a teacher."""
    return DeployedTeacher(session)


@dataclass(frozen=True)
class TeacherAnswers:
    """What teachers say of a batch.

    Attributes:
        outputs: name of a model -> its main output.
        features: name of a model -> path of a module -> its value, where that was asked for.
    """

    outputs: Mapping[str, Tensor]
    features: Mapping[str, Mapping[str, Tensor]]


def ask_teachers(
    teachers: Mapping[str, Teacher], names: Sequence[str], layers: Mapping[str, Sequence[str]], batch: Batch
) -> TeacherAnswers:
    """Return what the teachers of some names say of a batch.

    Args:
        teachers: those there are.
        names: those that are asked.
        layers: name of a teacher -> the paths of modules it shall show.
        batch: the examples.

    Raises:
        SpecError: a teacher cannot be looked into, or has no such layer.
    """
    outputs: dict[str, Tensor] = {}
    features: dict[str, Mapping[str, Tensor]] = {}
    for name in names:
        teacher = teachers[name]
        if not layers.get(name):
            outputs[name] = teacher.outputs(batch)
            continue
        if not isinstance(teacher, OpenTeacher):
            raise SpecError(f"teacher {name!r} shows outputs alone, being a file or a cache; give it as a program")
        try:
            outputs[name], features[name] = teacher.look(batch, layers[name])
        except UnknownName as error:
            raise SpecError(f"teacher {name!r}: {error}") from error
    return TeacherAnswers(outputs, features)


def _tensors(program: nn.Module) -> dict[str, Tensor]:
    """Return the parameters and buffers of a program, without gradient."""
    return {name: each.detach() for name, each in [*program.named_parameters(), *program.named_buffers()]}
