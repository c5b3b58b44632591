"""``attar.quantize``: a trained module in, a verified file out.

trace -> dry run -> quantize -> pack -> decode -> parity -> file
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from torch import fx

from attar._src.artifact.limits import Limits
from attar._src.artifact.manifest import Preprocessing
from attar._src.artifact.packing import AUTO, demand_coder
from attar._src.core.scheme import Granularity
from attar._src.core.spec import build_spec
from attar._src.core.tensors import Codebook, Quantized
from attar._src.data.axes import Dynamic
from attar._src.deploy.choices.best_options import Search
from attar._src.deploy.choices.choose_activations import CHOICES, choose_activations
from attar._src.deploy.choices.fit_latency import LatencyFit
from attar._src.deploy.choices.goals import bit_target, check_goals
from attar._src.deploy.dry_run import check_deployable, example_of
from attar._src.deploy.fidelity import ComparedExamples, labelled_examples
from attar._src.deploy.first_run import prepare
from attar._src.deploy.package import package
from attar._src.deploy.parity import Parity
from attar._src.deploy.pruning.untrained import untrained_warning
from attar._src.deploy.tolerance import TOLERANCE, Tolerance
from attar._src.deploy.validation_inputs import validation_inputs
from attar._src.measure.class_layout import IGNORE_INDEX, ClassLayout
from attar._src.measure.metric import metric_name
from attar._src.methods.quantize.ptq.reconstruct.stage import Reconstruct
from attar._src.methods.quantize.ptq.stage import PostTrainingQuantize
from attar._src.methods.quantize.short_numbers import shorten_numbers
from attar._src.methods.quantize.unquantized import left_in_floating_point
from attar._src.model.dependencies.record import recorded_removals
from attar._src.model.trace import trace
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.compressed_model import CompressedModel, FileInfo
from attar._src.work.context import Context, JudgedExamples


@dataclass(frozen=True, repr=False)
class QuantizationResult:
    """A quantized module, the inputs and metadata for its file, and the parity of the untouched module's file.

    ``notes`` say, by topic, what was done to the module and the data to make them fit.
    """

    compressed: CompressedModel
    data: CalibrationInputs
    use: FileInfo
    dry_run: Parity
    examples: ComparedExamples
    tolerance: Tolerance | None = TOLERANCE
    limits: Limits | None = None
    coder: str = AUTO
    notes: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Return a line; the fields hold all weights and inputs, which a notebook would print."""
        model = self.compressed
        quantized = sum(isinstance(each, Quantized | Codebook) for each in model.tensors.values())
        values = sum(len(graph.activations) for graph in model.graphs.values())
        return f"<QuantizationResult: {quantized} quantized tensors, {values} quantized values; save(path) writes it>"

    @property
    def left(self) -> dict[str, str]:
        """Tensors and values that stay in floating point -> the reason."""
        return left_in_floating_point(self.compressed)

    @property
    def module(self) -> fx.GraphModule:
        """A PyTorch module with the outputs of the file."""
        return self.compressed.simulate()

    def save(self, path: str | Path, *, coder: str | None = None, limits: Limits | None = None) -> dict[str, Any]:
        """Pack, decode, compare, and only then write the file, with ``report.json`` beside it.

        Args:
            path: path of the ``.attar`` file; an existing one is replaced atomically.
            coder: entropy coder of the codes: ``auto``, ``rans``, ``context``, ``huffman`` or ``raw``; that of
                ``attar.quantize`` if None.
            limits: limits of the file's readers, who must raise theirs, too; likewise.

        Returns:
            The report (docs/report.md): warnings, bytes, bits per weight, fidelity to the untouched module, parity with
            the quantized one, folded batch-norms, and the tensors left in floating point.

        Raises:
            ParityError: the decoded file and the quantized module compute different outputs; nothing is written.
            SpecError: with another coder the file has more bytes than were asked for; nothing is written.
        """
        return package(
            self.compressed,
            Path(path),
            self.use,
            self.data,
            coder=coder or self.coder,
            dry_run=self.dry_run,
            examples=self.examples,
            tolerance=self.tolerance,
            limits=limits or self.limits,
            notes=self.notes,
        )


