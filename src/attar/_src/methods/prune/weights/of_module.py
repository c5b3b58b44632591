"""Pruning of a module's own weights, as they act behind folded batch-norms."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import nn

from attar._src.core.errors import ModelError
from attar._src.methods.allocate.judge import UNLABELLED, Labelled
from attar._src.methods.allocate.target import BitTarget
from attar._src.methods.prune.channels.ranking import PartGradients
from attar._src.methods.prune.pruned_module import PrunedModule, parameter_count
from attar._src.methods.prune.weights.own_sparsity import own_sparsities
from attar._src.methods.prune.weights.own_values import OwnValues, put_values
from attar._src.methods.prune.weights.pruning import PrunedWeights, WeightPruning, prune_weights
from attar._src.methods.quantize.ptq.globs import matching_tensors
from attar._src.model.capture import CapturedModel
from attar._src.model.dependencies.find import find_dependencies
from attar._src.model.trace import deploy_graph
from attar._src.model.traced import TracedModel
from attar._src.model.weights import find_weights
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.compressed_model import FileInfo

NO_INFO = FileInfo()


@dataclass(frozen=True)
class ModuleChanges:
    """What pruning makes of the tensors of a module.

    Attributes:
        found: in the deployed graph, batch-norms folded.
        values: parameter -> its new value.
        pruned: weight -> which of its elements are zero.
    """

    found: PrunedWeights
    values: Mapping[str, torch.Tensor]
    pruned: Mapping[str, torch.Tensor]

    def put(self, module: nn.Module) -> None:
        """Give a module these values."""
        put_values(module, self.values)


def prune_weights_of(
    module: nn.Module,
    captured: CapturedModel,
    pruning: WeightPruning,
    inputs: CalibrationInputs,
    gradients: Callable[[], PartGradients],
    *,
    seed: int = 0,
    use: FileInfo = NO_INFO,
    labelled: Labelled = UNLABELLED,
) -> ModuleChanges:
    """Prune the weights of a module, which is not changed.

    Weights are solved as the file has them, multiplied by the factors of folded batch-norms, and divided by these
    again; ``l1`` and ``l2`` are sizes of the module's own weights, as in training.

    Args:
        module: that was captured.
        captured: its programs.
        pruning, inputs, seed: of :func:`~attar._src.methods.prune.weights.pruning.prune_weights`.
        use: what the file tells its user, whose bytes count in a target.
        gradients: of a loss by parameter, for each part of the examples; called if the score needs them.
        labelled: what is known of the right outputs, by which a target counts a drop.
    """
    traced = deploy_graph(module, captured)
    own = OwnValues(module, captured, traced)

    def folded_gradients() -> PartGradients:
        return ({name: own.divided(name, each) for name, each in part.items()} for part in gradients())

    note = ""
    if isinstance(pruning.sparsity, BitTarget):
        pruning, note = _within_target(
            pruning, pruning.sparsity, traced, inputs, folded_gradients, own.fixed, use, labelled, seed
        )
    found = prune_weights(traced, pruning, inputs, folded_gradients, seed=seed, fixed=own.fixed, shifts=own.shifts)
    found = replace(found, note=note)
    values = own.of(found.values, found.biases)
    return ModuleChanges(found, values, found.pruned)


def _within_target(
    pruning: WeightPruning,
    target: BitTarget,
    traced: TracedModel,
    inputs: CalibrationInputs,
    gradients: Callable[[], PartGradients],
    fixed: Mapping[str, str],
    use: FileInfo,
    labelled: Labelled,
    seed: int,
) -> tuple[WeightPruning, str]:
    """Return the same with a sparsity for each weight, and what was found in words."""
    alone = pruning.model_copy(update={"sparsity": 0.0, "sequential": False, "correct_bias": False})
    none = prune_weights(traced, alone.model_copy(update={"update": "none", "score": "l1"}), inputs, dict, fixed=fixed)
    overridden = _overridden(pruning, traced) & none.values.keys()
    free = [name for name in none.values if name not in overridden]
    given = alone.model_copy(update={"layers": tuple(overridden)})
    others = prune_weights(traced, given, inputs, gradients, seed=seed, fixed=fixed).values if overridden else {}

    def prune(share: float) -> PrunedWeights:
        at = alone.model_copy(update={"sparsity": share, "overrides": {}, "keep": (), "layers": tuple(free)})
        return prune_weights(traced, at, inputs, gradients, seed=seed, fixed=fixed)

    method = {"name": "prune", "score": pruning.score, "update": pruning.update}
    shares, note = own_sparsities(
        target, traced, inputs, free, prune, others, method, use, labelled=labelled, seed=seed
    )
    dense = [name for name, share in shares.items() if not share]
    chosen = {name: share for name, share in shares.items() if share}
    update = {"sparsity": 0.0, "overrides": {**chosen, **pruning.overrides}, "keep": (*pruning.keep, *dense)}
    return pruning.model_copy(update=update), note


def _overridden(pruning: WeightPruning, traced: TracedModel) -> set[str]:
    known = [*traced.state()]
    return {name for glob in pruning.overrides for name in matching_tensors(glob, known, dict(traced.aliases))}


def with_pruned_weights(
    module: nn.Module,
    captured: CapturedModel,
    pruning: WeightPruning,
    inputs: CalibrationInputs,
    gradients: Callable[[], PartGradients],
    *,
    seed: int = 0,
    use: FileInfo = NO_INFO,
    labelled: Labelled = UNLABELLED,
) -> PrunedModule:
    """Return a copy of a module with pruned weights, and figures; arguments as of :func:`prune_weights_of`.

    Raises:
        ModelError: no weight can be pruned; the message has the reasons.
    """
    changes = prune_weights_of(module, captured, pruning, inputs, gradients, seed=seed, use=use, labelled=labelled)
    if not changes.pruned and not isinstance(pruning.sparsity, BitTarget):
        reasons = "; ".join(f"{name}: {why}" for name, why in [*changes.found.excluded.items()][:4])
        raise ModelError(
            f"no weight of {type(module).__name__} can be pruned: "
            f"{reasons or 'exclude has all'}; give another unit, or exclude less"
        )
    sparse = copy.deepcopy(module)
    changes.put(sparse)
    count, found = parameter_count(module), changes.found
    whole, left = _multiplications(module, captured, changes)
    figures = {
        "macs": [whole, whole],
        "parameters": [count, count],
        "nonzero": [_nonzero(module), _nonzero(sparse)],
        "nonzero_macs": [whole, left],
    }
    return PrunedModule(
        sparse,
        {},
        figures,
        dict(found.excluded),
        sparsity=found.sparsity,
        unseen=dict(found.unseen),
        note="; ".join(filter(None, (found.note, *found.remarks))),
    )


def _nonzero(module: nn.Module) -> int:
    return sum(int(torch.count_nonzero(each)) for each in module.parameters())


def _multiplications(module: nn.Module, captured: CapturedModel, changes: ModuleChanges) -> list[int]:
    """Return the multiplications of one example, and those by weights that are not zero, which runtimes do alike."""
    readers: dict[str, list[str]] = {}
    for name, weight in find_weights(captured.evaluation).items():
        for reader in weight.readers:
            readers.setdefault(reader, []).append(name)
    whole, left = 0, 0.0
    for cost in find_dependencies(module, captured).costs:
        masks = [changes.pruned[name] for name in readers.get(cost.node, ()) if name in changes.pruned]
        elements = sum(each.numel() for each in masks)
        whole += cost.macs
        left += cost.macs * (1 - sum(int(each.sum()) for each in masks) / max(elements, 1))
    return [whole, round(left)]
