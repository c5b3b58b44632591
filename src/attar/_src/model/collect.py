"""Collect statistics of values of a graph: all that is requested in as few passes over the data as possible."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar

import torch
from torch import fx
from torch.fx.node import map_arg
from torch.utils._pytree import tree_leaves

from attar._src.core.errors import ModelError, UnknownName
from attar._src.core.progress import track
from attar._src.model.statistics import Statistic
from attar._src.model.weights import LayerInput

_K = TypeVar("_K", bound=Hashable)

#: How many bytes the accumulators of one block may have together, by default.
BLOCK_BYTES = 1 << 30
#: How many bytes the values of all batches may have that wait for their readers when all batches run in step.
STEP_BYTES = 1 << 28


@dataclass(frozen=True)
class Request:
    """A statistic of a value. Equal requests share it.

    Attributes:
        values: names of values of the graph; several count as one (a site has one range for all its sources).
        kind: of the statistic.
        arguments: of ``kind``, after the statistics that it depends on.
    """

    values: tuple[str, ...]
    kind: type[Statistic]
    arguments: tuple[Any, ...] = ()

    @classmethod
    def of_input(cls, read: LayerInput, kind: type[Statistic]) -> Request:
        """Return the request for a statistic of what a layer's weight multiplies."""
        return cls(read.values, kind, kind.arguments(read.window))

    def before(self) -> tuple[Request, ...]:
        """Return the requests that this one depends on."""
        return tuple(Request(self.values, kind) for kind in self.kind.after)

    def level(self) -> int:
        """Return the pass that can serve it, counted from 0."""
        return max((1 + each.level() for each in self.before()), default=0)

    def whole(self) -> list[Request]:
        """Return this request after all that it depends on."""
        return [*_whole(self.before()), self]

    def start(self, seen: Mapping[Request, Statistic]) -> Statistic:
        """Return the empty statistic."""
        make: Callable[..., Statistic] = self.kind
        return make(*(seen[each] for each in self.before()), *self.arguments)


class Clip:
    """Bounds of a value while statistics are collected, as its grid will clip it.

    Attributes:
        low, high: the bounds.
        elements, outside: how many elements there were in the last pass, and how many of them outside.
        furthest: the one of them with the largest magnitude.
    """

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high
        self.reset()

    def reset(self) -> None:
        """Forget what was counted."""
        self.elements, self.outside, self.furthest = 0, 0, 0.0

    def apply(self, x: torch.Tensor) -> torch.Tensor:
        """Return a batch of the value within the bounds, and count what was outside."""
        beyond = x[((x < self.low) | (x > self.high)) & torch.isfinite(x)]
        self.elements += x.numel()
        if beyond.numel():
            self.outside += beyond.numel()
            self.furthest = max(self.furthest, float(beyond[beyond.abs().argmax()]), key=abs)
        return x.clamp(self.low, self.high)


def collect(
    graph: fx.GraphModule,
    wanted: Mapping[_K, Sequence[Request]],
    batches: Sequence[Sequence[torch.Tensor]],
    what: str,
    *,
    memory: int = BLOCK_BYTES,
    clips: Mapping[str, Clip] = MappingProxyType({}),
) -> Iterator[tuple[_K, tuple[Statistic, ...]]]:
    """Run real inputs through a graph, and yield each key with its statistics as soon as they are complete.

    One pass over the data serves a block of keys, two passes if a statistic depends on another (a histogram on its
    range). While the values that wait for their readers fit into STEP_BYTES, all batches run in step, node by node, and
    such a statistic of one value follows at once. A block is full when its accumulators need more than ``memory``; a
    larger key has a block of its own. Keep only the needed parts of what is yielded: statistics that are still referred
    to stay in memory. Keys without requests come first, before any pass.

    Args:
        graph: in evaluation mode; it is not changed.
        wanted: what the requests are for (a layer, a site) -> the requests; all of one key are in one block.
        batches: each the positional inputs of the graph.
        what: a word or two about the work, for the progress bar.
        memory: bytes for the accumulators of a block.
        clips: value of the graph -> its bounds, for statistics and for all that is computed from it.

    Raises:
        ModelError: a value has only NaN or infinities, or its squares overflow; it is named.
        UnknownName: the graph has no such value.
    """
    names = {node.name for node in graph.graph.nodes}
    for name in (name for requests in wanted.values() for request in requests for name in request.values):
        if name not in names:
            raise UnknownName("value of the graph", name, names)
    blocks = list(_blocks(wanted, memory))
    count = sum(len(_passes(wanted, keys, in_step=False)) for keys in blocks) * len(batches)
    # What the caller does with a key counts as a step, too: a weight may be solved for longer than all inputs run.
    count += len(wanted)
    with closing(track(range(count), what)) as ticks:
        for keys in blocks:
            seen = _statistics(graph, wanted, keys, batches, clips, ticks)
            _check_finite(seen)
            for key in keys:
                yield key, tuple(seen[request] for request in wanted[key])
                next(ticks, None)
        next(ticks, None)


