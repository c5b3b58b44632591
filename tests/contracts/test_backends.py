"""What every registered backend must do."""

import importlib.util

import pytest
from tests import samples

from attar._src.artifact.reader import open_artifact
from attar._src.artifact.writer import pack
from attar._src.backends.registry import BACKENDS
from attar._src.core.errors import UnknownName

every_backend = pytest.mark.parametrize("backend", BACKENDS.values(), ids=list(BACKENDS))
every_sample = pytest.mark.parametrize("make", [samples.conv_net, samples.lstm, samples.transformer])


@every_backend
def test_it_is_registered_under_its_name_and_says_what_it_needs(backend):
    assert BACKENDS[backend.name] is backend
    assert backend.suffix.startswith(".")
    assert isinstance(backend.needs, tuple)


@every_backend
@every_sample
def test_it_writes_what_it_supports_whole_or_not_at_all(backend, make, tmp_path, monkeypatch):
    if any(importlib.util.find_spec(package) is None for package in backend.needs):
        pytest.skip(f"needs {', '.join(backend.needs)}")
    artifact = open_artifact(pack(make()))
    if backend.supports(artifact.manifest) is not None:
        return
    path = tmp_path / f"model{backend.suffix}"
    backend.export(artifact, path)
    first = path.read_bytes()
    assert first
    monkeypatch.setattr("os.replace", _refuse)
    with pytest.raises(OSError, match="no room"):
        backend.export(artifact, path)
    assert path.read_bytes() == first
    assert list(tmp_path.iterdir()) == [path]


def _refuse(*_):
    raise OSError("no room")


def test_an_unknown_backend_is_refused_with_the_known():
    with pytest.raises(UnknownName, match="onnx"):
        BACKENDS["onx"]
