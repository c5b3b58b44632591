"""``max_ms``: what each layer reads stays in floating point or gets a grid, so that a file runs in a given time.

files in floating point, dynamic, static --> times --+
static file without one grid, and so on  --> times --+--> integer program --> file --> time
each grid alone                          --> errors -+          ^                        |
                                                     +----------+---- the difference ----+
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

from torch import fx

from attar._src.artifact.limits import Limits
from attar._src.artifact.writer import pack
from attar._src.core.errors import SpecError
from attar._src.core.fields import main_output_name
from attar._src.deploy.choices.choose_activations import CHOICES, Activations
from attar._src.deploy.fidelity import ComparedExamples
from attar._src.deploy.parity import compared
from attar._src.measure.latency import interleave
from attar._src.methods.allocate.choose import by_name
from attar._src.methods.allocate.judge import Judge, Labelled, model_outputs
from attar._src.methods.quantize.dynamic_layers import dynamic_layers, make_dynamic, readers_of
from attar._src.methods.quantize.integer_layers import fit_integer_layers
from attar._src.methods.quantize.unquantized import integer_sites
from attar._src.model.operators import data_of
from attar._src.model.sites import Site
from attar._src.model.weights import find_weights
from attar._src.runtime.session import Session
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.compressed_model import MAIN, CompressedModel, FileInfo

#: Files that are timed at most for one target.
TIMED_FILES = 4
#: Seconds of a timing in turns, and of one that tells what a single grid gives.
SECONDS, BRIEF = 2.0, 0.3
#: Part of the examples on which errors are measured.
_SHARE = 8.0

#: What layers read, by the first of its values -> how it is quantized.
Choice = Mapping[str, Activations]


@dataclass(frozen=True)
class LatencyFit:
    """Chooses activations for a time.

    Attributes:
        models: the module with all activations in floating point (None), dynamic, and static (8).
        use: what the file tells its user.
        examples: real inputs.
        limits: of the file's readers.
    """

    models: Mapping[Activations, CompressedModel]
    use: FileInfo
    examples: ComparedExamples
    limits: Limits | None = None

    @cached_property
    def sites(self) -> dict[str, Site]:
        """The sites of the static file that a layer reads, by their first value."""
        graph, weights = self.models[8].main, find_weights(self.models[8].main.traced.graph)
        nodes = {node.name: node for node in graph.traced.graph.graph.nodes}
        readers = [nodes[name] for weight in weights.values() for name in weight.readers]
        read = {getattr(value, "name", "") for node in readers for value in data_of(node)}
        sites = [site for site in integer_sites(graph, self.models[8].tensors) if not read.isdisjoint(site.values)]
        return {site.values[0]: site for site in sites if set(site.values) & graph.activations.keys()}

    @cached_property
    def dynamic(self) -> dict[str, set[str]]:
        """Value of ``sites`` -> the layers that read it, where all of them can be dynamic."""
        graph, tensors = self.models[8].main, self.models[8].tensors
        able = {name for name, why in dynamic_layers(graph, tensors).items() if not why}
        nodes = {node.name: node for node in graph.traced.graph.graph.nodes}
        found = {}
        for name, site in self.sites.items():
            reading = {node for node in readers_of(graph, tensors) if _reads(nodes[node], site)}
            if reading and reading <= able:
                found[name] = reading
        return found

    def model(self, choice: Choice) -> CompressedModel:
        """Return the static model with this choice for what layers read."""
        static = self.models[8]
        graph, floating = static.main, {name for name, each in choice.items() if each != 8}
        values = {value for name in floating for value in self.sites[name].values}
        left = integer_sites(replace(graph, floating=graph.floating | values), static.tensors)
        kept = {value for site in left for value in site.values} & graph.activations.keys()
        kept_floating = {value for name in floating if choice[name] is None for value in self.sites[name].values}
        made = replace(
            graph,
            activations={value: grid for value, grid in graph.activations.items() if value in kept},
            rounded=graph.rounded & kept,
            floating=graph.floating | kept_floating,
        )
        layers = {layer for name in floating if choice[name] == "dynamic" for layer in self.dynamic[name]}
        made = make_dynamic(made, static.tensors, layers)
        made = replace(made, rows=self.models["dynamic"].main.rows & made.dynamic)
        return fit_integer_layers(replace(static, graphs={MAIN: made}))

    def times(self, models: Sequence[CompressedModel], seconds: float = SECONDS) -> list[float]:
        """Return the median milliseconds of one example on one thread, in turns."""
        sessions = [
            Session(pack(each.contents(self.use), coder="raw", limits=self.limits), threads=1, limits=self.limits)
            for each in models
        ]
        traced = self.models[None].main.traced
        one = self.examples.inputs.example(1) if traced.any_batch else self.examples.inputs.batches[0]
        feed = {port.name: each.numpy() for port, each in zip(sessions[0].inputs, one, strict=True)}
        runs = [partial(session.run, feed) for session in sessions]
        return [latency.median_ms for latency in interleave(runs, seconds=seconds)]

    def error(self, model: CompressedModel) -> float:
        """Return the error of the main output against that with floating-point activations."""
        simulated = model.simulate()
        return self._judge.judge([model_outputs(simulated(*batch)) for batch in self._few.batches]).error

    def fit(self, most: float) -> tuple[CompressedModel, str]:
        """Return the model with the least error found whose file takes ``most`` milliseconds at most, and a note.

        Raises:
            SpecError: none does; the message has the nearest that was measured.
        """
        uniform = {name: model for name, model in self.models.items() if name is None or _quantized(model)}
        times = dict(zip(uniform, self.times([*uniform.values()]), strict=True))
        said = ", ".join(f"{CHOICES[name]} {milliseconds:.3g} ms" for name, milliseconds in times.items())
        if times[None] <= most:
            return self.models[None], f"for one example on one thread {said}: floating point is in time"
        fitting: list[tuple[float, str, CompressedModel, float]] = [
            (self.error(uniform[name]), CHOICES[name], uniform[name], times[name])
            for name in times
            if times[name] <= most
        ]
        tried = [*times.values()]
        for choice, model, milliseconds in self._mixed(most) if 8 in uniform else ():
            tried.append(milliseconds)
            if milliseconds <= most:
                fitting.append((self.error(model), _counted(choice), model, milliseconds))
        if not fitting:
            fastest = min(tried)
            raise SpecError(
                f"no file runs in {most:g} ms: of {len(tried)} that were timed for one example on one thread ({said}), "
                f"the fastest takes {fastest:.3g}. The nearest target is max_ms={1.02 * fastest:.3g}"
            )
        _, words, model, milliseconds = min(fitting, key=lambda each: each[0])
        return model, f"for one example on one thread {said}; taken: {words}, {milliseconds:.3g} ms"

    def _mixed(self, most: float) -> Iterator[tuple[Choice, CompressedModel, float]]:
        """Yield choices with the least sum of errors for the time, their models and what they take."""
        static: dict[str, Activations] = dict.fromkeys(self.sites, 8)
        none: dict[str, Activations] = dict.fromkeys(self.sites)
        errors: dict[str, dict[Activations, float]] = {}
        changes: dict[str, dict[Activations, float]] = {}
        before = self.model(static)
        for name in self.sites:
            levels: list[Activations] = [8, None, "dynamic"] if name in self.dynamic else [8, None]
            errors[name] = {each: self.error(self.model(none | {name: each})) if each else 0.0 for each in levels}
            changes[name] = {8: 0.0}
            for each in levels[1:]:
                start, end = self.times([before, self.model(static | {name: each})], BRIEF)
                changes[name][each] = end - start
        (start,) = self.times([before])
        room, tried = most - start, list[Choice]()
        for _ in range(TIMED_FILES):
            choice = by_name(errors, changes, room)
            if choice is None or choice in tried:
                break
            tried.append(choice)
            model = self.model(choice)
            start, end = self.times([before, model])
            yield choice, model, end
            # What changes did not add up to, and what the machine did meanwhile.
            room = most - end + sum(changes[name][each] for name, each in choice.items())

    @cached_property
    def _few(self) -> CalibrationInputs:
        traced = self.models[None].main.traced
        return compared(self.examples.inputs, traced.graph, cut=traced.any_batch, share=_SHARE)

    @cached_property
    def _judge(self) -> Judge:
        outputs = {port.name: port.dtype.startswith("f") for port in self.models[None].main.traced.outputs}
        labelled = Labelled.of(self.examples, self.use)
        return Judge.of(self.models[None].simulate(), self._few, main_output_name(outputs), labelled)


def _quantized(model: CompressedModel) -> bool:
    return bool(model.main.activations or model.main.dynamic)


def _reads(node: fx.Node, site: Site) -> bool:
    return any(getattr(value, "name", "") in site.values for value in data_of(node))


def _counted(choice: Choice) -> str:
    """Return a choice in words: ``14 of 20 inputs of layers static, 6 in floating point (stem, head)``."""
    counts = Counter(choice.values())
    some = [f"{counts[each]} {words}" for each, words in CHOICES.items() if counts[each]]
    left = [name for name, each in choice.items() if each is None]
    more = f" ({', '.join(left[:4])}{', ...' if len(left) > 4 else ''})" if left else ""
    return f"of {len(choice)} inputs of layers {' and '.join(some)}{more}"
