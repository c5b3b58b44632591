"""Engine: ONNX Runtime behind one door."""

import numpy as np
import pytest
from tests.runtime.reference import act, file_of, node

from attar._src.core.errors import ArtifactError, DataError
from attar._src.core.scheme import PerTensor, Scheme
from attar._src.core.tensors import Quantized
from attar._src.runtime import engine
from attar._src.runtime.engine import Engine, kernels
from attar._src.runtime.lower import lower
from attar._src.runtime.session import Session


@pytest.fixture
def neg():
    return lower(file_of([node("Neg", "x", "y")], {}, x=("n", 2), y=("n", 2))).serialized()


def test_bytes_and_paths_are_opened(tmp_path, neg):
    (tmp_path / "m.onnx").write_bytes(neg)
    x = np.array([[1, -2]], np.float32)
    for source in (neg, tmp_path / "m.onnx"):
        opened = Engine(source, threads=1)
        assert opened.inputs == ("x",)
        assert opened.outputs == ("y",)
        np.testing.assert_array_equal(opened.run({"x": x})[0], -x)


def test_faults_of_onnx_runtime_are_ours(tmp_path, neg):
    with pytest.raises(ArtifactError, match="graph: ONNX Runtime refuses"):
        Engine(b"not a model")
    with pytest.raises(ArtifactError, match="refuses"):
        Engine(tmp_path / "nothing.onnx")
    with pytest.raises(DataError, match="cannot run"):
        Engine(neg).run({"x": np.zeros((1, 3), np.float32)})
    with pytest.raises(DataError, match="cannot run"):
        Engine(neg).run({"x": "text"})


def test_the_profile_names_the_kernels_that_ran(neg):
    assert kernels(neg, {"x": np.zeros((1, 2), np.float32)}) == {"node_y": "Neg"}


def test_exact_kernels_are_asked_for_only_where_sums_saturate(monkeypatch, rng):
    # Two weights of the same channels: kernels that move int8 to uint8 refuse zero points that are shared.
    nodes = [node("Conv", "x v", "c"), node("Conv", "c w", "d"), node("Neg", "d", "y")]
    step = np.full(3, 2e-3, np.float32)
    codes = {name: rng.integers(-127, 128, (3, 3, 3, 3)).astype(np.int8) for name in "vw"}
    tensors = {name: Quantized(value, step, Scheme(bits=8)) for name, value in codes.items()}
    grids = [act("x", 0.03, 99), act("c", 0.05, 99), act("d", 0.05, 99)]
    data = lower(file_of(nodes, tensors, grids, y=("batch", 3, 4, 4))).serialized()
    x = rng.normal(size=(2, 3, 8, 8)).astype(np.float32)

    def option(opened):
        try:
            return opened._session.get_session_options().get_session_config_entry("session.x64quantprecision")
        except RuntimeError:
            return None

    monkeypatch.setattr(engine, "saturates", lambda: False)
    quick = Engine(data, exact=True)
    monkeypatch.setattr(engine, "saturates", lambda: True)
    exact = Engine(data, exact=True)
    assert [option(opened) for opened in (quick, exact, Engine(data))] == [None, "1", None]
    # Every machine can run what one with saturating kernels is given.
    np.testing.assert_allclose(exact.run({"x": x})[0], quick.run({"x": x})[0], atol=0.051)


def test_probing_gives_one_answer():
    assert engine.saturates() in (True, False)
    assert engine.saturates() == engine.saturates.__wrapped__()


def test_sums_of_the_largest_codes_are_right(rng):
    artifact = file_of(
        [node("MatMul", "x w", "y")],
        {"w": _full(127)},
        [act("x", 1.0, 0)],
        x=("n", 64),
        y=("n", 16),
    )
    session = Session(artifact)
    assert session.integer_layers() == ("w",)
    assert (session.run(np.full((4, 64), 255, np.float32)) == 64 * 255 * 127).all()


def _full(code):
    scheme = Scheme(bits=8, granularity=PerTensor())
    return Quantized(np.full((64, 16), code, np.int8), np.ones(1, np.float32), scheme)
