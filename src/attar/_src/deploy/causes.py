"""Causes of a loss: each weight, and each value, of a compressed model rounded alone in the floating-point graph."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx, nn

from attar._src.core.tensors import CompressedTensor, Quantized
from attar._src.deploy.parity import operations, output_arrays
from attar._src.model.programs import copy_graph, set_tensor, wrap
from attar._src.model.weights import find_weights
from attar._src.report.wording import listed
from attar._src.work.calibration_inputs import BatchInputs, CalibrationInputs
from attar._src.work.compressed_model import CompressedGraph, CompressedModel, Round
from attar._src.work.dynamic_rounding import DynamicRound, round_inputs

#: Examples of a pass, if the batch of the graph may vary; fewer where all passes together, each half a run of the graph
#: on average, would need more than so many multiplications and additions.
FEW_EXAMPLES = 32
PASS_OPERATIONS = 1e11
#: Seconds that all passes together may take.
SECONDS = 3.0
#: A cause is named if its share of the error is this many times the mean share (but a quarter is enough, and a tenth
#: is required),
_TIMES = 3
#: and if those that are named, at most so many, explain this share together.
_MOST, _EXPLAINED = 3, 1 / 3
_PREFIX, _DYNAMIC = "site_", "dynamic_"


@dataclass(frozen=True)
class Cause:
    """A weight, what a layer reads, or a value, and its part of the error when each is rounded alone.

    Attributes:
        kind: in words: ``the weight``, ``the input of`` a layer, or ``the value``.
        name: of the tensor, the layer or the value.
        share: of the sum of the squared errors of all.
        bits: of a weight.
    """

    kind: str
    name: str
    share: float
    bits: int | None = None

    def words(self) -> str:
        """Return the cause in a sentence's words: ``the weight lstm.weight_hh_l0 (71%)``."""
        return f"{self.kind} {self.name} ({self.share:.0%})"


#: What to ask for where bits follow from a target.
_LARGER = "a larger target (size=, max_bytes=; a smaller max_drop=)"


@dataclass(frozen=True)
class Causes:
    """All causes, the largest first.

    Attributes:
        causes: of the error.
        examples: on which they were measured.
        left_out: how many were left out for lack of time.
        targeted: whether bits were chosen under a target, so that none can be set beside it.
    """

    causes: tuple[Cause, ...]
    examples: int
    left_out: int
    targeted: bool = False

    def main(self) -> tuple[Cause, ...]:
        """Return the few that stand out; empty if the error is spread over many."""
        stands_out = max(0.1, min(0.25, _TIMES / max(len(self.causes), 1)))
        found = tuple(cause for cause in self.causes[:_MOST] if cause.share >= stands_out)
        return found if sum(each.share for each in found) >= _EXPLAINED else ()

    def sentence(self) -> str:
        """Return which layers cause most of the error and what to write; empty if nothing was rounded."""
        if not self.causes:
            return ""
        main = self.main()
        if not main:
            spread = f"the error is spread over {len(self.causes)} weights and values, none of which stands out"
            return f"{spread}: {self._for_all()}"
        words = listed([each.words() for each in main])
        some = f"; {self.left_out} were left out for lack of time" if self.left_out else ""
        verb = "causes" if len(main) == 1 else "cause"
        told = f"rounded alone on {self.examples} examples, {words} {verb} most of the error{some}"
        return f"{told}: write {', or '.join(_fixes(main, targeted=self.targeted))}"

    def _for_all(self) -> str:
        """Return what to do for all of them: 8 is the largest number of bits."""
        bits = [each.bits for each in self.causes if each.bits is not None]
        coarse, values = any(width < 8 for width in bits), any(each.bits is None for each in self.causes)
        if coarse and self.targeted:
            return f"give {_LARGER}"
        if coarse and values:
            return "give all more bits (bits=, activations=)"
        if coarse:
            return "give all more bits (bits=)"
        if values:
            return "leave activations in floating point (without activations=), or train with their rounding (finetune)"
        return "give all more scales (granularity='group:32' or smaller)"


def find_causes(
    compressed: CompressedModel, graph: str, inputs: CalibrationInputs, output: int, *, seconds: float = SECONDS
) -> Causes:
    """Round each weight alone, and what each layer reads alone, and measure the squared error of an output.

    Args:
        compressed: the model as it will be packed.
        graph: of it.
        inputs: real ones, of which as few are used as the time allows.
        output: number of the output.
        seconds: that this may take; at least one pass is made for each weight until they are over.
    """
    of = compressed.graphs[graph]
    program, switches = _switched(of)
    parts = _parts(of, compressed.tensors, switches)
    end = time.monotonic() + seconds
    with torch.no_grad():
        batch = _few(inputs, of, len(parts))
        run = _PartialRuns(program, batch, output)
        errors = list(_errors(run, of, parts, end))
    total = sum(errors) or 1.0
    found = [
        Cause(part.kind, part.name, error / total, part.bits)
        for part, error in zip(parts, errors, strict=False)
        if error > 0
    ]
    ordered = sorted(found, key=lambda cause: -cause.share)
    targeted = any(isinstance(each.get("bits"), Mapping) for each in compressed.record)
    return Causes(tuple(ordered), inputs.count(batch), len(parts) - len(errors), targeted)


@dataclass(frozen=True)
class _Part:
    kind: str
    name: str
    tensors: Mapping[str, CompressedTensor] = field(default_factory=dict)
    switches: Mapping[str, _Switch] = field(default_factory=dict)
    bits: int | None = None


class _Switch(nn.Module):
    """Rounds, while it is on."""

    def __init__(self, rounds: nn.Module) -> None:
        super().__init__()
        self.rounds, self.on = rounds, False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rounded: torch.Tensor = self.rounds(x) if self.on else x
        return rounded


