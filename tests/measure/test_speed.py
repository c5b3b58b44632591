"""Whether integers pay: measured beside floating point, and said before a file is shipped."""

import json
import sys

import numpy as np
import pytest
import torch
from tests import samples

import attar
from attar._src.artifact.reader import open_artifact
from attar._src.artifact.writer import pack
from attar._src.core.errors import AttarWarning
from attar._src.measure.speed import Speed, measure_speed
from attar._src.runtime.session import Session

SLOW = Speed(1.3, 1.0, 1.30, 1.25, 1.36, 50)


@pytest.fixture(autouse=True)
def warned_of_time(monkeypatch):
    """As outside of tests."""
    monkeypatch.setattr("attar._src.measure.speed.WORTH_MS", 0.5)


def test_a_file_is_timed_beside_the_same_graph_in_floating_point(monkeypatch):
    artifact = open_artifact(pack(samples.conv_net()))
    lowered, speed = [], sys.modules["attar._src.measure.speed"]
    monkeypatch.setattr(speed, "lower", lambda *given, **how: lowered.append(how) or lower(*given, **how))
    lower = sys.modules["attar._src.runtime.lower"].lower
    found = measure_speed(artifact, "main", Session(artifact).example())
    assert lowered == [{"floating": True}]
    assert 0 < found.low <= found.ratio <= found.high
    assert 3 <= found.rounds <= 100
    assert min(found.milliseconds, found.floating_milliseconds) > 0


def test_only_what_is_slower_for_certain_and_worth_it_is_warned_of():
    assert SLOW.warning.startswith("integers take 1.30 times as long as floating point on this CPU (one thread), half")
    assert "activations=None" in SLOW.warning
    for other in (
        Speed(1.1, 1.0, 1.05, 0.99, 1.2, 50),  # its quartiles lie on both sides
        Speed(0.3, 0.2, 1.5, 1.4, 1.6, 50),  # calls take a good part of so little time
        Speed(0.4, 1.0, 0.4, 0.38, 0.42, 50),
    ):
        assert other.warning == ""


@pytest.mark.parametrize("activations", [8, "dynamic", None])
def test_the_report_says_what_integers_take(tmp_path, activations):
    net = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Linear(32, 4))
    made = attar.quantize(net, torch.randn(32, 16), bits=8, activations=activations, tolerance=None)
    report = made.save(tmp_path / "m.attar")
    if activations is None:
        assert report["speed"] == {}
        assert "speed" not in report["notes"]
        return
    said = f"integers take {report['speed']['ratio']:.2f} times as long as floating point on this CPU (one thread)"
    assert report["notes"]["speed"] == said
    first = (tmp_path / "m.attar").read_bytes()
    made.save(tmp_path / "m.attar")
    assert (tmp_path / "m.attar").read_bytes() == first  # no time is in the file


def test_a_file_that_is_slower_in_integers_has_a_warning(tmp_path, monkeypatch):
    package, feeds = sys.modules["attar._src.deploy.package"], []
    monkeypatch.setattr(package, "measure_speed", lambda artifact, graph, feed: feeds.append((graph, feed)) or SLOW)
    x = torch.randn(32, 16)
    made = attar.quantize(torch.nn.Linear(16, 4), x, bits=8, activations=8, tolerance=None)
    with pytest.warns(AttarWarning, match=r"m.attar: integers take 1.30 times as long"):
        report = made.save(tmp_path / "m.attar")
    assert report["warnings"] == [SLOW.warning]
    assert json.loads((tmp_path / "report.json").read_text())[report["sha256"]]["speed"]["ratio"] == 1.3
    ((graph, feed),) = feeds
    assert graph == "main"
    np.testing.assert_array_equal(next(iter(feed.values())), x[:1])  # one real example
