"""Teachers: what another model learns from, as a program of PyTorch, a ``.attar`` file, or a bank of kept outputs.

| class             | a step costs                               | for                                          |
|-------------------|--------------------------------------------|----------------------------------------------|
| :class:`Live`     | a forward pass in PyTorch                  | any augmentation, any device                 |
| :class:`Deployed` | a forward pass in ONNX Runtime, on the CPU | the same, where the teacher is a file        |
| :class:`Banked`   | a look-up                                  | counted variants and many epochs or students |

All of them are a :class:`attar.work.context.Teacher`. ``benchmarks/README.md`` has what each takes.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, fx, nn
from torch.func import functional_call
from torch.utils._pytree import tree_leaves

from attar.core.errors import SpecError
from attar.methods.distill.bank import Bank
from attar.model.capture import to_device
from attar.runtime.session import Session
from attar.train.batch import Batch
from attar.work.context import Teacher
from attar.work.learner import Learner


class Live:
    """A program of PyTorch, in evaluation mode, without gradient, in the fabric's precision.

    Args:
        program: called with the inputs of a batch. Put into evaluation mode; else left as it is, and not to be changed
            while it teaches.
        fabric: precision and device are its own.
    """

    def __init__(self, program: nn.Module, fabric: Fabric) -> None:
        self.program, self.fabric = program.eval(), fabric
        self._state: dict[str, Tensor] = {}
        if fabric.device.type != "cpu":
            # Copies there: the module itself stays where it is deployed from.
            self._state = {name: each.to(fabric.device) for name, each in _tensors(program).items()}
            if isinstance(program, fx.GraphModule):
                to_device(program, fabric.device)

    def outputs(self, batch: Batch) -> Tensor:
        """Return the first output for a batch in float32, on the fabric's device."""
        inputs = batch.to(self.fabric.device).inputs
        with torch.no_grad(), self.fabric.autocast():
            found = functional_call(self.program, self._state, inputs) if self._state else self.program(*inputs)
        first: Tensor = next(leaf for leaf in tree_leaves(found) if isinstance(leaf, Tensor))
        return first.float()

    @property
    def fingerprint(self) -> str:
        """A hash of the program, its tensors and the type it computes in."""
        kind = self.fabric.device.type
        with self.fabric.autocast():
            mixed = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.float32
        form = self.program.graph if isinstance(self.program, fx.GraphModule) else self.program
        digest = hashlib.sha256(f"{mixed}\n{form}".encode())
        for name, each in _tensors(self.program).items():
            plain = each.cpu().contiguous()
            digest.update(f"{name} {plain.dtype} {tuple(plain.shape)}".encode())
            digest.update(plain.reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()


class Deployed:
    """A ``.attar`` file, run by ONNX Runtime: in integers where the file is quantized, else in float32.

    Args:
        session: opened with as many threads as a run may use.
    """

    def __init__(self, session: Session) -> None:
        self.session = session

    def outputs(self, batch: Batch) -> Tensor:
        """Return the first output for a batch in float32, on the batch's device.

        Raises:
            DataError: the inputs are not those of the file.
        """
        ports = self.session.inputs
        if len(batch.inputs) != len(ports):
            names = ", ".join(port.name for port in ports)
            raise SpecError(f"a teacher's file takes {names}, batches have {len(batch.inputs)} inputs; take another")
        feed = {port.name: each.cpu().numpy() for port, each in zip(ports, batch.inputs, strict=True)}
        found = torch.from_numpy(np.asarray(self.session.run(feed)[self.session.outputs[0].name]))
        return found.float().to(batch.inputs[0].device)

    @property
    def fingerprint(self) -> str:
        """The file's SHA-256."""
        return self.session.artifact.sha256


class Banked:
    """A bank of what a teacher said of the training examples, and the teacher itself for all others.

    Args:
        bank: made of the feed that is trained on.
        teacher: asked where a batch does not say which examples it has, as those of validation do not.
    """

    def __init__(self, bank: Bank, teacher: Teacher) -> None:
        self.bank, self.teacher = bank, teacher

    def outputs(self, batch: Batch) -> Tensor:
        """Return the first output for a batch in float32, rounded to half precision, on the batch's device.

        Raises:
            SpecError: the batch says which examples it has and not which variants, or others than the bank's.
        """
        if batch.index is None:
            return self.teacher.outputs(batch)
        return self.bank.look_up(batch.index, batch.variant).to(batch.inputs[0].device)


def live(learner: Learner, fabric: Fabric) -> Live:
    """Return what a learner has become as a teacher; its constraints hold."""
    return Live(learner.graph(train=False), fabric)


def deployed(session: Session) -> Deployed:
    """Return an opened file as a teacher."""
    return Deployed(session)


def _tensors(program: nn.Module) -> dict[str, Tensor]:
    """Return the parameters and buffers of a program, without gradient."""
    return {name: each.detach() for name, each in [*program.named_parameters(), *program.named_buffers()]}
