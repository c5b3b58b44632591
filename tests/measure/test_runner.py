"""Runner: our files and those of others behind one face."""

import numpy as np
import pytest
from tests import samples

from attar._src.artifact.writer import pack, write_atomically
from attar._src.backends.registry import BACKENDS
from attar._src.core.errors import ArtifactError, DataError
from attar._src.measure.runner import example_feed, open_runner
from attar._src.runtime.session import Session


@pytest.fixture
def ours(tmp_path):
    write_atomically(tmp_path / "m.attar", pack(samples.conv_net()))
    return tmp_path / "m.attar"


@pytest.fixture
def theirs(ours):
    path = ours.with_suffix(".onnx")
    BACKENDS["onnx"].export(Session(ours).artifact, path)
    return path


def test_both_run_the_same_inputs_by_position(ours, theirs):
    mine, other = open_runner(ours, threads=1), open_runner(theirs, threads=1)
    feed = example_feed(mine, 3)
    assert feed["x"].shape == (3, 3, 8, 8)
    assert feed["x"].std() > 0.5
    np.testing.assert_array_equal(mine.run(feed)["y"], other.run(other.feed(feed))["y"])
    np.testing.assert_array_equal(example_feed(mine, 3)["x"], feed["x"])


def test_integer_inputs_are_zeros_that_may_be_indices(tmp_path):
    write_atomically(tmp_path / "m.attar", pack(samples.lstm()))
    assert not example_feed(open_runner(tmp_path / "m.attar"), 4)["tokens"].any()


def test_what_does_not_fit_is_refused(ours, theirs, tmp_path):
    with pytest.raises(DataError, match="takes 1 inputs, the model it is compared with 0"):
        open_runner(ours).feed({})
    with pytest.raises(DataError, match="no example sizes"):
        example_feed(open_runner(theirs), 1)
    with pytest.raises(ArtifactError, match="there is no file"):
        open_runner(tmp_path / "nothing.onnx")
    with pytest.raises(ArtifactError, match="there is no file"):
        open_runner(tmp_path / "nothing.attar")


def test_a_fixed_batch_is_named(tmp_path):
    from tests.runtime.reference import file_of, node

    fixed = file_of([node("Neg", "x", "y")], {}, x=(4, 3), y=(4, 3))
    write_atomically(tmp_path / "m.attar", bytes(fixed._data))
    with pytest.raises(DataError, match="use --batch 4"):
        example_feed(open_runner(tmp_path / "m.attar"), 1)
