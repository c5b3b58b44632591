"""``attar.prune``: a trained module in, the same module with fewer channels or layers out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from attar._src.artifact.limits import Limits
from attar._src.artifact.manifest import Preprocessing
from attar._src.artifact.writer import pack
from attar._src.core.errors import SpecError
from attar._src.core.progress import track
from attar._src.data.axes import Dynamic
from attar._src.deploy.dry_run import EXPORTING, check_deployable, example_of
from attar._src.deploy.fidelity import ComparedExamples, Floating, labelled_examples
from attar._src.deploy.first_run import prepare
from attar._src.deploy.package import package
from attar._src.deploy.parity import Parity
from attar._src.deploy.pruning.accuracy import loss_by_pruning
from attar._src.deploy.pruning.asked import asked_pruning, parts_in_words
from attar._src.deploy.pruning.removals import save_pruned
from attar._src.deploy.pruning.to_latency import channels_in_time, first_example, layers_in_time, milliseconds_of
from attar._src.deploy.pruning.untrained import PruningLoss, note_loss, noted_loss
from attar._src.measure.class_layout import IGNORE_INDEX, ClassLayout
from attar._src.measure.latency import interleave
from attar._src.measure.metric import metric_name
from attar._src.methods.allocate.allocate import MEASURED
from attar._src.methods.allocate.judge import Labelled
from attar._src.methods.prune.channels.gradients import part_gradients
from attar._src.methods.prune.channels.pruning import rank_channels
from attar._src.methods.prune.channels.ranking import PartGradients
from attar._src.methods.prune.channels.sensitivities import JudgedChannels
from attar._src.methods.prune.layers.pruning import LayerPruning, rank_layers
from attar._src.methods.prune.masks import sparse_tensors
from attar._src.methods.prune.pruned_module import PrunedModule
from attar._src.methods.prune.weights.of_module import with_pruned_weights
from attar._src.methods.prune.weights.pruning import WeightPruning
from attar._src.model.capture import CapturedModel, capture
from attar._src.model.dependencies.record import recorded_removals
from attar._src.model.trace import deploy_graph
from attar._src.model.traced import TracedModel
from attar._src.model.weights import find_weights
from attar._src.runtime.session import Session
from attar._src.train.batch import Batch
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.compressed_model import MAIN, CompressedModel, FileInfo

#: Less is within the noise of a measurement.
_FASTER = 1.05


@dataclass(frozen=True, repr=False)
class PruningResult:
    """A module with fewer channels or layers, and what its file will tell.

    Attributes:
        pruned: the module, the record of what was removed, and figures.
        dense: the untouched module as a graph, with which files are compared.
        loss: what the module lost, with a digest of its weights, which tells whether it was trained since.
    """

    pruned: PrunedModule
    dense: TracedModel
    dry_run: Parity
    captured: CapturedModel
    data: CalibrationInputs
    examples: ComparedExamples
    use: FileInfo
    loss: PruningLoss
    limits: Limits | None = None
    notes: Mapping[str, str] | None = None

    def __repr__(self) -> str:
        """Return a line; the fields hold all weights and inputs."""
        (before, after), (all_, left) = self.pruned.figures["macs"], self.pruned.figures["parameters"]
        if "nonzero" in self.pruned.figures:
            return f"<PruningResult: {self.pruned.figures['nonzero'][1]:,} of {all_:,} parameters not zero>"
        return f"<PruningResult: {left:,} of {all_:,} parameters, {after:,} of {before:,} multiplications>"

    @property
    def module(self) -> nn.Module:
        """The pruned module: of the class that was given, ready to be trained or quantized."""
        return self.pruned.module

    @property
    def excluded(self) -> Mapping[str, str]:
        """Weight -> why its output channels, or some of them, stay; of layers, path -> why it stays."""
        return self.pruned.excluded

    @property
    def figures(self) -> dict[str, Any]:
        """``macs`` and ``parameters`` before and after, what stays and why; of channels output channels by weight
        (``widths``), of layers their paths (``removed``) and ``scores``; with labels the ``metric`` of the examples,
        before any training."""
        found = self.pruned.describe()
        if self.loss.metric is not None:
            name, before, after = self.loss.metric
            found["metric"] = {"name": name, "before": before, "after": after, "examples": self.loss.examples}
        return found

    def save_weights(self, path: str | Path) -> None:
        """Write the weights as ``.safetensors``, also after the module was trained further.

        ``attar quantize -w`` and recipes build the module as it was before, and remove the same first.
        """
        if Path(path).suffix != ".safetensors":
            raise SpecError(f"{path}: weights of a pruned module are written as .safetensors")
        save_pruned(Path(path), self.module, self.captured.example, self.captured.names)

    def save(self, path: str | Path, *, coder: str = "auto") -> dict[str, Any]:
        """Write the pruned module in floating point as a verified ``.attar`` file, with ``report.json`` beside it.

        Returns:
            The report (docs/report.md) of the file, with ``pruning``: parameters, multiplications, non-zero parameters
            and bytes before and after, and the latency of one example beside that of the untouched module, in turns in
            the same run. ``report.json`` has the same.
        """
        compressed = self._compressed()
        trained = noted_loss(self.module) is None
        return package(
            compressed,
            Path(path),
            self.use,
            self.data,
            coder=coder,
            dry_run=self.dry_run,
            floating={
                MAIN: Floating("the module before anything was removed", self.dense.graph, trained_since=trained)
            },
            examples=self.examples,
            tolerance=None,
            limits=self.limits,
            notes=self.notes or {},
            measure=lambda packed: {"pruning": self._figures(compressed, packed)},
        )

    def file_bytes(self) -> list[int]:
        """Return the bytes of the file in floating point that :meth:`save` writes, before and after."""
        untouched = pack(CompressedModel.of(self.dense).contents(self.use), coder="auto", limits=self.limits)
        return [len(untouched), len(pack(self._compressed().contents(self.use), coder="auto", limits=self.limits))]

    def _compressed(self) -> CompressedModel:
        given = self.captured
        traced = deploy_graph(
            self.module, capture(self.module, given.example, names=given.names, dynamic=given.axes, train=False)
        )
        state = {name: each for name, each in traced.state().items() if name in find_weights(traced.graph)}
        return CompressedModel.of(traced, record=recorded_removals(self.module), tensors=sparse_tensors(state))

    def _figures(self, compressed: CompressedModel, packed: bytes) -> dict[str, Any]:
        untouched = pack(CompressedModel.of(self.dense).contents(self.use), coder="auto", limits=self.limits)
        sessions = [Session(each, threads=1, limits=self.limits) for each in (untouched, packed)]
        feeds = [first_example(session, self.data) for session in sessions]
        before, after = interleave([partial(s.run, feed) for s, feed in zip(sessions, feeds, strict=True)], seconds=2.0)
        models = (CompressedModel.of(self.dense), compressed)
        return {
            **self.figures,
            "nonzero": [n - _zeros(model) for n, model in zip(self.figures["parameters"], models, strict=True)],
            "file_bytes": [len(untouched), len(packed)],
            "latency_ms": [before.median_ms, after.median_ms],
            "times_faster": 1 / after.ratio,
            "speed": speed_in_words(1 / after.ratio, zeros=bool(self.pruned.sparsity)),
        }


def prune(
    module: Any,
    data: Any,
    *,
    channels: float | None = None,
    layers: float | None = None,
    sparsity: float | Mapping[str, Any] | None = None,
    macs: float | None = None,
    max_bytes: int | None = None,
    max_drop: float | None = None,
    max_ms: float | None = None,
    sensitivity: str | Path | None = None,
    unit: str | None = None,
    score: str | None = None,
    scope: str | None = None,
    exclude: Sequence[str] = (),
    round_to: int | None = None,
    least: float | None = None,
    update: str | None = None,
    overrides: Mapping[str, float] | None = None,
    seed: int = 0,
    labels: Any = None,
    examples: int = 512,
    batch: int = 64,
    collate: Callable[[list[Any]], Any] | None = None,
    dynamic: Dynamic = None,
    preprocessing: Preprocessing | None = None,
    task: str | None = None,
    class_names: Sequence[str] = (),
    metric: Any = None,
    ignore_index: int = IGNORE_INDEX,
    class_axis: int | None = None,
    licence: str | None = None,
    limits: Limits | None = None,
    on_step: Callable[[str], None] | None = None,
) -> PruningResult:
    """Remove channels, attention heads and recurrent units from a module, with all that depends on them; or layers; or
    set weights to zero.

    Without channels or layers it has smaller parameters, so that it runs faster everywhere, and should be trained
    afterwards; zeros save bytes and no time. Weights that remain make up for channels and zeros. What goes together is
    found on the module's graph: channels that are added, concatenated, normalized or read by grouped convolutions. A
    layer that stays is listed with the reason, also where the module's code has numbers of channels of its own: a copy
    with fewer channels is run and compared.

    Args:
        module, data: as ``attar.quantize`` takes them. The module is not changed.
        channels: share of the channels to remove.
        layers: number, or share, of the residual blocks or transformer layers to remove as a whole: submodules that
            return the shape they read, with a shortcut around their weights.
        sparsity: share of the weights, or of their blocks, that become zero; or a target under which each layer gets
            its own, ``{"max_bytes": 600000}``, ``{"max_drop": 1.0}``. The other weights make up for them.
        macs: share of the multiplications to remove, instead of ``channels`` or ``layers``.
        max_bytes: bytes that the file in floating point may have: weights become zero, or with ``unit="channel"``
            channels are removed, as measured sensitivities allow.
        max_drop: percentage points that the file may lose: weights become zero likewise.
        max_ms: milliseconds that one example may take on one thread of this machine, instead of any of these: as little
            is removed as brings the file in floating point to it, by timing files.
        sensitivity: folder of ``attar.sensitivity`` (``what="channels"`` or ``"sparsity"``), which the amounts of each
            layer are chosen by; without, ``max_bytes``, ``max_drop`` and ``scope="sensitivity"`` measure on 256
            examples.
        unit: ``channel`` or ``layer``: what ``macs`` and ``max_ms`` remove; by default channels. Or what becomes zero:
            ``weight``, ``2:4`` (2 of 4 neighbouring input channels remain; without ``sparsity``), or blocks of output
            and input channels, ``4x1``.
        score: what scores lowest is removed. Of channels ``l2`` (the default), ``l1``, ``batch_norm``, ``wanda``,
            ``obs``, ``taylor``, ``gradient_weight`` (the last two need labels); of layers ``similarity`` (the default)
            of input and output, ``output``: change of the outputs, ``taylor``, ``loss`` (these need labels); of weights
            ``obs`` (the default), ``wanda``, ``l1``, ``l2``, ``taylor``, ``gradient_weight``; ``random`` or
            ``file.py:name``.
        scope: ``layer`` removes the same share of every layer, ``global`` the lowest scores of all; by default
            ``layer`` with ``channels`` and ``global`` with ``macs``. Of channels also ``sensitivity``: of each group as
            many as the measured errors of the outputs allow. Of weights also ``row``, ``lamp`` and ``erdos_renyi``.
        exclude: globs of layers whose output channels stay, or whose weights do.
        round_to: what remains of a layer is a multiple of this, such as 8, where it has so many channels.
        least: share of the channels of each layer that remains, 0.1 by default.
        update: ``obs`` (the default) solves the other weights for what each layer then reads; ``sparsegpt``, ``none``.
        overrides: glob of layers -> share of its channels (alone: others keep theirs), or with weights its sparsity.
        seed: of ``random``.
        labels, examples, batch, collate, dynamic, preprocessing, task, class_names, metric, ignore_index, class_axis,
            licence, limits: as for ``attar.quantize``.
        on_step: called with a line on each part that may take long: what is exported, scored, measured or compared.

    Returns:
        The result: ``.module`` is a copy of the module with less in it, ``.excluded`` what stays and why,
        ``.save(path)`` writes a ``.attar`` file in floating point, ``.save_weights(path)`` the weights.

    Raises:
        DataError: the data do not fit the module; a score needs labels.
        ModelError: the module cannot be captured or exported, or nothing can be removed.
        UnknownName: there is no such score, or a glob matches no layer.
        SpecError: an option is invalid, or the target cannot be reached; the message has what can.

    Example:
        >>> import attar, torch
        >>> net = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
        >>> attar.prune(net, torch.randn(64, 8), channels=0.5).module[0]
        Linear(in_features=8, out_features=8, bias=True)
    """
    asked = asked_pruning(
        unit,
        score,
        exclude,
        channels=channels,
        layers=layers,
        sparsity=sparsity,
        macs=macs,
        max_bytes=max_bytes,
        max_drop=max_drop,
        max_ms=max_ms,
        sensitivity=None if sensitivity is None else str(sensitivity),
        scope=scope,
        round_to=round_to,
        least=least,
        update=update,
        overrides=overrides,
    )
    say = on_step or (lambda _: None)
    say(EXPORTING)
    module, inputs, notes = prepare(module, data, examples=examples, batch=batch, collate=collate, dynamic=dynamic)
    use = FileInfo(preprocessing, task, tuple(class_names), metric_name(metric), licence)
    example, axes, inputs = example_of(inputs, dynamic)
    compared = labelled_examples(inputs, labels, metric, ClassLayout(class_axis, ignore_index))
    captured = capture(module, example, names=inputs.names, dynamic=axes, train=False)
    dense = deploy_graph(module, captured)
    dry_run = check_deployable(module, dense, use, inputs, limits=limits)
    for line in parts_in_words(asked, max_ms, inputs.examples):
        say(line)
    batches = partial(_batches, inputs, compared)

    def gradients() -> PartGradients:
        return part_gradients(captured, track([*batches()], "gradients of the examples"), compared.layout)

    time = partial(milliseconds_of, captured=captured, use=use, data=inputs, limits=limits)
    labelled = Labelled.of(compared, use)
    if isinstance(asked, WeightPruning):
        pruned = with_pruned_weights(
            module, captured, asked, compared.with_targets(), gradients, seed=seed, use=use, labelled=labelled
        )
    elif isinstance(asked, LayerPruning):
        ordered = rank_layers(module, captured, asked, lambda: [*batches()], layout=compared.layout, seed=seed)
        pruned = ordered.without(asked) if max_ms is None else layers_in_time(ordered, asked, time, max_ms)
    else:
        ranked = rank_channels(
            module,
            captured,
            asked,
            gradients,
            seed=seed,
            judged=JudgedChannels(inputs.first(MEASURED, cut=dense.any_batch), labelled, inputs),
            use=use,
        )
        pruned = ranked.without(asked) if max_ms is None else channels_in_time(ranked, asked, time, max_ms)
    say("running the module as it was and as it is, on the same examples")
    loss = loss_by_pruning(module, pruned.module, captured, compared)
    note_loss(pruned.module, loss)
    return PruningResult(pruned, dense, dry_run, captured, inputs, compared, use, loss, limits, notes)


def _batches(inputs: CalibrationInputs, examples: ComparedExamples) -> Iterator[Batch]:
    targets = examples.targets or (None,) * len(inputs.batches)
    for batch, each in zip(inputs.batches, targets, strict=False):
        yield Batch(batch, each, names=inputs.names)


def speed_in_words(times: float, *, zeros: bool) -> str:
    """Return what a measured speed-up means; ``zeros``: of weights that are zero alone."""
    if zeros:
        # Both files run the same operations on tensors of the same shapes: what differs from 1 is noise.
        return (
            f"not faster than before: the runtime multiplies by zeros, too (measured {times:.2f}, 1 but for noise); "
            "zeros save bytes, for time remove channels or layers"
        )
    if times >= _FASTER:
        return f"{times:.2f} times faster than before, measured in turns"
    return f"not faster than before ({times:.2f} times): what was removed takes little of the time"


def _zeros(model: CompressedModel) -> int:
    # Of weights alone: parameters of folded norms are in other tensors of the file.
    return sum(int((each == 0).sum()) for name, each in model.state().items() if name in model.weights())
