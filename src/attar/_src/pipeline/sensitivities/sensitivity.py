"""``attar.sensitivity``: each layer alone at several levels, and what it costs and gives."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from attar._src.core.errors import SpecError
from attar._src.core.interrupt import interruptible
from attar._src.core.scheme import Granularity
from attar._src.core.spec import build_spec
from attar._src.data.axes import Dynamic
from attar._src.deploy.dry_run import example_of
from attar._src.deploy.fidelity import labelled_examples
from attar._src.deploy.first_run import prepare
from attar._src.measure.class_layout import IGNORE_INDEX, ClassLayout
from attar._src.methods.allocate.candidates import AtLevel, pruned
from attar._src.methods.allocate.judge import Labelled
from attar._src.methods.allocate.level import Level
from attar._src.methods.allocate.measure import SensitivityMeter
from attar._src.methods.allocate.sensitivity_table import ROUNDED_BITS, LayerSensitivity, SensitivityTable
from attar._src.methods.allocate.tensor_meter import TensorMeter
from attar._src.methods.prune.channels.amount import ChannelPruning
from attar._src.methods.prune.channels.gradients import part_gradients
from attar._src.methods.prune.channels.pruning import rank_channels
from attar._src.methods.prune.channels.sensitivities import REMOVED_SHARES, JudgedChannels
from attar._src.methods.prune.scores import SCORES
from attar._src.methods.quantize.ptq.stage import PostTrainingQuantize
from attar._src.model.capture import capture
from attar._src.model.trace import trace
from attar._src.pipeline.sensitivities.folder import SensitivityFolder
from attar._src.train.batch import Batch
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.compressed_model import MAIN, CompressedModel, FileInfo, inputs_by_graph
from attar._src.work.context import Context

#: Levels by default.
LEVELS: Mapping[str, tuple[float, ...]] = {
    "bits": (2, 3, 4, 5, 6, 8),
    "sparsity": (0.3, 0.5, 0.7, 0.8, 0.9, 0.95),
    "channels": REMOVED_SHARES,
}
#: The solver of scales that :func:`attar.quantize` takes under a target, where it reads the table.
SCALES = "gptq"
#: Examples that calibrate the candidates, as ``attar.quantize`` takes by default.
CALIBRATED = 512


def sensitivity(
    module: Any,
    data: Any,
    *,
    what: Literal["bits", "sparsity", "channels"] = "bits",
    levels: Sequence[float] | None = None,
    rates: Sequence[float] = (0.0,),
    folder: str | Path | None = None,
    granularity: str | Granularity = "channel",
    symmetric: bool = True,
    scales: str = SCALES,
    score: str | None = None,
    keep: Sequence[str] = (),
    correct_bias: bool = True,
    labels: Any = None,
    examples: int = 2000,
    batch: int = 64,
    collate: Callable[[list[Any]], Any] | None = None,
    dynamic: Dynamic = None,
    task: str | None = None,
    class_names: Sequence[str] = (),
    metric: Any = None,
    ignore_index: int = IGNORE_INDEX,
    class_axis: int | None = None,
    seed: int = 0,
) -> SensitivityTable:
    """Measure what each layer alone costs in bytes, and gives in output error, at several levels.

    The untouched module is the reference. Choose among models by data that are not the test data.

    Args:
        module: as :func:`attar.quantize` takes it.
        data: real inputs, likewise.
        what: ``bits``: weights are rounded; ``sparsity``: the weights with the lowest scores become zero; ``channels``:
            the channels, heads or hidden units of each group with the lowest scores are removed.
        levels: bits from 2 to 8, or shares between 0 and 1; by default 2, 3, 4, 5, 6, 8, or 0.3 to 0.95, or eighths.
        rates: with ``gptq``, each level is measured with each of them (``rate`` of :func:`attar.quantize`).
        folder: for ``sensitivity.json``, ``.csv`` and ``.html``, and a journal: a measurement that was interrupted goes
            on where it was. Without, nothing is written.
        granularity: weights that share a scale, as in :func:`attar.quantize`; so are ``symmetric``, ``scales``,
            ``correct_bias`` and ``keep``. But for ``keep`` they are of ``bits``.
        symmetric: weights without zero points.
        scales: solver of the scales, by default that of a target.
        score: of ``sparsity`` ``l1`` (the default), ``l2`` or ``random``; of ``channels`` as in :func:`attar.prune`,
            ``l2`` by default.
        keep: globs of layers to leave out.
        correct_bias: correct biases for the mean error of rounded weights.
        labels: targets of the examples, by default those in ``data``; with them the metric is measured.
        examples: largest number of inputs to use.
        batch: inputs per batch, if ``data`` is not batched.
        collate: makes a batch of a list of examples.
        dynamic: axes of the inputs whose length may vary.
        task: what the module is for; ``classification`` and ``segmentation`` are judged by their predictions.
        class_names: names of the classes, if there are any.
        metric: as in :func:`attar.quantize`; by default the one that fits outputs and labels.
        ignore_index: label that is not counted.
        class_axis: axis of the classes in the main output, where shapes do not tell.
        seed: of what is drawn for the estimates from gradients.

    Returns:
        The table; ``.rows()`` yields a row for each layer and level. :func:`attar.quantize` reads it.

    Raises:
        SpecError: an option is invalid, or the folder has another measurement.
        DataError: the data do not fit the module.
        ModelError: the module cannot be traced.
        UnknownName: a glob or name matches nothing.

    Example:
        >>> import attar, torch
        >>> net = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
        >>> table = attar.sensitivity(net, torch.randn(64, 8), levels=(2, 8))
        >>> [(layer.name, layer.at(2).error > layer.at(8).error) for layer in table.layers]
        [('0.weight', True), ('2.weight', True)]
    """
    chosen = _levels(what, levels, rates)
    options = {"symmetric": symmetric, "granularity": granularity, "scales": scales, "correct_bias": correct_bias}
    stage: PostTrainingQuantize = build_spec(PostTrainingQuantize, where="sensitivity", keep=tuple(keep), **options)
    usual = {"scales": SCALES}
    rounding = [
        name
        for name in options
        if getattr(stage, name) != usual.get(name, PostTrainingQuantize.model_fields[name].default)
    ]
    if what != "bits" and rounding:
        raise SpecError(
            f"{', '.join(rounding)}: with what={what!r} nothing is rounded; leave that out, or write what='bits'"
        )
    module, inputs, _ = prepare(module, data, examples=examples, batch=batch, collate=collate, dynamic=dynamic)
    example, axes, inputs = example_of(inputs, dynamic)
    compared = labelled_examples(inputs, labels, metric, ClassLayout(class_axis, ignore_index))
    targets = tuple(each for each in compared.targets if each is not None)
    labelled = Labelled.of(compared, FileInfo(task=task, class_names=tuple(class_names)))
    given = CalibrationInputs(inputs.batches, inputs.names, inputs.axes, inputs.notes, targets)
    meter: SensitivityMeter
    if what == "channels":
        captured = capture(module, example, names=inputs.names, dynamic=axes, train=False)
        asked = build_spec(ChannelPruning, where="sensitivity", channels=0.5, score=score or "l2", exclude=tuple(keep))
        batches = [
            Batch(each, target, names=given.names)
            for each, target in zip(given.batches, compared.targets or (None,) * len(given.batches), strict=False)
        ]
        gradients = partial(part_gradients, captured, batches, compared.layout)
        ranked = rank_channels(module, captured, asked, gradients, seed=seed, judged=JudgedChannels(given, labelled))
        meter = ranked.meter([level.value for level in chosen], asked.score)
    else:
        model = CompressedModel.of(trace(module, example, names=inputs.names, dynamic=axes))
        names = stage.chosen(model)
        at, method = _method(what, chosen, stage, model, names, Context(given.first(CALIBRATED), seed), score)
        meter = TensorMeter(
            model=model,
            inputs={MAIN: given},
            names=names,
            levels=chosen,
            at=at,
            what="sparsity" if what == "sparsity" else "bits",
            method=method,
            labelled=labelled,
            seed=seed,
        )
    with interruptible():
        return _measured(meter, None if folder is None else SensitivityFolder(Path(folder)))


def _measured(meter: SensitivityMeter, folder: SensitivityFolder | None) -> SensitivityTable:
    known: dict[str, LayerSensitivity] = folder.resume(meter.table()) if folder else {}
    for layer in meter.measure(known):
        known[layer.name] = layer
        if folder:
            folder.add(layer)
    table = meter.table([known[name] for name in meter.names])
    if folder:
        folder.finish(table)
    return table


def _method(
    what: str,
    levels: Sequence[Level],
    stage: PostTrainingQuantize,
    model: CompressedModel,
    names: Sequence[str],
    context: Context,
    score: str | None,
) -> tuple[AtLevel, dict[str, Any]]:
    if what == "sparsity":
        score = score or "l1"
        if needs := SCORES[score].needs:
            raise SpecError(f"score {score} needs {needs}; sensitivities of sparsity are by l1, l2 or random")
        return partial(pruned, model, names, score=score), {"name": "prune", "score": score}
    if score is not None:
        raise SpecError(f"score {score}: bits have none; leave it out, or write what='channels' or 'sparsity'")

    made: list[Callable[[Mapping[str, Level]], CompressedModel]] = []

    def rounded(level: Level) -> CompressedModel:
        if not made:  # what is measured already needs no calibration
            made.append(stage.choice(model, context.use, names, inputs_by_graph(model, context.calibration), levels))
        return made[0](dict.fromkeys(names, level))

    return rounded, {key: value for key, value in stage.describe().items() if key != "bits"}


def _levels(what: str, levels: Sequence[float] | None, rates: Sequence[float]) -> tuple[Level, ...]:
    if what not in LEVELS:
        raise SpecError(f"what={what!r}: write bits, sparsity or channels")
    found = tuple(sorted(set(LEVELS[what] if levels is None else levels)))
    if what == "bits" and not all(each in ROUNDED_BITS for each in found):
        raise SpecError(f"levels {[*found]}: bits are whole numbers from 2 to 8")
    if what != "bits" and not all(0 < each < 1 for each in found):
        raise SpecError(f"levels {[*found]}: shares lie between 0 and 1, as 0.5")
    if not found:
        raise SpecError("levels are empty; give one or more, such as 2, 4, 8")
    if not rates or not all(0 <= each < math.inf for each in rates) or (what != "bits" and any(rates)):
        raise SpecError(f"rates {[*rates]}: relative errors of 0 and more, such as 0, 0.01, for what='bits'")
    values = [int(each) if what == "bits" else float(each) for each in found]
    return tuple(Level(value, float(rate)) for value in values for rate in sorted(set(rates)))
