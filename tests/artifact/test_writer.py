"""What is written, and what is refused before it is."""

import os
from dataclasses import replace

import numpy as np
import pytest
from tests.house.repository import ROOT
from tests.samples import conv_net, narrowed, quantized, relu

from attar._src.artifact.contents import Contents, GraphContents
from attar._src.artifact.limits import Limits
from attar._src.artifact.manifest import Activation, Binding, canonical, least_minor
from attar._src.artifact.reader import open_artifact
from attar._src.artifact.writer import pack, write_atomically
from attar._src.core.errors import ArtifactError, SpecError, UnknownName
from attar._src.core.scheme import PerBlock
from attar._src.core.tensors import Dense


def test_sections_of_tensors_are_closed_after_a_mebibyte():
    third = Dense(np.zeros(100_000, np.float32))
    artifact = open_artifact(pack(relu(dict.fromkeys("abcdefg", third)), compact=False))
    assert [record.section for record in artifact.manifest.tensors] == [0, 0, 0, 1, 1, 1, 2]
    assert [section.kind for section in artifact.manifest.sections] == ["tensors"] * 3 + ["graph"]


def test_a_model_without_tensors_is_a_file():
    artifact = open_artifact(pack(relu({})))
    assert artifact.names == ()
    artifact.verify()


def test_activation_scales_are_the_same_float32_and_short():
    contents = conv_net()
    scale = float(np.float32(0.1))
    activation = Activation(value="relu", scale=scale)
    graph = replace(contents.graphs[0], activations=(activation,))
    (found,) = open_artifact(pack(replace(contents, graphs=(graph,)))).graph_record().activations
    assert found.scale == 0.1
    assert np.float32(found.scale) == np.float32(scale)


@pytest.mark.parametrize(
    ("fields", "error", "match"),
    [
        ({"parameters": -1}, SpecError, "contents.parameters"),
        ({"parameters": 1.5}, SpecError, "contents.parameters"),
        ({"task": ""}, SpecError, "contents.task"),
        ({"recipe": {"a": object()}}, SpecError, "contents.recipe"),
        ({"recipe": {"a": float("nan")}}, (SpecError, ValueError), "NaN|nan|finite|JSON"),
        ({"aliases": {"b": "missing"}}, ArtifactError, "the alias 'b'"),
        ({"graphs": ()}, ArtifactError, "one graph or more"),
        ({"tensors": {"": Dense(np.zeros(1, np.float32))}}, SpecError, "tensor .name"),
        ({"tensors": {"a\n": Dense(np.zeros(1, np.float32))}}, SpecError, "name"),
        ({"tensors": {"a": Dense(np.zeros((1,) * 17, np.float32))}}, SpecError, "tensor a.shape"),
    ],
)
def test_contents_that_no_file_can_hold(fields, error, match):
    with pytest.raises(error, match=match):
        pack(replace(relu({}), **fields))


def test_a_graph_that_a_reader_would_refuse_is_not_written():
    contents = conv_net()
    graph = replace(contents.graphs[0], bindings=contents.graphs[0].bindings[1:])
    with pytest.raises(ArtifactError, match=r"node 0 .*'conv.weight' is not defined"):
        pack(replace(contents, graphs=(graph,)))
    graph = replace(contents.graphs[0], bindings=(*contents.graphs[0].bindings, Binding(to="more")))
    with pytest.raises(ArtifactError, match="there is no tensor 'more'"):
        pack(replace(contents, graphs=(graph,)))


def test_limits_hold_for_what_is_written():
    with pytest.raises(ArtifactError, match="raise it"):
        pack(conv_net(), limits=Limits(elements=100))


def test_an_unknown_coder():
    with pytest.raises(UnknownName, match="no coder named 'ranz'; did you mean 'rans'"):
        pack(conv_net(), coder="ranz")


def test_contents_are_plain_and_unchanged_by_packing():
    contents = conv_net()
    before = contents.graphs[0].model.SerializeToString(deterministic=True)
    pack(contents)
    assert contents.graphs[0].model.SerializeToString(deterministic=True) == before
    with pytest.raises(TypeError):
        Contents({}, (), 0).aliases["a"] = "b"


