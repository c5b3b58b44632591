"""Structured pruning of a module: what is asked for."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from attar._src.core.spec import PartShare, SomeShare, Spec, registered_word
from attar._src.methods.prune.channels.scores import CHANNEL_SCORES

ChannelScope = Literal["layer", "global", "sensitivity"]
ChannelUpdate = Literal["none", "obs"]


class ChannelPruning(Spec):
    """How many channels are removed, and which.

    A *unit* is what can only be removed together: a channel with all that reads it or is added to it, an attention
    head, a hidden unit of an LSTM with its gates, a group of a grouped convolution. Units that are output channels of
    the same layers are a group.

    Attributes:
        channels: share of the units to remove.
        overrides: glob of layers or weights -> share of the units of each group that has one of them, the last that
            matches counts; without ``channels`` other groups stay.
        macs: share of the multiplications to remove, instead of ``channels``.
        max_bytes: bytes that the file in floating point may have, instead of either.
        score: name of the score.
        scope: ``layer`` removes the same share of every tier, the channels that the same layers have; ``global`` the
            lowest scores of all; ``sensitivity`` of each group as many as measured errors of the outputs allow
            (:mod:`.allocation`). By default ``layer`` with ``channels``, ``global`` with ``macs``, and ``sensitivity``
            with ``max_bytes`` or a table.
        sensitivity: path of ``sensitivity.json`` or its folder, of the same model and score; measured if None.
        exclude: globs of layers or weights whose output channels stay.
        round_to: what remains of a tier is a multiple of this, where it has so many channels.
        least: share of each tier that remains.
        update: what becomes of the weights that remain: ``obs`` makes them the best for what each layer reads without
            what was removed (:mod:`.making_up`), ``none`` leaves them as they are.
    """

    channels: PartShare | None = None
    overrides: dict[str, SomeShare] = {}
    macs: PartShare | None = None
    max_bytes: Annotated[int, Field(gt=0)] | None = None
    score: Annotated[str, registered_word(CHANNEL_SCORES)] = "l2"
    scope: ChannelScope | None = None
    sensitivity: str | None = None
    exclude: tuple[str, ...] = ()
    round_to: Annotated[int, Field(ge=1)] = 1
    least: SomeShare = 0.1
    update: ChannelUpdate = "obs"

    @model_validator(mode="after")
    def _one_amount(self) -> Self:
        amounts = sum(each is not None for each in (self.channels, self.macs, self.max_bytes))
        if amounts > 1 or not (amounts or self.overrides):
            raise ValueError("give one of the three: channels, macs or max_bytes; or overrides")
        if self.overrides and (self.macs is not None or self.max_bytes is not None or self.chosen_scope != "layer"):
            raise ValueError(
                "overrides are shares of each group: give channels beside them, or nothing, and scope layer"
            )
        if self.sensitivity is not None and self.chosen_scope != "sensitivity":
            raise ValueError(f"a table of sensitivities is for scope sensitivity, and {self.scope} came; leave one out")
        return self

    @property
    def chosen_scope(self) -> ChannelScope:
        """The scope that was given, or the one that fits the amount."""
        if self.scope is not None:
            return self.scope
        if self.max_bytes is not None or self.sensitivity is not None:
            return "sensitivity"
        return "layer" if self.macs is None else "global"
