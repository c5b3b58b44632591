"""The reconstruction of one graph: its blocks in order, then the whole network."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from attar._src.core.errors import SpecError
from attar._src.methods.quantize.ptq.reconstruct.blocks import Block, extract, free_values
from attar._src.methods.quantize.ptq.reconstruct.code_budget import CodeBudget
from attar._src.methods.quantize.ptq.reconstruct.feeding import (
    endless_batches,
    held_out,
    in_small_parts,
    parts_that_judge,
    shuffled,
)
from attar._src.methods.quantize.ptq.reconstruct.fit import (
    BatchValues,
    BlockFit,
    NetworkFit,
    Rates,
    output_loss,
)
from attar._src.methods.quantize.ptq.reconstruct.judging import Errors
from attar._src.methods.quantize.ptq.reconstruct.learned import Learned, LearnedWeight, Mode, set_mode
from attar._src.methods.quantize.ptq.reconstruct.network import LearnedNetwork
from attar._src.methods.quantize.ptq.reconstruct.rerounding import reround
from attar._src.methods.quantize.ptq.reconstruct.scores import ClassScores
from attar._src.model.operators import is_floating
from attar._src.train.augment import Augmentation
from attar._src.train.seeds import derive_seed
from attar._src.work.calibration_inputs import CalibrationInputs

#: Factor of AdaRound's regulariser where the error of the block at the start is 1.
REGULARISER = 1000.0
#: Learning rate of scales, vectors and grids while the network is trained; faster ones do harm.
_OTHERS = 5e-4


@dataclass(frozen=True)
class StepCounts:
    """What is done: training steps of each block and of the network; whether blocks are rounded again before."""

    block: int
    network: int
    reround: bool = False

    @property
    def visits_blocks(self) -> bool:
        """Whether anything is done with a block."""
        return self.block > 0 or self.reround


@dataclass(frozen=True)
class Unit:
    """What became of a block or of the network: its error before and after, whichever is kept, and seconds."""

    name: str
    before: float
    after: float
    seconds: float


class Reconstruction:
    """The blocks and the network of one graph, with the inputs that they are trained on.

    In memory are the inputs, and what one block reads and makes for all of them, in the quantized and in the
    floating-point network.

    Args:
        network: changed in place.
        scores: the output that has scores, None if none has.
        lr: learning rate of the codes while the network is trained.
    """

    def __init__(
        self,
        network: LearnedNetwork,
        inputs: CalibrationInputs,
        batch: int,
        augment: Sequence[Augmentation],
        scores: ClassScores | None,
        lr: float,
        seed: int,
    ) -> None:
        self.network, self.batch, self.augment, self.seed = network, batch, augment, seed
        self.rates = Rates(codes=lr, scales=_OTHERS, vectors=_OTHERS, grids=_OTHERS)
        self.inputs = inputs.of_one_size() if network.fixed_batch else shuffled(inputs, batch, seed)
        self.held_out = held_out(self.inputs)
        if not network.fixed_batch:
            self.inputs, self.held_out = in_small_parts(self.inputs, self.held_out)
        graph = network.graph
        self.blocks = network.blocks
        self.free = free_values(graph, self.blocks)
        made = _floating_outputs(graph, network.outputs)
        self._returned = list(dict.fromkeys(made.values()))
        self._loss = output_loss({self._returned.index(made[scores.output]): scores} if scores else {})
        _mark_shared(network)

    @cached_property
    def _program(self) -> fx.GraphModule:
        inputs = [node for node in self.network.graph.graph.nodes if node.op == "placeholder"]
        program, _ = extract(self.network.graph, inputs, self._returned)
        return program

    def floating(self, batch: BatchValues) -> BatchValues:
        """Return the outputs in floating point; modules keep their modes."""
        parts = list(self.network.parts.values())
        modes = [part.mode for part in parts]
        set_mode(parts, Mode.FLOATING)
        with torch.no_grad():
            made: BatchValues = self._program(*batch)
        for part, mode in zip(parts, modes, strict=True):
            part.mode = mode
        return made

    def errors(self) -> Errors:
        """Return the losses of the network as it is stored."""
        set_mode(self.network.parts.values(), Mode.STORED)
        return self._network_fit().errors()

    def seconds_of_step(self) -> float:
        """Return how long a step of the network takes, measured on one."""
        kept, begun = [part.v for part in self.network.weights.values()], 0.0
        for weight in self.network.weights.values():
            weight.straighten()
        fit = self._network_fit()
        set_mode(self.network.parts.values(), Mode.STRAIGHT)
        for _ in range(2):  # the first one allocates
            begun = time.perf_counter()
            batch = self.inputs.batches[0]
            fit.loss(fit.program(*batch), self.floating(batch)).backward()
        taken = time.perf_counter() - begun
        for part in self.network.parts.values():
            part.zero_grad()
        for weight, v in zip(self.network.weights.values(), kept, strict=True):
            weight.v = v
        set_mode(self.network.parts.values(), Mode.STORED)
        return taken

    def run(
        self, steps: StepCounts, drop: float, done: int, tick: Callable[[int], None], budget: CodeBudget | None = None
    ) -> Iterator[Unit]:
        """Yield the blocks from number ``done`` on, and at last the network; what they learned is stored by then.

        Args:
            budget: of all codes, if their bytes are counted; each block then keeps to what it takes.
            tick: called with the work of each step, 1 for that of a block and their number for that of the network.
        """
        network = self.network
        for number, (block, fit) in enumerate(self._fits(done) if steps.visits_blocks else ()):
            if number < done:
                continue
            begun, seed = time.perf_counter(), derive_seed(self.seed, number)
            if budget:
                fit = replace(fit, budget=CodeBudget([each for each in fit.parts if isinstance(each, LearnedWeight)]))
            errors: list[float] = []
            if steps.reround:
                errors += reround(fit, network.products, network.weights, network.vectors)
            if steps.block:
                rates = _block_rates(steps.block)
                errors += fit.run(steps.block, rates, REGULARISER, drop, seed, lambda: tick(1))
            yield Unit(_name_of(block), errors[0], errors[-1], time.perf_counter() - begun)
        if steps.network and done <= (len(self.blocks) if steps.visits_blocks else 0):
            begun = time.perf_counter()
            before, after = self.run_network(steps.network, lambda: tick(len(self.blocks)), budget)
            yield Unit("network", before, after, time.perf_counter() - begun)

    def run_network(self, steps: int, tick: Callable[[], None], budget: CodeBudget | None) -> tuple[float, float]:
        """Train the whole network, and keep what is better; return its error before and after."""
        for part in self.network.parts.values():
            part.shared = False
        return self._network_fit(budget).run(self._batches(), steps, self.rates, tick)

    def _fits(self, done: int) -> Iterator[tuple[Block, BlockFit]]:
        """Yield the blocks with their values; those of the next follow from what the modules store by then."""
        graph, modules = self.network.graph, self.network.modules
        quantized: dict[str, list[Tensor]] = {}
        names = sorted({name for each in self.blocks for name in each.inputs} - _made(self.blocks))
        with torch.no_grad():
            free = [self.free(*batch) for batch in self.inputs.batches]
        quantized = {name: [values[place] for values in free] for place, name in enumerate(names)}
        floating = dict(quantized)
        del free
        for number, block in enumerate(self.blocks):
            parts = list(dict.fromkeys(modules[name] for name in block.modules if name in modules))
            of_quantized, of_floating = (
                list(zip(*(values[name] for name in block.inputs), strict=True)) for values in (quantized, floating)
            )
            wanted = _outputs(block.program, parts, Mode.FLOATING, of_floating)
            set_mode(parts, Mode.STORED)
            yield block, BlockFit(block.program, parts, of_quantized, of_floating, wanted, self.held_out)
            made = _outputs(block.program, parts, Mode.STORED, of_quantized)
            later = {name for each in self.blocks[number + 1 :] for name in each.inputs}
            for values, new in ((quantized, made), (floating, wanted)):
                for place, name in enumerate(block.outputs):
                    values[name] = [each[place] for each in new]
                for name in values.keys() - later:
                    del values[name]
        graph.eval()

    def _network_fit(self, budget: CodeBudget | None = None) -> NetworkFit:
        program = self._program
        trained, judging = (
            [self.inputs.batches[k] for k in places]
            for places in parts_that_judge(len(self.inputs.batches), self.held_out)
        )
        parts = list(self.network.parts.values())
        return NetworkFit(program, self.floating, parts, self._loss, trained, judging, budget)

    def _batches(self) -> Iterator[BatchValues]:
        trained = self.inputs.batches[: len(self.inputs.batches) - self.held_out]
        given = CalibrationInputs(trained, axes=self.inputs.axes)
        seed = derive_seed(self.seed, "network")
        return endless_batches(given, self.batch, self.augment, seed, mixes=not self.network.fixed_batch)


def _block_rates(steps: int) -> Rates:
    """Return the learning rates of blocks: fewer steps are longer ones, as v and the scales have the same way to go."""
    return Rates(
        codes=float(np.clip(40 / steps, 0.01, 0.2)),
        scales=float(np.clip(2 / steps, 1e-3, 1e-2)),
        vectors=2e-3,
        grids=2e-3,
    )


def _floating_outputs(graph: fx.GraphModule, names: Sequence[str]) -> dict[str, fx.Node]:
    """Return the floating-point outputs that a graph computes, by name.

    Raises:
        SpecError: there are none.
    """
    returned: Any = graph.graph.output_node().args[0]
    nodes = [returned] if isinstance(returned, fx.Node) else returned
    found = {
        name: node for name, node in zip(names, nodes, strict=True) if is_floating(node) and node.op != "placeholder"
    }
    if not found:
        raise SpecError(
            "reconstruct compares outputs, and those of this module are integers; let it return the scores that they "
            "are chosen from, or leave reconstruct out"
        )
    return found


def _mark_shared(network: LearnedNetwork) -> None:
    """Mark the modules that several blocks use."""
    modules, seen = network.modules, set[Learned]()
    for block in network.blocks:
        used = {modules[name] for name in block.modules if name in modules}
        for part in used & seen:
            part.shared = True
        seen |= used


def _made(blocks: Sequence[Block]) -> set[str]:
    return {name for block in blocks for name in block.outputs}


def _outputs(
    program: fx.GraphModule, parts: Sequence[Learned], mode: Mode, batches: Sequence[BatchValues]
) -> list[BatchValues]:
    set_mode(parts, mode)
    with torch.no_grad():
        return [program(*batch) for batch in batches]


def _name_of(block: Block) -> str:
    return " ".join(block.outputs)