def _switched(of: CompressedGraph) -> tuple[fx.GraphModule, dict[str, _Switch]]:
    """Return a copy of the floating graph in which all that is rounded can be, and the switches by submodule."""
    program = copy_graph(of.traced.graph)
    values = {name: _Switch(Round(grid)) for name, grid in of.activations.items() if name in of.rounded}
    wrap(program, values, _PREFIX)
    read = {name: _Switch(DynamicRound(rows=name in of.rows)) for name in of.dynamic}
    round_inputs(program, read, _DYNAMIC)
    named = ((_PREFIX, values), (_DYNAMIC, read))
    return program, {prefix + name: switch for prefix, found in named for name, switch in found.items()}


def _parts(
    of: CompressedGraph, tensors: Mapping[str, CompressedTensor], switches: Mapping[str, _Switch]
) -> list[_Part]:
    """Return each compressed weight, with what was changed beside it (its bias), and what each layer reads."""
    weights = find_weights(of.traced.graph)
    nodes = {node.name: node for node in of.traced.graph.graph.nodes}
    found, seen = [], set[str]()
    for name, weight in weights.items():
        if name not in tensors:
            continue
        owner = name.rpartition(".")[0]
        own = {n: t for n, t in tensors.items() if n not in weights and n.rpartition(".")[0] == owner}
        tensor = tensors[name]
        bits = tensor.scheme.bits if isinstance(tensor, Quantized) else 8
        found.append(_Part("the weight", name, {name: tensor, **own}, bits=bits))
        read = [each for reader in weight.readers for each in _rounded_by(nodes[reader], switches)]
        read = [each for each in dict.fromkeys(read) if each not in seen]
        seen.update(read)
        if read:
            found.append(_Part("the input of", owner or name, switches={each: switches[each] for each in read}))
    rest = {name: switch for name, switch in switches.items() if name not in seen}
    return found + [_Part("the value", name.removeprefix(_PREFIX), switches={name: rest[name]}) for name in rest]


def _rounded_by(node: fx.Node, switches: Mapping[str, _Switch]) -> Iterator[str]:
    """Yield the switches of what a node reads, also of values behind operators that only move them."""
    if _DYNAMIC + node.name in switches:
        yield _DYNAMIC + node.name
    todo, seen = list(node.all_input_nodes), set[fx.Node]()
    while todo:
        each = todo.pop()
        if _PREFIX + each.name in switches:
            yield _PREFIX + each.name
        elif each not in seen and len(each.all_input_nodes) == 1:
            todo.extend(each.all_input_nodes)
        seen.add(each)


def _few(inputs: CalibrationInputs, of: CompressedGraph, passes: int) -> BatchInputs:
    """Return the examples of each pass."""
    if not of.traced.any_batch:
        return inputs.batches[0]
    batch = inputs.example(FEW_EXAMPLES)
    one = operations(of.traced.graph, inputs.part(batch, 0, 2)) / min(inputs.count(batch), 2)
    return inputs.part(batch, 0, max(1, int(2 * PASS_OPERATIONS / max(one * passes, 1))))


class _PartialRuns(fx.Interpreter):
    """Runs of a program on one batch, of what follows a change; the rest keeps its values of the first run."""

    def __init__(self, program: fx.GraphModule, batch: BatchInputs, output: int) -> None:
        super().__init__(program, garbage_collect_values=False)
        self.program, self.index = program, output
        self.wanted = self._array(self.run(*batch))
        self.known = self.env

    def difference(self, changed: Collection[str]) -> NDArray[np.float64]:
        """Return how an output differs from that of the first run; ``changed``: tensors and modules of the program."""
        found = set[fx.Node]()
        for node in self.graph.nodes:
            own = node.op in ("get_attr", "call_module") and str(node.target) in changed
            if own or not found.isdisjoint(node.all_input_nodes):
                found.add(node)
        kept = {node: value for node, value in self.known.items() if node not in found and node.op != "output"}
        return self._array(self.run(initial_env=kept)) - self.wanted

    def _array(self, outputs: Any) -> NDArray[np.float64]:
        return output_arrays(outputs)[self.index].astype(np.float64)


def _errors(run: _PartialRuns, of: CompressedGraph, parts: Sequence[_Part], end: float) -> Iterator[float]:
    """Yield the squared error of each part rounded alone, until ``end``."""
    state = of.traced.state()
    for part in parts:
        if time.monotonic() > end:
            return
        with _rounded(run.program, part, state):
            difference = run.difference({*part.tensors, *part.switches})
        yield float(np.square(difference[np.isfinite(difference)]).sum())


@contextmanager
def _rounded(program: fx.GraphModule, part: _Part, state: Mapping[str, torch.Tensor]) -> Iterator[None]:
    for name, tensor in part.tensors.items():
        if name in state:
            set_tensor(program, name, torch.from_numpy(np.array(tensor.dense())))
    for switch in part.switches.values():
        switch.on = True
    try:
        yield
    finally:
        for name in part.tensors.keys() & state.keys():
            set_tensor(program, name, state[name])
        for switch in part.switches.values():
            switch.on = False


def _fixes(causes: Sequence[Cause], *, targeted: bool) -> list[str]:
    """Return what to write: more bits where there are fewer than 8, floating point for the rest."""
    coarse = {each.name: 8 for each in causes if each.bits is not None and each.bits < 8}
    weights = tuple(each.name for each in causes if each.bits is not None)
    values = tuple(each.name for each in causes if each.bits is None)
    found = [_LARGER if targeted else f"overrides={coarse!r} for 8 bits"] if coarse else []
    kept = [f"keep={weights!r}"] if weights else []
    kept += [f"keep_activations={values!r}"] if values else []
    return [*found, f"{' and '.join(kept)} for floating point"] if kept else found
