"""Opening a file, and what it hands out."""

import hashlib

import numpy as np
import pytest
from tests.samples import conv_net, lstm, transformer

from attar._src.artifact.reader import open_artifact
from attar._src.artifact.writer import pack, write_atomically
from attar._src.core.errors import UnknownName


def test_from_a_path_or_bytes(tmp_path):
    data = pack(conv_net())
    write_atomically(tmp_path / "m.attar", data)
    for source in (tmp_path / "m.attar", str(tmp_path / "m.attar"), data):
        artifact = open_artifact(source)
        assert artifact.file_bytes == len(data)
        assert artifact.sha256 == hashlib.sha256(data).hexdigest()
        assert artifact.names == ("conv.weight", "conv.bias", "fc.weight", "fc.bias")


def test_names_that_are_not_there():
    artifact = open_artifact(pack(conv_net()))
    with pytest.raises(UnknownName, match=r"no tensor named 'conv.wait'; did you mean 'conv.weight'"):
        artifact.tensor("conv.wait")
    for ask in (artifact.graph, artifact.graph_record, artifact.bound):
        with pytest.raises(UnknownName, match="no graph named 'mean'; did you mean 'main'"):
            ask("mean")


def test_an_alias_is_its_tensor():
    artifact = open_artifact(pack(transformer()))
    assert "head.weight" not in artifact.names
    np.testing.assert_array_equal(artifact.tensor("head.weight").codes, artifact.tensor("embed.weight").codes)


def test_bound_initializers_are_as_described():
    for make in (conv_net, lstm, transformer):
        artifact = open_artifact(pack(make()))
        bound = artifact.bound()
        for binding in artifact.graph_record().bindings:
            values = artifact.initializer(binding)
            assert values.shape == bound[binding.to].shape
            assert values.dtype == {"f32": np.float32}[bound[binding.to].dtype]


def test_graphs_are_parsed_anew():
    artifact = open_artifact(pack(conv_net()))
    artifact.graph().graph.node.pop()
    assert len(artifact.graph().graph.node) == 5


def test_decoded_tensors_are_the_callers_to_change():
    artifact = open_artifact(pack(conv_net()))
    before = artifact.tensor("conv.bias").data.copy()
    artifact.tensor("conv.bias").data[:] = 0
    np.testing.assert_array_equal(artifact.tensor("conv.bias").data, before)
