"""A table of sensitivities that the user gives: whether it is of this model, and of this rounding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attar._src.core.errors import SpecError
from attar._src.methods.allocate.sensitivity_table import SensitivityTable
from attar._src.methods.allocate.tensor_meter import tensors_digest
from attar._src.work.compressed_model import CompressedModel

#: What must be alike in the record of the stage that a table was measured with.
ROUNDING = ("scheme", "scales", "symmetric", "granularity", "correct_bias")
#: What no table is measured with.
UNMEASURED = ("power_of_two", "equalize")


def given_table(path: str, model: CompressedModel, names: Sequence[str], method: Mapping[str, Any]) -> SensitivityTable:
    """Return the table at a path, with the levels that a stage may give; with a rate those at this rate.

    Args:
        path: of ``sensitivity.json`` or its folder.
        model: that is rounded.
        names: of the tensors to choose levels for.
        method: record of the stage.

    Raises:
        AttarError: there is none, or it is damaged; the message has the field.
        SpecError: it is of another model, method or tensors.
    """
    if unmeasured := [key for key in UNMEASURED if key in method]:
        raise SpecError(
            f"a table of sensitivities is measured without {' and '.join(unmeasured)}, whose errors are others; leave "
            "the table out, so that they are measured here, or leave out that option"
        )
    table = SensitivityTable.read(path)
    differing = [key for key in ROUNDING if table.method.get(key) != method.get(key)]
    if table.what == "bits" and differing:
        raise SpecError(
            f"the table of sensitivities was measured with another {' and '.join(differing)}: "
            + ", ".join(
                f"{key} {table.method.get(key, 'default')}, here {method.get(key, 'default')}" for key in differing
            )
            + "; measure again with these options, or leave the table out"
        )
    if table.what != "bits" or table.model != tensors_digest(model):
        raise SpecError("the table of sensitivities is of another model or of sparsity; measure again")
    if missing := [name for name in names if name not in {layer.name for layer in table.layers}]:
        raise SpecError(f"the table of sensitivities lacks {missing[:3]}; measure without keep, or keep them here")
    rate = method.get("rate", 0.0)
    if not rate:
        return table
    if rate not in (rates := sorted({each.rate for each in table.every_level()})):
        raise SpecError(
            f"rate {rate:g}: the table of sensitivities was measured at the rates {rates}; measure it with "
            f"--rates {rate:g}, or leave rate out, which chooses among those of the table"
        )
    return table.at_rate(rate)
