"""Target of an allocation: a size of the file, or a drop against the floating model."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from attar._src.core.spec import Spec, refused

#: With these words begins why a size cannot be had.
NO_FILE = "no file of"


class BitTarget(Spec):
    """What bits are chosen for; one of three.

    Attributes:
        size: bits per weight: ``8 (file bytes - graph bytes) / parameters``, at most.
        max_bytes: bytes of the file, at most.
        max_drop: in percentage points, at most, on the calibration examples: of the metric, where there are labels; of
            predictions that change, where there are classes; else the relative error of the main output in per cent.
        sensitivity: path of ``sensitivity.json`` or its folder, of the same model; measured if None.
        alternatives: schemes (``codebook``) and granularities (``group:32``) that each weight may have instead of the
            affine grid and the granularity of the stage.
    """

    size: Annotated[float, Field(gt=0)] | None = None
    max_bytes: Annotated[int, Field(gt=0)] | None = None
    max_drop: Annotated[float, Field(ge=0)] | None = None
    sensitivity: str | None = None
    alternatives: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = [name for name in ("size", "max_bytes", "max_drop") if getattr(self, name) is not None]
        if len(given) != 1:
            raise refused(f"give one of size, max_bytes and max_drop, as in {{size: 2.5}}; {given or 'none'} came")
        if self.sensitivity and self.alternatives:
            raise refused("a table of sensitivities has levels of its own; leave it out, or alternatives")
        return self
