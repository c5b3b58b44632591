"""What ``attar.prune`` is asked for: options of channels, of layers or of weights, which exclude each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attar._src.core.errors import SpecError
from attar._src.core.spec import Spec, build_spec
from attar._src.methods.allocate.target import BitTarget
from attar._src.methods.prune.channels.amount import ChannelPruning
from attar._src.methods.prune.layers.pruning import LayerPruning
from attar._src.methods.prune.units import PruningUnit
from attar._src.methods.prune.weights.own_sparsity import TRIED
from attar._src.methods.prune.weights.pruning import WeightPruning
from attar._src.report.wording import plural

Asked = ChannelPruning | LayerPruning | WeightPruning

#: What is pruned -> its options, the first of which tells of it.
OPTIONS = {
    "channel": ("channels", "macs", "max_bytes", "scope", "sensitivity", "round_to", "least", "update", "overrides"),
    "layer": ("layers", "macs"),
    "weight": ("sparsity", "max_bytes", "max_drop", "scope", "sensitivity", "update", "overrides"),
}
#: Options that say how much.
AMOUNTS = ("channels", "layers", "sparsity", "macs", "max_bytes", "max_drop", "overrides")
_LONG = "takes minutes for a large module; sensitivity='FOLDER' takes a table of attar sensitivity instead"
_KINDS: dict[str, type[Spec]] = {"channel": ChannelPruning, "layer": LayerPruning, "weight": WeightPruning}


def asked_pruning(unit: str | None, score: str | None, exclude: Sequence[str], **options: Any) -> Asked:
    """Return what to remove.

    Args:
        unit: ``channel``, ``layer``, ``weight``, an N:M pattern or a block; None for what the options tell.
        score: None for the default of what is pruned.
        exclude: globs of layers.
        options: those of all units, ``macs`` and ``max_ms``; None if not given. With ``max_ms`` the amount of the
            result says nothing. ``max_bytes`` and ``max_drop`` are of weights, unless channels are named.

    Raises:
        SpecError: there is no such unit, or an option is of another one, or says how much beside ``max_ms``.
    """
    given = {name: value for name, value in options.items() if value is not None}
    if "max_ms" in given:
        if amounts := [name for name in AMOUNTS if name in given]:
            raise SpecError(f"max_ms= tells how much is removed; leave out {amounts[0]}=")
        if not (most := given.pop("max_ms")) > 0:
            raise SpecError(f"max_ms={most:g}: give a time above 0")
        given["macs"] = 0.5
    if unit is None:
        told = [kind for kind, own in OPTIONS.items() if own[0] in given]
        targets = "weight" if {"max_bytes", "max_drop"} & given.keys() else "channel"
        unit = told[0] if told else targets
    if unit in ("channel", "layer"):
        kind = unit
        given["exclude"] = tuple(exclude)
    else:
        try:
            PruningUnit.parse(unit)
        except SpecError as error:
            raise SpecError(f"{error}; or channel, or layer") from error
        kind = "weight"
        given |= {"unit": unit, "keep": tuple(exclude)}
    for name in [name for name in options if name in given and name not in OPTIONS[kind]]:
        timed = name == "macs" and options.get("max_ms") is not None
        of = " or ".join(repr(each) for each, own in OPTIONS.items() if name in own)
        raise SpecError(
            f"{'max_ms' if timed else name}= is of unit={of}, and unit={unit!r} is pruned; give one of the two"
        )
    if kind == "weight":
        _join_target(given)
    if score is not None:
        given["score"] = score
    asked: Asked = build_spec(_KINDS[kind], where="prune", **given)
    return asked


def parts_in_words(asked: Asked, max_ms: float | None, examples: int) -> list[str]:
    """Return what is scored, and by what; then what takes long, if anything does, and what becomes of the module."""
    what = "weights"
    if not isinstance(asked, WeightPruning):
        what = "layers" if isinstance(asked, LayerPruning) else "channels and what goes with them"
    scored = f"scoring {what} by {asked.score}, on {plural(examples, 'example')} where it reads any"
    if isinstance(asked, ChannelPruning) and asked.update != "none":
        scored += "; the weights that remain make up for them, layer after layer"
    return [scored, *filter(None, [_long_step(asked, max_ms)])]


def _long_step(asked: Asked, max_ms: float | None) -> str:
    """Return what takes long, and what becomes of the module by it, in a sentence; empty if nothing does."""
    if max_ms is not None:
        what = "layers" if isinstance(asked, LayerPruning) else "channels"
        return f"{what} are removed until the file takes {max_ms:g} ms: files are made and timed, one after the other"
    if isinstance(asked, WeightPruning) and isinstance(asked.sparsity, BitTarget):
        told = (
            "single weights become zero, of each layer as many as its sensitivity allows; that saves bytes, no time "
            "(for both remove channels: unit='channel')"
        )
        measured = f"all weights are pruned and measured at {len(TRIED)} sparsities, which {_LONG}"
        return told if asked.sparsity.sensitivity else f"{told}; {measured}"
    if isinstance(asked, ChannelPruning) and asked.chosen_scope == "sensitivity" and not asked.sensitivity:
        return f"channels are removed as measured errors allow; each group is measured alone, which {_LONG}"
    return ""


def _join_target(given: dict[str, Any]) -> None:
    """Make of ``max_bytes``, ``max_drop`` and ``sensitivity`` the target that the sparsity of weights may be.

    Raises:
        SpecError: there is a sparsity, too, or a table without a target.
    """
    target = {name: given.pop(name) for name in ("max_bytes", "max_drop") if name in given}
    if target and "sparsity" in given:
        raise SpecError(f"sparsity= is chosen under {next(iter(target))}=; leave it out")
    table = given.pop("sensitivity", None)
    if table is not None and not target and not isinstance(given.get("sparsity"), Mapping):
        raise SpecError("a table of sensitivities chooses under a target; give max_bytes= or max_drop=")
    if target:
        given["sparsity"] = target
    if table is not None:
        given["sparsity"] = {**given["sparsity"], "sensitivity": table}