def test_writing_replaces_whole_files(tmp_path):
    path = tmp_path / "m.attar"
    write_atomically(path, b"old")
    write_atomically(str(path), b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["m.attar"]


def test_writing_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "m.attar"
    write_atomically(path, b"old")

    def fail(descriptor):
        raise OSError("the disk is full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="the disk is full"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["m.attar"]


def test_a_coder_that_only_its_author_has_is_refused(tmp_path):
    (tmp_path / "mine.py").write_text("from attar._src.coding.registry import CODERS\nmine = CODERS['raw']\n")
    for name in ("rns", f"{tmp_path / 'mine.py'}:mine"):
        with pytest.raises(UnknownName, match="coder"):
            pack(conv_net(), coder=name)


def test_a_file_without_scales_of_16_bits_is_of_version_1_0_and_one_with_them_of_1_1(rng):
    tensor = quantized(rng, (64, 8))
    both = tensor, narrowed(tensor, "f16")
    plain, halved = (pack(relu({"a": each}), compact=False) for each in both)
    assert [open_artifact(data).version for data in (plain, halved)] == ["1.0", "1.1"]
    assert [data[10] for data in (plain, halved)] == [0, 1]
    assert len(halved) < len(plain) - 64 * 2 + 32
    (record,) = open_artifact(plain).manifest.tensors
    assert canonical(record.value.scale) == {"length": 256}
    (record,) = open_artifact(halved).manifest.tensors
    assert (record.value.scale.dtype, record.value.scale.length) == ("f16", 128)


def test_scales_that_fit_16_bits_by_chance_stay_as_they_are(rng):
    tensor = replace(quantized(rng, (16, 8)), scale=np.full(16, 0.5, np.float32))
    (record,) = open_artifact(pack(relu({"a": tensor}), compact=False)).manifest.tensors
    assert (record.value.scale.dtype, record.value.scale.length) == ("f32", 64)


WRITTEN = [*sorted((ROOT / "tests" / "golden").glob("*.attar")), *sorted((ROOT / "studies").rglob("s3-*.attar"))]


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.stem)
def test_what_was_written_is_written_to_the_same_bytes_again(path):
    data = path.read_bytes()
    found = open_artifact(data)
    manifest = found.manifest
    same = {
        name: getattr(manifest, name) for name in Contents.__dataclass_fields__ if name not in ("tensors", "graphs")
    }
    graphs = tuple(
        GraphContents(
            **{
                name: getattr(record, name)
                for name in ("name", "bindings", "inputs", "outputs", "activations", "dynamic", "rows")
            },
            model=found.graph(record.name),
        )
        for record in manifest.graphs
    )
    contents = Contents(**same, tensors={name: found.tensor(name) for name in found.names}, graphs=graphs)
    coders = {"huffman": "huffman", "context": "context", "apart": "context", "recurrent": "raw"}
    coder = coders.get(path.stem.split("_")[-1], "rans")
    assert pack(contents, coder=coder, compact=data[10] >= 4) == data


def test_a_file_with_a_scale_for_each_block_is_of_version_1_2(rng):
    tensor = quantized(rng, (4, 2, 3), granularity=PerBlock(sizes=(2, 1, 3)))
    artifact = open_artifact(data := pack(relu({"a": tensor}), compact=False))
    assert (artifact.version, data[10]) == ("1.2", 2)
    assert artifact.tensor("a").scheme.granularity == PerBlock(sizes=(2, 1, 3))
    np.testing.assert_array_equal(artifact.tensor("a").dense(), tensor.dense())
    (record,) = artifact.manifest.tensors
    assert canonical(record.value.granularity) == {"kind": "block", "sizes": [2, 1, 3]}


def test_a_file_with_a_dynamic_node_is_of_version_1_3():
    made = conv_net()
    data = pack(replace(made, graphs=(replace(made.graphs[0], dynamic=("fc",)),)), compact=False)
    artifact = open_artifact(data)
    assert (artifact.version, data[10], artifact.graph_record().dynamic) == ("1.3", 3, ("fc",))
    assert pack(made, compact=False)[10] == 0


def test_a_dynamic_node_that_scales_rows_needs_version_1_4():
    made = conv_net()
    graph = replace(made.graphs[0], dynamic=("fc",), rows=("fc",))
    artifact = open_artifact(pack(replace(made, graphs=(graph,))))
    assert artifact.graph_record().rows == ("fc",)
    assert least_minor(artifact.manifest) == 4