def _statistics(
    graph: fx.GraphModule,
    wanted: Mapping[_K, Sequence[Request]],
    keys: Sequence[_K],
    batches: Sequence[Sequence[torch.Tensor]],
    clips: Mapping[str, Clip],
    ticks: Iterator[int],
) -> dict[Request, Statistic]:
    """Return the statistics of one block: of all batches in step if that saves a pass and their values fit."""

    def run(*, in_step: bool) -> dict[Request, Statistic]:
        seen: dict[Request, Statistic] = {}
        for requests in _passes(wanted, keys, in_step=in_step):
            recorder = _Recorder(graph, requests, seen, clips, STEP_BYTES if len(batches) > 1 else None)
            first = in_step and not seen
            for group in [batches] if first else [[batch] for batch in batches]:
                recorder.run_all(group, ticks)
        return seen

    if len(_passes(wanted, keys, in_step=False)) > 1:
        try:
            return run(in_step=True)
        except _TooLarge:
            pass
    return run(in_step=False)


def _blocks(wanted: Mapping[_K, Sequence[Request]], memory: int) -> Iterator[list[_K]]:
    """Yield the keys of each block in their order, those without requests first."""
    yield [key for key, requests in wanted.items() if not requests]
    block: list[_K] = []
    held: set[Request] = set()
    for key, requests in wanted.items():
        whole = set(_whole(requests))
        if block and whole - held and sum(each.kind.nbytes(*each.arguments) for each in held | whole) > memory:
            yield block
            block, held = [], set()
        if requests:
            block.append(key)
            held |= whole
    yield block


def _passes(wanted: Mapping[_K, Sequence[Request]], keys: Sequence[_K], *, in_step: bool) -> list[list[Request]]:
    """Return the requests that each pass over the data serves, each after those it depends on."""
    passes: dict[int, list[Request]] = {}
    for request in dict.fromkeys(_whole(request for key in keys for request in wanted[key])):
        level = 0 if in_step and len(request.values) == 1 else request.level()
        passes.setdefault(level, []).append(request)
    return [passes[level] for level in sorted(passes)]


def _whole(requests: Iterable[Request]) -> list[Request]:
    return [each for request in requests for each in request.whole()]


def _check_finite(seen: Mapping[Request, Statistic]) -> None:
    for request, statistic in seen.items():
        if statistic.left_out and statistic.left_out == statistic.elements:
            raise ModelError(
                f"value {' and '.join(map(repr, request.values))} was not finite on the calibration data: "
                f"{statistic.left_out:,} of {statistic.elements:,} elements are NaN or infinite, or share a vector "
                "with one; look at the inputs"
            )


class _TooLarge(Exception):
    """The values of batches that run in step do not fit."""


class _Recorder(fx.Interpreter):
    """Runs a graph and adds each requested value to its statistics, which begin with their first value.

    A value here is the list of a node's values for every batch of a group.
    """

    def __init__(
        self,
        graph: fx.GraphModule,
        requests: Sequence[Request],
        seen: dict[Request, Statistic],
        clips: Mapping[str, Clip],
        limit: int | None,
    ) -> None:
        super().__init__(graph)
        self.clips = clips
        for clip in clips.values():
            clip.reset()
        # Errors raised here name the value themselves.
        self.extra_traceback = False
        self.seen, self.limit, self.place = seen, limit, 0
        self.requests: dict[str, list[Request]] = {}
        for request in requests:
            for name in request.values:
                self.requests.setdefault(name, []).append(request)

    def run_all(self, batches: Sequence[Sequence[torch.Tensor]], ticks: Iterator[int]) -> None:
        """Run the batches in step; a tick for each, as far as the nodes are done."""
        self.count, self.ticks, self.done = len(batches), ticks, 0
        with torch.no_grad():
            self.run(*zip(*batches, strict=True), enable_io_processing=False)

    def map_nodes_to_values(self, args: Any, n: fx.Node) -> Any:
        return map_arg(args, lambda node: self.env[node][self.place])

    def run_node(self, n: fx.Node) -> Any:
        self._tick()
        if n.op == "output":
            return None
        results = list(super().run_node(n)) if n.op == "placeholder" else [self._value(n, p) for p in range(self.count)]
        if n.name in self.clips:
            results = [self.clips[n.name].apply(result) for result in results]
        for request in self.requests.get(n.name, ()):
            if request not in self.seen:
                self.seen[request] = request.start(self.seen)
            try:
                for result in results:
                    self.seen[request].add(result)
            except ModelError as error:
                raise ModelError(
                    f"value {n.name!r} on the calibration data: {error} in one batch; look at the inputs"
                ) from error
        if self.count > 1 and self.limit is not None and self._held(results) > self.limit:
            raise _TooLarge
        return results

    def _value(self, node: fx.Node, place: int) -> Any:
        self.place = place
        return super().run_node(node)

    def _held(self, results: Sequence[Any]) -> int:
        """Return the bytes of the values that wait for their readers, beside inputs and weights."""
        waiting = [values for node, values in self.env.items() if node.op not in ("placeholder", "get_attr")]
        tensors = [leaf for leaf in tree_leaves([*waiting, results]) if isinstance(leaf, torch.Tensor)]
        storages = {each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in tensors}
        return sum(storages.values())

    def _tick(self) -> None:
        self.done += 1
        whole = len(self.graph.nodes)
        for _ in range(self.done * self.count // whole - (self.done - 1) * self.count // whole):
            next(self.ticks, None)
