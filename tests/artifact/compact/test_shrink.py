"""The manifest of format 1.4: what it leaves out comes back."""

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
from tests.attacks.fuzz import every_kind
from tests.samples import conv_net, dynamic_lstm, dynamic_transformer, lstm, relu, transformer

from attar._src.artifact.compact.shrink import expand, shrink
from attar._src.artifact.manifest import canonical
from attar._src.artifact.reader import open_artifact
from attar._src.artifact.writer import pack
from attar._src.core.errors import ArtifactError
from attar._src.runtime.session import Session

MODELS = (conv_net, lstm, transformer, dynamic_lstm, dynamic_transformer, every_kind)


def two_graphs():
    """Two graphs that read the same tensors."""
    net = conv_net()
    return replace(net, graphs=(net.graphs[0], replace(net.graphs[0], name="again")))


def full(manifest):
    """The JSON of a manifest, but for what the layouts tell apart: sections, scales, and the order of bindings."""
    found = json.loads(json.dumps(canonical(manifest)))
    graphs = [
        {key: value for key, value in graph.items() if key not in ("section", "length")}
        | {"bindings": sorted(json.dumps(binding) for binding in graph.get("bindings", []))}
        for graph in found["graphs"]
    ]
    tensors = [{key: value for key, value in record.items() if key != "section"} for record in found["tensors"]]
    values = [value.get("values", value) for value in (record["value"] for record in tensors)]
    for value in (*values, *(record["value"] for record in tensors)):
        for key in {"scale", "offset", "codes", "mask"} & value.keys():  # may be coded otherwise
            del value[key]
    kept = {key: value for key, value in found.items() if key not in ("sections", "tables")}
    return kept | {"graphs": graphs, "tensors": tensors}


@pytest.mark.parametrize("make", [*MODELS, two_graphs])
def test_both_layouts_say_the_same(make):
    older, compact = (open_artifact(pack(make(), compact=compact)) for compact in (False, True))
    assert (compact.version, len(compact.data) < len(older.data)) == ("1.4", True)
    assert full(compact.manifest) == full(older.manifest)
    for name in older.names:
        np.testing.assert_array_equal(compact.tensor(name).dense(), older.tensor(name).dense())
        assert getattr(compact.tensor(name), "scale_dtype", 0) == getattr(older.tensor(name), "scale_dtype", 0)
    compact.verify()


@pytest.mark.parametrize("make", [*MODELS, two_graphs])
def test_expand_undoes_shrink(make):
    manifest = json.loads(json.dumps(canonical(open_artifact(pack(make())).manifest)))
    assert canonical_json(expand(shrink(manifest), most=100)) == canonical_json(manifest)


def canonical_json(manifest):
    graphs = [{"bindings": [], **graph} for graph in manifest["graphs"]]
    return json.dumps({"tensors": [], **manifest, "graphs": graphs}, sort_keys=True)


def test_tensors_that_no_graph_reads_stay_so():
    contents = every_kind()
    spare = {name for name in contents.tensors if name not in {b.to for b in contents.graphs[0].bindings}}
    artifact = open_artifact(pack(contents))
    assert spare
    assert not spare & {binding.to for binding in artifact.graph_record().bindings}
    assert len(artifact.graph_record().bindings) == len(contents.graphs[0].bindings)


def test_names_of_nodes_and_default_attributes_are_left_out_unless_something_refers_to_them():
    model = open_artifact(pack(dynamic_lstm())).graph()
    record = open_artifact(pack(dynamic_lstm())).graph_record()
    assert {node.name for node in model.graph.node if node.name} == set(record.dynamic)
    older = open_artifact(pack(conv_net(), compact=False)).graph()
    compact = open_artifact(pack(conv_net())).graph()
    assert all(node.name for node in older.graph.node)
    assert not any(node.name for node in compact.graph.node)
    assert [node.op_type for node in older.graph.node] == [node.op_type for node in compact.graph.node]


def test_attributes_at_their_default_are_left_out():
    """The default of the operator in ONNX, not what is usual: strides of 1 have none there."""
    made = conv_net()
    model = onnx.ModelProto.FromString(made.graphs[0].model.SerializeToString())
    (conv,) = (node for node in model.graph.node if node.op_type == "Conv")
    usual = {"group": 1, "auto_pad": "NOTSET", "strides": [1, 1]}
    kept = {attribute.name for attribute in conv.attribute} - {"strides"}
    conv.attribute.extend(onnx.helper.make_attribute(name, value) for name, value in usual.items() if name not in kept)
    data = [pack(replace(made, graphs=(replace(made.graphs[0], model=model),)), compact=each) for each in (False, True)]
    older, compact = (
        {attribute.name for node in open_artifact(each).graph().graph.node[:1] for attribute in node.attribute}
        for each in data
    )
    assert older - compact == {"group", "auto_pad"}
    (mine, theirs) = (Session(each).run(Session(each).example()) for each in data)
    assert all((mine[name] == theirs[name]).all() for name in mine)


def test_a_model_without_tensors():
    assert open_artifact(pack(relu({}))).manifest.sections[0].kind == "graph"


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"sections": []}, "sections: files of format 1.4 have no such key"),
        ({"tensors": [{"name": "a", "section": 0}]}, "section: files of format 1.4"),
        ({"graphs": [{"section": 0}]}, "section: files of format 1.4"),
        ({"tensors": {}}, "tensors: a list of objects"),
        ({"graphs": [[]]}, "graphs: a list of objects"),
        ({"tables": 3}, "tables: a list of objects"),
        ({"graphs": [{"bindings": "abc"}]}, "bindings: a list of objects"),
        ({"graphs": [{"bindings": [{"to": "a", "parts": [1]}]}]}, "parts: a list of objects"),
        ({"unbound": "a"}, "unbound: a list of names"),
        ({"unbound": [[]]}, "unbound: a list of names"),
        ({"unbound": ["b"]}, "unbound: not every name"),
        ({"tensors": [{"name": "a"}] * 51, "graphs": [{}, {}]}, "bindings.*51 tensors in each of 2 graphs"),
    ],
)
def test_what_cannot_be_expanded(change, match):
    with pytest.raises(ArtifactError, match=match):
        expand({"tensors": [{"name": "a", "value": {"kind": "dense"}}], "graphs": [{"stored": 1}]} | change, most=100)


@pytest.mark.parametrize(
    "value", [None, 3, [], {"kind": "dense"}, {"kind": "dense", "dtype": []}, {"kind": "sparse", "values": 3}]
)
@pytest.mark.parametrize("shape", [None, "ab", [2**48] * 16, [2**90], [-1], [1.5], [[]], [1] * 17])
def test_values_of_any_kind_are_left_to_the_validation(value, shape):
    made = expand({"tensors": [{"name": "a", "shape": shape, "value": value}], "graphs": []}, most=100)
    assert isinstance(made["sections"][0]["length"], int)
