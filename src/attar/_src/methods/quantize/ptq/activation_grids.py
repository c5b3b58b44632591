"""Grids of the activations of a stage: static ones from what was observed, or dynamic layers."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from attar._src.artifact.manifest import Activation
from attar._src.core.tensors import CompressedTensor
from attar._src.methods.quantize.activation_bits import ADDED_BITS, own_value_bits, site_bits
from attar._src.methods.quantize.dynamic_layers import make_dynamic, readers_of
from attar._src.methods.quantize.ptq.observers.calibration import Observer, site_grids, site_requests
from attar._src.methods.quantize.ptq.observers.observed import Observed
from attar._src.methods.quantize.ptq.observers.outliers import channel_reaches, range_warnings
from attar._src.methods.quantize.unquantized import integer_sites
from attar._src.model.collect import collect
from attar._src.model.readings.insert import read_and_added, with_readings
from attar._src.model.sites import Site
from attar._src.model.weights import find_weights
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.compressed_model import CompressedGraph, CompressedModel
from attar._src.work.value_globs import layer_reading, matching_values


def with_floating_values(model: CompressedModel, keep: Sequence[str], known: Collection[str]) -> CompressedModel:
    """Return the model with the values of ``keep`` in floating point, by globs of layers or values.

    Raises:
        UnknownName: one of these globs, or of ``known``, matches nothing.
    """
    deployed = {name: (each.folded_later or each.traced).graph for name, each in model.graphs.items()}
    kept = matching_values(deployed, tuple(keep))
    matching_values(deployed, tuple(known))
    graphs = {name: replace(each, floating=each.floating | kept[name]) for name, each in model.graphs.items()}
    return replace(model, graphs=graphs)


@dataclass(frozen=True)
class ActivationGrids:
    """How the activations of a stage get their grids.

    Attributes:
        bits: of a static grid; None if there are none.
        observer: of ranges.
        overrides: glob of layers whose inputs have these bits, or of values -> bits.
        power_of_two: whether scales are powers of two.
        every: whether the stage is for all layers.
    """

    bits: int | None
    observer: Observer
    overrides: Mapping[str, int]
    power_of_two: bool
    every: bool

    def static(
        self,
        model: CompressedModel,
        name: str,
        inputs: CalibrationInputs,
        rounded: Collection[str],
        tensors: Mapping[str, CompressedTensor],
        observed: Observed,
    ) -> tuple[CompressedGraph, list[str]]:
        """Return one graph with grids for the sites of its quantized layers, and warnings about them.

        A stage of some ``layers`` leaves the grids of sites that none of these reads or writes as they are.
        """
        assert self.bits is not None
        graph, program = model.graphs[name], model.unrounded(name)
        quantized = integer_sites(graph, tensors)
        touched = quantized if self.every else integer_sites(graph, {}, rounded)
        read = {source for site in touched for source in site.sources}
        sites: list[Site] = []
        kept: dict[str, Activation] = {}
        for site in quantized:
            if read.isdisjoint(site.sources) and graph.activations.keys() >= set(site.sources):
                kept |= {value: graph.activations[value] for value in site.values if value in graph.activations}
            else:
                sites.append(site)
        # If a solver left a weight in floating point, the sites differ from the expected ones.
        missing = site_requests([site for site in sites if site not in observed.seen], self.observer)
        more = collect(program, missing, inputs.batches, "calibrating", clips=observed.clips)
        seen = observed.seen | {site: found for site, (found,) in more}
        own = own_value_bits({each: of.traced.graph for each, of in model.graphs.items()}, self.overrides)
        widths = {site: site_bits(site, self.bits, own[name]) for site in sites}
        ranges = {site: seen[site] for site in sites}
        grids = kept | site_grids(ranges, self.observer, widths, power_of_two=self.power_of_two)
        ordered = {node.name: grids[node.name] for node in program.graph.nodes if node.name in grids}
        sources = frozenset(source for site in sites for source in site.sources)
        layers = {site: layer_reading(program, site.values) for site in sites}
        channels = channel_reaches(program, inputs.batches)
        spans = {site: grids[site.sources[0]] for site in sites}
        warnings = range_warnings(spans, seen, observed.clips, layers, channels)
        sources |= graph.rounded & kept.keys()
        made = replace(graph, activations=ordered, rounded=sources)
        return make_dynamic(made, tensors, self._touched(graph, rounded), recurrent=True), warnings

    def with_readings(self, model: CompressedModel, tensors: Collection[str]) -> CompressedModel:
        """Return the model with readings of the values that products read with fewer bits than sums and averages do.

        Values keep one grid whose bits were given by their own names, and in graphs that are trained later.

        Args:
            tensors: those that the stage quantizes.
        """
        if self.bits is None or min(self.bits, *self.overrides.values(), ADDED_BITS) == ADDED_BITS:
            return model
        graphs = dict(model.graphs)
        own = own_value_bits({name: each.traced.graph for name, each in graphs.items()}, self.overrides)
        for name, graph in graphs.items():
            if graph.folded_later is not None:
                continue
            sites = integer_sites(graph, model.tensors, tensors)
            shared = read_and_added(graph.traced.graph, sites)
            few = [
                value
                for value, site in shared.items()
                if site_bits(site, self.bits, own[name]) < ADDED_BITS
                and not any(fnmatchcase(each, glob) for each in site.values for glob in self.overrides)
                and graph.activations.keys().isdisjoint(site.values)
            ]
            graphs[name] = replace(graph, traced=with_readings(graph.traced, few)) if few else graph
        return replace(model, graphs=graphs)

    def dynamic(
        self, graph: CompressedGraph, rounded: Collection[str], tensors: Mapping[str, CompressedTensor]
    ) -> CompressedGraph:
        """Return a graph whose quantized layers are dynamic, those that can be and read no value with a grid.

        A stage of some ``layers`` leaves the grids of earlier stages as they are.
        """
        if self.every:
            graph = replace(graph, activations={}, rounded=frozenset())
        return make_dynamic(graph, tensors, self._touched(graph, rounded))

    def _touched(self, graph: CompressedGraph, rounded: Collection[str]) -> set[str]:
        """Return the nodes that read what this stage quantizes; all that read a weight if it is for all layers."""
        return readers_of(graph, find_weights(graph.traced.graph) if self.every else rounded)
