"""The plan: every layer is counted once, under the arithmetic it runs in, with the reason."""

import pytest

from attar._src.measure import layer_plan as plans
from attar._src.measure.layer_plan import plan_of
from attar._src.runtime.session import Layer


def layers(*names):
    return [Layer(str(place), (), "", "integers" in name, "", name) for place, name in enumerate(names)]


def test_layers_are_counted_by_plan_and_reasons_are_given(monkeypatch):
    monkeypatch.setattr(plans, "measured_single_row_ratio", lambda: None)
    found = plan_of(layers("float32", "integers", "integers", "dynamic integers"), "auto")
    assert [(part.plan, part.layers) for part in found] == [("integers", 2), ("float32", 1), ("dynamic integers", 1)]
    why = {part.plan: part.why for part in found}
    assert why["integers"] == "what they read has a grid in the file"
    assert why["dynamic integers"] == "they quantize what they read at run time, as the file says"
    assert why["float32"] == ""


@pytest.mark.parametrize(("plan", "ratio"), [("packed weights", 0.47), ("float32", 1.47)])
def test_what_was_measured_is_said(monkeypatch, plan, ratio):
    monkeypatch.setattr(plans, "measured_single_row_ratio", lambda: ratio)
    monkeypatch.setattr(plans, "pays_for_single_rows", lambda: ratio < 0.9)
    (part,) = plan_of(layers(plan), "auto")
    assert part.why == f"a single row takes {ratio} times as long packed as in float32, measured here"
    assert plan_of(layers("packed weights"), "packed")[0].why == "on request"
    assert plan_of(layers("float32"), "float32")[0].why == ""


def test_what_was_faster_packed_is_no_reason_for_float32(monkeypatch):
    monkeypatch.setattr(plans, "measured_single_row_ratio", lambda: 0.47)
    monkeypatch.setattr(plans, "pays_for_single_rows", lambda: True)
    assert plan_of(layers("float32"), "auto")[0].why == ""
