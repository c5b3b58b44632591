"""The channels of a module that can be removed, with their scores, and the module without some of them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import nn

from attar._src.artifact.packing import AUTO
from attar._src.artifact.writer import pack
from attar._src.core.errors import DataError, ModelError, SpecError, UnknownName
from attar._src.methods.allocate.level import Level
from attar._src.methods.allocate.sensitivity_table import SensitivityTable
from attar._src.methods.prune.channels.allocation import ChannelAllocation
from attar._src.methods.prune.channels.amount import ChannelPruning
from attar._src.methods.prune.channels.choose import ChannelChoice, ChosenUnits
from attar._src.methods.prune.channels.costs import ChannelCost, ChannelCosts
from attar._src.methods.prune.channels.making_up import make_up
from attar._src.methods.prune.channels.sensitivities import (
    FLOAT_BYTES,
    REMOVED_SHARES,
    ChannelMeter,
    JudgedChannels,
    channel_table,
)
from attar._src.methods.prune.pruned_module import PrunedModule, parameter_count
from attar._src.methods.prune.weights.own_values import put_values
from attar._src.model.capture import CapturedModel, capture
from attar._src.model.dependencies.check import Removable, settle
from attar._src.model.dependencies.find import Dependencies, matches_layer
from attar._src.model.dependencies.record import recorded_removals, remove_and_record
from attar._src.model.programs import state_of
from attar._src.model.trace import deploy_graph
from attar._src.work.compressed_model import MAIN, CompressedModel, FileInfo

#: Chooses units of what can be removed.
ChooseUnits = Callable[[Dependencies], ChosenUnits]
#: Files that are made at most for one size.
_FILES = 6
_NO_INFO = FileInfo()


@dataclass(frozen=True)
class RankedChannels:
    """The channels of a module that can be removed, with their scores.

    Attributes:
        module: the module, which stays as it is.
        captured: the module, captured.
        removable: what can be removed.
        scores: of the units.
        judged: examples for the scope ``sensitivity``.
        use: what the file tells its user, whose bytes count.
        seed: of the measurement.
    """

    module: nn.Module
    captured: CapturedModel
    removable: Removable
    scores: Mapping[int, float]
    judged: JudgedChannels | None = None
    use: FileInfo = _NO_INFO
    seed: int = 0

    def meter(self, levels: Sequence[float], score: str) -> ChannelMeter:
        """Return what measures each group alone."""
        assert self.judged is not None
        return ChannelMeter(
            inputs={MAIN: self.judged.inputs},
            names=[group.name for group in self.removable.found.groups],
            levels=[Level(level) for level in levels],
            what="channels",
            method={"name": "prune_channels", "score": score},
            labelled=self.judged.labelled,
            seed=self.seed,
            module=self.module,
            captured=self.captured,
            found=self.removable.found,
            choice=ChannelChoice(self.scores, "layer"),
        )

    @cached_property
    def _tables(self) -> dict[str, tuple[ChannelMeter, SensitivityTable]]:
        return {}

    def _measured(self, pruning: ChannelPruning) -> tuple[ChannelMeter, SensitivityTable]:
        """Return the meter and its table, which several targets share."""
        key = pruning.sensitivity or ""
        if key not in self._tables:
            meter = self.meter(REMOVED_SHARES, pruning.score)
            table = channel_table(key, meter) if key else meter.table(list(meter.measure()))
            self._tables[key] = meter, table
        return self._tables[key]

    @cached_property
    def costs(self) -> ChannelCosts:
        """What is left without units."""
        return ChannelCosts(self.removable.found, self.module)

    def chooser(self, pruning: ChannelPruning) -> ChannelChoice | ChannelAllocation:
        """Return what chooses units under a cost."""
        scope = pruning.chosen_scope
        if scope != "sensitivity":
            return ChannelChoice(self.scores, scope, pruning.round_to, pruning.least)
        return ChannelAllocation(*self._measured(pruning), self.choice_by_group(pruning))

    def choice_by_group(self, pruning: ChannelPruning) -> ChannelChoice:
        """Return what chooses a share of the units of each group."""
        return ChannelChoice(self.scores, "layer", pruning.round_to, pruning.least)

    def most_macs(self, pruning: ChannelPruning) -> float:
        """Return the share of the multiplications that can be removed."""
        left = self.chooser(pruning).lowest_cost(self.removable.found, self.costs.macs)
        return 1 - left / max(self.costs.macs(()), 1)

    def without(self, pruning: ChannelPruning) -> PrunedModule:
        """Return the module without the channels that ``pruning`` asks for.

        Raises:
            DataError: the weights that remain are to make up for them, and there are no inputs.
            ModelError: nothing can be removed, or not what was chosen of several groups together; the message has the
                reasons.
            SpecError: the target cannot be reached.
        """
        if pruning.update != "none" and self.judged is None:
            raise DataError(
                "the weights that remain make up for what is removed on inputs; give some, or update='none'"
            )
        if pruning.max_bytes is not None:
            return self._in_bytes(pruning, pruning.max_bytes)
        return self._made(self._settled(self._choice(pruning)), pruning)

    def _choice(self, pruning: ChannelPruning) -> ChooseUnits:
        """Return what chooses the units that shares ask for."""
        if pruning.overrides:
            self.demand_groups(pruning.overrides)
            return lambda found: ChosenUnits(self.units_by_group(found, pruning))
        costs, chooser = self.costs, self.chooser(pruning)
        if pruning.macs is not None:
            return _under(chooser, costs.macs, (1 - pruning.macs) * costs.macs(()), f"macs={pruning.macs:g}")
        assert pruning.channels is not None
        if isinstance(chooser, ChannelAllocation):
            return _under(
                chooser, costs.units, (1 - pruning.channels) * costs.units(()), f"channels={pruning.channels:g}"
            )
        share = pruning.channels
        return lambda found: ChosenUnits(chooser.of_share(found, share))

    def units_by_group(self, found: Dependencies, pruning: ChannelPruning) -> frozenset[int]:
        """Return the units that ``channels`` and ``overrides`` remove, each group with a share of its own."""
        choice = self.choice_by_group(pruning)
        shares = {group.name: pruning.channels or 0.0 for group in found.groups}
        for glob, share in pruning.overrides.items():
            shares |= {group.name: share for group in found.groups if group.matches(glob)}
        return frozenset[int]().union(*(choice.of_group(found, each, shares[each.name]) for each in found.groups))

    def demand_groups(self, globs: Iterable[str]) -> None:
        """Check that every glob matches a layer whose channels can be removed.

        Raises:
            UnknownName: one does not.
            SpecError: it matches only layers whose channels stay; the message has the reason.
        """
        found = self.removable.found
        for glob in globs:
            if any(group.matches(glob) for group in found.groups):
                continue
            kept = next((why for name, why in found.excluded.items() if matches_layer(name, glob)), None)
            if kept is not None:
                raise SpecError(f"overrides {glob!r}: no channels of it can be removed: {kept}")
            raise UnknownName("layer", glob, [name.rpartition(".")[0] or name for name in found.widths()])

    def _in_bytes(self, pruning: ChannelPruning, most: int) -> PrunedModule:
        """Return the module whose file has at most so many bytes; what one takes beside its elements corrects the next.

        Raises:
            SpecError: no file is so small; the message has the nearest that is.
        """
        chooser, elements = self.chooser(pruning), self.costs.elements
        fixed = float(len(self.packed(self.module)) - FLOAT_BYTES * elements(()))
        least, size = chooser.lowest_cost(self.removable.found, elements), 0
        for tried in range(_FILES):
            aim = (most - fixed) / FLOAT_BYTES if tried < _FILES - 1 else least
            settled = self._settled(_under(chooser, elements, max(aim, least), f"max_bytes={most}"))
            # What other weights become takes long, and changes a file's size by what its coder makes of them alone.
            for update in dict.fromkeys(("none", pruning.update)):
                made = self._made(settled, pruning.model_copy(update={"update": update}))
                size = len(self.packed(made.module))
                if size > most:
                    break
            else:
                return made
            if aim <= least:
                break
            # Normalizations are folded into other tensors: fewer of these take fewer bytes than their elements have.
            left = sum(each.numel() for each in state_of(made.module).values())
            fixed = max(fixed + size - most, float(size - FLOAT_BYTES * left))
        raise SpecError(
            f"max_bytes={most}: without all that can be removed the file has {size:,} bytes; the nearest target is "
            f"max_bytes={size}, or quantize the pruned module"
        )

    def packed(self, module: nn.Module) -> bytes:
        """Return the file in floating point of the module with less in it."""
        given = self.captured
        again = capture(module, given.example, names=given.names, dynamic=given.axes, train=False)
        model = CompressedModel.of(deploy_graph(module, again), record=recorded_removals(module))
        return pack(model.contents(self.use), coder=AUTO)

    def _settled(self, choose: ChooseUnits) -> _Settled:
        """Return the units that a choice comes to, of what the module's code follows."""
        notes = [""]

        def chosen(found: Dependencies) -> frozenset[int]:
            if not found.groups:
                reasons = "; ".join(f"{name}: {why}" for name, why in [*found.excluded.items()][:6])
                reasons = reasons or "it has no layers"
                raise ModelError(f"no channel of {type(self.module).__name__} can be removed: {reasons}")
            units, notes[0] = choose(found)
            return units

        removable, units = settle(self.module, self.captured, self.removable, chosen)
        return _Settled(removable, units, notes[0])

    def _made(self, settled: _Settled, pruning: ChannelPruning) -> PrunedModule:
        """Return the module without these units."""
        module, found, units = self.module, settled.removable.found, settled.units
        smaller, remarks = copy.deepcopy(module), ""
        if pruning.update == "obs" and units:
            assert self.judged is not None
            made = make_up(module, self.captured, found, units, self.judged.more or self.judged.inputs)
            put_values(smaller, made.values)
            remarks = made.remarks
        record = remove_and_record(smaller, settled.removable, units)
        figures = {
            "macs": [found.macs(), found.macs(units)],
            "parameters": [parameter_count(module), parameter_count(smaller)],
        }
        groups = {g.name: (sum(unit in units for unit in g.units), len(g.units)) for g in found.groups}
        after = found.widths(units)
        widths = {name: (width, after[name]) for name, width in found.widths().items()}
        why = dict(found.excluded)
        return PrunedModule(smaller, record, figures, why, groups, widths, note=settled.note, remarks=remarks)


@dataclass(frozen=True)
class _Settled:
    """Units to remove of what is removable, and how they were chosen, in words."""

    removable: Removable
    units: frozenset[int]
    note: str


def _under(chooser: ChannelChoice | ChannelAllocation, cost: ChannelCost, most: float, said: str) -> ChooseUnits:
    """Return what chooses units without which a cost is at most so much; ``said`` is how that was asked for."""

    def choose(found: Dependencies) -> ChosenUnits:
        chosen = chooser.under(found, cost, most)
        if chosen is None:
            least, whole = chooser.lowest_cost(found, cost), cost(())
            raise SpecError(
                f"{said}: without all that can be removed {least / whole:.3f} of it are left, and "
                f"{most / whole:.3f} were asked for; the most is {1 - least / whole:.3f}"
            )
        return chosen

    return choose