def quantize(
    module: Any,
    data: Any,
    *,
    bits: int | None = None,
    size: float | None = None,
    max_bytes: int | None = None,
    max_drop: float | None = None,
    sensitivity: str | Path | None = None,
    alternatives: Sequence[str] = (),
    validation: Any = None,
    max_ms: float | None = None,
    activations: int | Literal["dynamic", "auto"] | None = None,
    granularity: str | Granularity = "channel",
    symmetric: bool = True,
    scheme: str = "affine",
    scales: str = "auto",
    power_of_two: bool = False,
    rate: float = 0.0,
    observer: str = "auto",
    keep: Sequence[str] = (),
    keep_activations: Sequence[str] = (),
    overrides: Mapping[str, int] | None = None,
    activation_overrides: Mapping[str, int] | None = None,
    correct_bias: bool = True,
    equalize: bool = False,
    reconstruct: bool | Mapping[str, Any] = False,
    best: bool = False,
    minutes: float | None = None,
    labels: Any = None,
    tolerance: Tolerance | Mapping[str, float] | None = TOLERANCE,
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
    coder: str = AUTO,
) -> QuantizationResult:
    """Quantize a trained module after training.

    Args:
        module: any ``nn.Module`` that ``torch.export`` can trace, a program of ``torch.export`` or the path of a
            ``.pt2`` file. It is not changed, except that a lazy module gets its parameters. Wrappers
            (``DataParallel``, ``torch.compile``) are looked through; other types and devices become float32 on the CPU.
        data: real inputs for calibration and comparison, preprocessed: an array or tensor, a tuple of them (several
            inputs), a mapping or dataclass of them by argument, or batches of these, such as a DataLoader or a list of
            mappings; a data set or a list of examples. Optional arguments that are missing keep their defaults.
            Labels, as in ``(x, y)``, serve the comparison with the untouched module.
        bits: bits of a weight, 2 to 8, 1 for some schemes; 4 by default, or what the ``scheme`` has.
        size: instead of ``bits``: bits per weight that the file may have, such as 2.5; each weight gets bits of its own
            (``docs/sensitivity.md``), those in ``overrides`` excepted. A note ``bits`` of the report says which.
        max_bytes: likewise, bytes that the file may have.
        max_drop: likewise, points that the file may lose on examples that calibration does not see: of the metric where
            there are labels, else of predictions that change, else the relative error in per cent. The smallest file
            that is found.
        sensitivity: ``sensitivity.json`` of the same module, or its folder; measured if None.
        alternatives: under a target, schemes and granularities that each weight may have instead: ``("codebook",
            "group:32")``. Each is solved and measured, which takes its time.
        validation: examples for ``max_drop``, in a form that ``data`` may have, labels included; by default half of the
            examples, which then do not calibrate. Never those of the test that is reported.
        max_ms: milliseconds that one example may take on one thread of this machine: activations in floating point if
            they are in time, else static (8 bits) or dynamic for some layers or all, those with the least error whose
            file was timed and holds. A note ``activations`` of the report says which.
        activations: bits of what layers read, 2 to 8; what is added or averaged has 8. ``dynamic``: linear layers
            quantize what they read at run time, to 8 bits over its own range, and other layers read floating point;
            LSTM and GRU do so with both, if they are wide enough to gain time (``docs/models.md``); None leaves
            activations in floating point;
            ``auto`` measures None, ``dynamic`` and 8 on this machine and takes the fastest within the ``tolerance``:
            the note ``activations`` of the report says which, and why.
        granularity: which weights share a scale: ``channel``, ``tensor``, ``group:SIZE``, ``bucket:SIZE``.
        symmetric: weights without zero points, as integer kernels require.
        scheme: values that weights of ``bits`` may have: ``affine``, the whole grid; ``binary`` (bits=1), ``ternary``
            (bits=2), ``apot`` (sums of powers of two, bits 3 to 5) or ``codebook`` (the best ``2**bits`` levels, bits 1
            to 6). All run in integers. Weights in ``overrides`` are affine.
        scales: solver of scales and codes of affine weights: ``absmax``, ``mse``, ``percentile``, ``hqq``, ``minmax``,
            ``gptq`` or ``file.py:name``. ``auto`` is ``gptq`` up to 5 bits and under a target, where it loses least, as
            it sees what each weight multiplies on ``data``; ``absmax`` above, which costs nothing.
        power_of_two: only powers of two as scales of weights and activations, for hardware that rescales by shifts.
        rate: with ``gptq``, the relative error of the layers' outputs that one bit a weight less is worth: codes that
            take fewer bits in the file are preferred, so that 0.003 takes a sixth off the codes of 4 bits.
        observer: observer of the activations' ranges: ``auto`` (``percentile`` with 8 bits, ``mse`` with fewer),
            ``minmax``, ``percentile``, ``mse``, ``kl`` or ``file.py:name``.
        keep: globs of layers left in floating point.
        keep_activations: globs of layers whose inputs stay in floating point while their weights are quantized, or of
            values by their names in warnings and reports.
        overrides: glob of layers -> bits; the last match wins.
        activation_overrides: glob of layers whose inputs have these bits, or of values -> bits, where activations have
            bits.
        correct_bias: subtract the mean output error of rounded weights from the biases behind them.
        equalize: scale channels between layers first, so that both have equal ranges; the network computes the same.
            Worth it with one scale a tensor, and for networks whose channels differ much in size.
        reconstruct: improve codes, scales and grids block by block on the inputs, then on the outputs of the untouched
            module; minutes instead of seconds, and worth it at 4 bits and less. True, or fields of
            :class:`attar.extend.Reconstruct`: ``{"minutes": 5}``, ``{"steps": 1000, "augment": ["crop", "flip"]}``.
            With ``max_ms`` or ``activations="auto"``, each of the three modules that are compared has a third of the
            minutes.
        best: try other solvers, schemes, observers, ``equalize`` and ``reconstruct`` from the cheapest on, as many as
            fit the ``minutes``, and take the one whose outputs are nearest to the untouched module's on one in four
            examples that no option has seen; of two that are within 5 % the smaller file. The weights have the ``bits``
            in any case. What it took is made again of all examples, unless a reconstruction has no time for that. The
            note ``best`` of the report says what was tried and gained, and the options that give the same bytes without
            ``best``, as a machine of another speed may take others.
        minutes: time for ``best``, from the call on; packing the file comes on top.
        labels: targets of the examples, in their order, ``(N, ...)``, by default those in ``data``: ``metric``, by
            default the one that fits outputs and labels, is measured with the untouched module and with the file.
        tolerance: from which loss against the untouched module on there is a warning, such as
            ``{"equal_predictions": 0.9}`` or ``{"signal_to_noise_db": 10}`` (:class:`Tolerance`); None for none.
        examples: largest number of inputs to use.
        batch: inputs per batch, if ``data`` is not batched.
        collate: makes a batch of a list of examples, as the ``collate_fn`` of a DataLoader; pads them, for example.
        dynamic: axes of the inputs whose length may vary at run time: of every input, ``(0, 1)``, or of inputs by name,
            the batch axis first: ``{"x": (0, 1), "state": (1,)}`` for a recurrent state ``(layers, batch, hidden)``.
            By default the batch axes, and those whose length differs between batches. Without the batch axis, as with
            ``()``, the batch size is ``batch``.
        preprocessing: turns a raw example into an input; stored in the file.
        limits: limits of the file's readers, if the defaults are too low: ``Limits().for_elements(2**29)``.
        coder: entropy coder for which bytes are counted under a target, and with which ``save`` packs.
        task, class_names, licence: metadata for the file's users. ``task`` also says how outputs are compared:
            ``classification`` and ``segmentation`` by their predictions, others by their values.
        metric: what judges outputs by labels, also for ``max_drop``: a registered name, ``file.py:name``, or a function
            of outputs and targets with an attribute ``larger_is_better``; files have its name. By default what fits
            outputs and labels; another word is metadata alone.
        ignore_index: label that is not counted; negative ones never are.
        class_axis: axis of the classes in the main output, where shapes do not tell: 1 of ``(N, C, H, W)``.

    Returns:
        The quantized module; ``.save(path)`` writes it, ``.module`` runs it in PyTorch.

    Raises:
        DataError: the data do not fit the module; the message has the nearest fix.
        ModelError: the module cannot be traced or exported; the message has the operator.
        UnknownName: a glob or name matches nothing; the message has the nearest.
        SpecError: an option is invalid.
        ParityError: export changed the outputs of the untouched module, which is deployed first.

    Example:
        >>> import attar, torch
        >>> net = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
        >>> quantized = attar.quantize(net, torch.randn(64, 8), bits=4, activations=8)
        >>> report = quantized.save("m.attar")
    """
    started = time.monotonic()
    demand_coder(coder)
    target = bit_target(size, max_bytes, max_drop, sensitivity, validation, alternatives, bits=bits)
    timed = activations == "auto" or max_ms is not None
    alone = target is None and reconstruct is False
    check_goals(activations, max_ms, best, minutes, target=target is not None, alone=alone)
    stage: PostTrainingQuantize = build_spec(
        PostTrainingQuantize,
        where="quantize",
        **({} if bits is None and target is None else {"bits": bits if target is None else target}),
        activations=8 if timed else activations,
        symmetric=symmetric,
        granularity=granularity,
        scheme=scheme,
        scales=scales,
        power_of_two=power_of_two,
        rate=rate,
        observer=observer,
        keep=tuple(keep),
        keep_activations=tuple(keep_activations),
        overrides=dict(overrides or {}),
        activation_overrides=dict(activation_overrides or {}),
        correct_bias=correct_bias,
        equalize=equalize,
    )
    improving: Reconstruct | None = None
    if reconstruct is not False:
        fields = dict(reconstruct) if isinstance(reconstruct, Mapping) else {}
        improving = build_spec(Reconstruct, where="reconstruct", **fields)
        improving.check([stage])
        if timed and improving.minutes:
            improving = improving.model_copy(update={"minutes": improving.minutes / len(CHOICES)})
    loss = build_spec(Tolerance, where="tolerance", **tolerance) if isinstance(tolerance, Mapping) else tolerance
    module, inputs, notes = prepare(module, data, examples=examples, batch=batch, collate=collate, dynamic=dynamic)
    use = FileInfo(preprocessing, task, tuple(class_names), metric_name(metric), licence)
    example, axes, inputs = example_of(inputs, dynamic)
    compared = labelled_examples(inputs, labels, metric, ClassLayout(class_axis, ignore_index))
    traced = trace(module, example, names=inputs.names, dynamic=axes)
    dry_run = check_deployable(module, traced, use, inputs, limits=limits)
    held_out = None
    if validation is not None:
        held_out = validation_inputs(module, validation, example, axes, batch=batch, collate=collate, dynamic=dynamic)
    judged = JudgedExamples(held_out, compared.metric, compared.layout, compared.given)
    untouched = CompressedModel.of(traced, record=recorded_removals(module))
    untouched = replace(untouched, warnings=(*untrained_warning(module), *untouched.warnings))
    given = Context(compared.with_targets(), use=use, coder=coder, judged=judged)
    rows: list[Mapping[str, Any]] = []

    def made(stage: PostTrainingQuantize) -> CompressedModel:
        rounded = stage.run(untouched, given)
        return shorten_numbers(rounded if improving is None else improving.improve(rounded, given, rows.append))

    if best:
        search = Search.of(untouched, given, minutes or 0.0, started)
        done = search.run(stage).model
        notes = {**notes, "best": search.note()}
        return QuantizationResult(done, inputs, use, dry_run, compared, loss, limits, coder, notes)
    if not timed:
        done = made(stage)
        return QuantizationResult(
            done, inputs, use, dry_run, compared, loss, limits, coder, {**notes, **_seconds(rows)}
        )
    models = {each: made(stage.model_copy(update={"activations": each})) for each in CHOICES}
    if max_ms is not None:
        done, why = LatencyFit(models, use, compared, limits).fit(max_ms)
    else:
        taken, why = choose_activations(models, use, compared, tolerance=loss, limits=limits)
        done = models[taken]
    notes = {**notes, **_seconds(rows), "activations": why}
    return QuantizationResult(done, inputs, use, dry_run, compared, loss, limits, coder, notes)


def _seconds(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return a note on the time that reconstruction took, and on what it makes of fidelity; empty without."""
    if not rows:
        return {}
    units = ", ".join(f"{row['unit']} {row['seconds']:.1f} s" for row in rows)
    total = sum(row["seconds"] for row in rows)
    return {
        "reconstruct": f"{total:.0f} s: {units}. Fidelity compares the examples that it was trained on; expect less of "
        "others, and measure them with attar eval"
    }
