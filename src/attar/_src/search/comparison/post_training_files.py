"""Files of one module by options of ``attar.prune`` and ``attar.quantize``, without training.

module --> prune --> smaller or sparser module --> quantize --> verified file
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from attar._src.core.errors import AttarWarning
from attar._src.core.spec import build_spec
from attar._src.deploy.fidelity import Floating
from attar._src.deploy.package import package
from attar._src.deploy.pruning.asked import asked_pruning
from attar._src.methods.prune.channels.amount import ChannelPruning
from attar._src.methods.prune.channels.gradients import part_gradients
from attar._src.methods.prune.channels.pruning import rank_channels
from attar._src.methods.prune.channels.ranked import RankedChannels
from attar._src.methods.prune.channels.sensitivities import JudgedChannels
from attar._src.methods.prune.layers.pruning import LayerPruning, RankedLayers, rank_layers
from attar._src.methods.prune.masks import sparse_tensors
from attar._src.methods.prune.pruned_module import PrunedModule
from attar._src.methods.prune.weights.of_module import with_pruned_weights
from attar._src.methods.quantize.ptq.reconstruct.stage import Reconstruct
from attar._src.model.capture import capture
from attar._src.model.dependencies.record import recorded_removals
from attar._src.model.trace import deploy_graph
from attar._src.model.weights import find_weights
from attar._src.search.post_training import PostTraining
from attar._src.search.searched_module import SearchedModule
from attar._src.work.compressed_model import MAIN, CompressedModel

#: Options of ``attar.prune`` that say how much is removed; scores do not depend on them.
_AMOUNTS = ("channels", "macs", "layers")


@dataclass
class PostTrainingFiles:
    """Makes files of a module; what several of them share is made once.

    Attributes:
        of: the module.
        keep: globs of layers that stay in floating point where the others are quantized.
    """

    of: SearchedModule
    keep: Sequence[str] = ()
    _ranked: dict[str, RankedChannels | RankedLayers] = field(default_factory=dict, init=False)
    #: Options of pruning, and what quantizes the module they left: that of one pruning at a time.
    _quantizing: tuple[str, PostTraining] | None = field(default=None, init=False)

    def save(self, options: Mapping[str, Mapping[str, Any]], path: Path) -> int:
        """Make a file and write it, verified.

        Args:
            options: ``prune``, ``quantize``, or both.
            path: of the file.

        Returns:
            The number of examples that gradient steps saw.

        Raises:
            SpecError: no file is so small, or an option does not fit the module.
            ModelError: nothing can be removed.
        """
        rows: list[Mapping[str, Any]] = []
        if "quantize" in options:
            maker = self._maker(options.get("prune"))
            compressed = maker.make(options["quantize"], rows.append).compressed
        else:
            compressed = self._floating(self._pruned(options["prune"]).module if "prune" in options else self.of.module)
        with warnings.catch_warnings():
            # They are in the report beside the file.
            warnings.simplefilter("ignore", AttarWarning)
            package(
                compressed,
                path,
                self.of.use,
                self.of.inputs,
                coder="auto",
                dry_run=self.of.dry_run,
                floating={MAIN: Floating("the module before it was compressed", self.of.traced.graph)},
                examples=self.of.examples,
                tolerance=None,
                limits=self.of.limits,
            )
        return _examples_seen(rows, options.get("quantize", {}).get("reconstruct", {}))

    def every_option(self, options: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
        """Return the options that make the same file again: with the layers that all files keep."""
        found = {name: dict(each) for name, each in options.items()}
        if "quantize" in found and self.keep:
            found["quantize"]["keep"] = [*self.keep, *found["quantize"].get("keep", ())]
        return found

    def solved(self, options: Mapping[str, Mapping[str, Any]]) -> bool:
        """Return whether what all sizes share is there for these options."""
        if self._quantizing is None or self._quantizing[0] != _key(options.get("prune")):
            return False
        return self._quantizing[1].solved(options["quantize"])

    def _maker(self, pruning: Mapping[str, Any] | None) -> PostTraining:
        """Return what quantizes the module after this pruning."""
        key = _key(pruning)
        if self._quantizing is None or self._quantizing[0] != key:
            of = self.of
            model = of.untouched if pruning is None else self._traced(self._pruned(pruning).module)
            self._quantizing = (
                key,
                PostTraining(
                    model, of.context, of.inputs, of.dry_run, of.examples, of.held, of.judge, of.limits, self.keep
                ),
            )
        return self._quantizing[1]

    def _floating(self, module: nn.Module) -> CompressedModel:
        """Return a module in floating point, with weights of many zeros as masks and values."""
        model = self._traced(module)
        weights = find_weights(model.main.traced.graph)
        sparse = sparse_tensors({name: each for name, each in model.state().items() if name in weights})
        return CompressedModel.of(model.main.traced, record=recorded_removals(module), tensors=sparse)

    def _traced(self, module: nn.Module) -> CompressedModel:
        known = self.of.captured
        program = capture(module, known.example, names=known.names, dynamic=known.axes, train=False)
        return CompressedModel.of(deploy_graph(module, program), record=recorded_removals(module))

    def _pruned(self, options: Mapping[str, Any]) -> PrunedModule:
        of, layout = self.of, self.of.examples.layout
        given = {name: options.get(name) for name in _OPTIONS}
        asked = asked_pruning(options.get("unit"), options.get("score"), options.get("exclude", ()), **given)
        if not isinstance(asked, ChannelPruning | LayerPruning):
            return with_pruned_weights(
                of.module,
                of.captured,
                asked,
                of.inputs,
                lambda: part_gradients(of.captured, of.batches(), layout),
                use=of.use,
            )
        key = json.dumps({name: each for name, each in options.items() if name not in _AMOUNTS}, sort_keys=True)
        key = f"{type(asked).__name__} {key}"
        if isinstance(asked, ChannelPruning):
            channels = self._ranked.get(key)
            if not isinstance(channels, RankedChannels):
                channels = rank_channels(
                    of.module,
                    of.captured,
                    asked,
                    lambda: part_gradients(of.captured, of.batches(), layout),
                    judged=JudgedChannels(of.inputs),
                )
                self._ranked[key] = channels
            return channels.without(asked)
        layers = self._ranked.get(key)
        if not isinstance(layers, RankedLayers):
            layers = rank_layers(of.module, of.captured, asked, lambda: [*of.batches()], layout=layout)
            self._ranked[key] = layers
        return layers.without(asked)


def _key(pruning: Mapping[str, Any] | None) -> str:
    return json.dumps(pruning, sort_keys=True)


def _examples_seen(rows: Sequence[Mapping[str, Any]], options: Mapping[str, Any]) -> int:
    """Return how many examples the steps of a reconstruction saw: of each block, and of the network at last."""
    if not rows:
        return 0
    asked: Reconstruct = build_spec(Reconstruct, where="reconstruct", **options)
    network = 2 * asked.steps if asked.network_steps is None else asked.network_steps
    whole = sum(str(row["unit"]).endswith("network") for row in rows)
    return asked.batch * (whole * network + (len(rows) - whole) * asked.steps)


#: Options of ``attar.prune`` that may be None.
_OPTIONS = ("channels", "layers", "sparsity", "macs", "max_ms", "scope", "round_to", "least", "update", "overrides")
