"""What every registered backend must do."""

import importlib.util

import numpy as np
import pytest
from tests import samples
from tests.runtime.test_lower import inputs_for

from attar._src.artifact.reader import open_artifact
from attar._src.artifact.writer import pack
from attar._src.backends.registry import BACKENDS
from attar._src.core.errors import AttarError, UnknownName
from attar._src.runtime.session import Session

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


@every_backend
@every_sample
def test_it_opens_what_it_exports_and_computes_what_the_session_computes(backend, make, tmp_path, rng):
    if any(importlib.util.find_spec(package) is None for package in backend.needs):
        pytest.skip(f"needs {', '.join(backend.needs)}")
    artifact = open_artifact(pack(make()))
    if backend.supports(artifact.manifest) is not None:
        return
    path = tmp_path / f"model{backend.suffix}"
    backend.export(artifact, path)
    session, feed = Session(artifact, threads=1), inputs_for(artifact, rng)
    runner = backend.open(path, threads=1)
    assert runner.inputs == tuple(port.name for port in session.inputs)
    want, got = session.run(feed), runner.run(feed)
    assert list(got) == [port.name for port in session.outputs]
    for name, array in got.items():
        np.testing.assert_allclose(array, want[name], rtol=1e-5, atol=1e-5)
        assert array.dtype == want[name].dtype


@every_backend
def test_it_refuses_to_open_what_it_did_not_write(backend, tmp_path):
    if any(importlib.util.find_spec(package) is None for package in backend.needs):
        pytest.skip(f"needs {', '.join(backend.needs)}")
    path = tmp_path / f"model{backend.suffix}"
    with pytest.raises(AttarError, match="there is no file"):
        backend.open(path)
    path.write_bytes(b"not a model")
    with pytest.raises(AttarError):
        backend.open(path)


def _refuse(*_):
    raise OSError("no room")


def test_an_unknown_backend_is_refused_with_the_known():
    with pytest.raises(UnknownName, match="onnx"):
        BACKENDS["onx"]
