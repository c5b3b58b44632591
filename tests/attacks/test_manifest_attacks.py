"""Attacks on the manifest: as JSON, and as what it says."""

import json

import pytest

from attar._src.artifact.limits import Limits
from attar._src.artifact.reader import open_artifact


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (b"", "cannot be read"),
        (b"[]", "not an object"),
        (b"null", "not an object"),
        (b"{", "cannot be read"),
        (b'{"sections":[]', "cannot be read"),
        (b"\xff\xfe{}", "cannot be read"),
        (b"\xef\xbb\xbf{}", "cannot be read"),
        (b'{"task":"\xed\xa0\x80"}', "cannot be read"),
        (b'{"task":"\\ud800"}', "cannot be read"),
        (b'{"task":"\\uD83D","licence":"\\uDE00"}', "cannot be read"),
        (b'{"task":"a\0b"}', "cannot be read"),
        (b'{"a":NaN}', "NaN"),
        (b'{"a":Infinity}', "Infinity"),
        (b'{"a":-Infinity}', "-Infinity"),
        (b'{"a":1e999}', "not finite"),
        (b'{"a":-1e999}', "not finite"),
        (b'{"a":' + b"9" * 5000 + b"}", "5000 digits"),
        (b'{"a":0.' + b"1" * 5000 + b"}", "too long"),
        (b'{"a":1,"a":1}', "appears twice"),
        (b'{"recipe":{"b":1,"\\u0062":1}}', "appears twice"),
        (b"{}", "Field required|graphs"),
        (b'{"a":"\\"' + b"[" * 40 + b'"}', "no key named"),
        (b'{"a":' + b"[" * 40 + b"]" * 40 + b"}", "nested 41 deep"),
        (b'{"a":' * 1_000_000 + b"1" + b"}" * 1_000_000, "nested 1000000 deep"),
        (b"[" * 16_000_000, "nested 16000000 deep"),
        (b'"' + b'\\"' * 8_000_000, "cannot be read"),
        (b'{"sections":[' + b"[]," * 200_000 + b"[]]}", "records"),
        (b'{"graphs":[{"bindings":[' + b"0," * 70_000 + b"0]}]}", "records"),
    ],
    ids=lambda value: value[:24].decode("latin-1") if isinstance(value, bytes) else "",
)
def test_json(conv, refused, text, match):
    conv.manifest = text
    refused(conv.seal(), match)


def test_depth_is_counted_outside_strings(conv):
    conv.manifest["licence"] = '[[[[{"' * 100
    conv.manifest["recipe"] = {"deep": json.loads("[" * 29 + "]" * 29)}
    open_artifact(conv.seal()).verify()


def put(manifest, path, value):
    """Set the value at a path of keys and indices."""
    *way, last = path
    for key in way:
        manifest = manifest[key]
    if last == "+":
        manifest.append(value)
    else:
        manifest[last] = value


@pytest.mark.parametrize(
    ("path", "value", "match"),
    [
        (["surprise"], 1, "surprise"),
        (["tensors", 0, "surprise"], 1, "surprise"),
        (["parameters"], -1, "parameters"),
        (["parameters"], "762", "parameters"),
        (["parameters"], 762.0, "parameters"),
        (["parameters"], None, "parameters"),
        (["parameters"], 10**30, "parameters"),
        (["tensors"], {}, "tensors"),
        (["tensors", 1, "name"], "conv.weight", "two tensors are named"),
        (["tensors", 0, "name"], "", "name"),
        (["tensors", 0, "name"], "a" * 513, "name"),
        (["tensors", 0, "name"], "a\x1b[2J", "name"),
        (["tensors", 0, "name"], 7, "name"),
        (["tensors", 0, "section"], 0, "holds no tensors"),
        (["tensors", 0, "section"], 99, "holds no tensors"),
        (["tensors", 0, "section"], -1, "section"),
        (["tensors", 0, "section"], 2**40, "section"),
        (["aliases"], {"a": "b"}, "the alias 'a' of 'b'"),
        (["aliases"], {"a": "b", "b": "a"}, "the alias 'a' of 'b'"),
        (["aliases"], {"a": "a"}, "the alias 'a' of 'a'"),
        (["aliases"], {"a": "conv.weight", "b": "a"}, "the alias 'b' of 'a'"),
        (["aliases"], {"conv.bias": "conv.weight"}, "the alias 'conv.bias'"),
        (["aliases"], [["a", "conv.weight"]], "aliases"),
        (["graphs"], [], "one graph or more"),
        (["graphs", 0, "section"], 1, "of its own"),
        (["graphs", 0, "section"], 99, "of its own"),
        (["graphs", 0, "length"], 2**40, "more than the limit"),
        (["graphs", 0, "length"], 1, "does not inflate"),
        (["graphs", 0, "name"], "", "name"),
        (["tables", 0, "coder"], "raw", "coder"),
        (["tables", 0, "coder"], "evil.py:run", "coder"),
        (["tables", 0, "alphabet"], 0, "alphabet"),
        (["tables", 0, "alphabet"], 257, "alphabet"),
        (["tables", 0, "length"], 2**40, "tables take"),
        (["tables", 0, "length"], 0, "tables take"),
        (["preprocessing", "scale"], "1", "scale"),
        (["preprocessing", "std"], [0.0], "std"),
        (["preprocessing", "layout"], "N" * 17, "layout"),
        (["recipe"], [], "recipe"),
        (["versions"], {"attar": 1}, "versions"),
        (["class_names"], "abc", "class_names"),
        (["class_names"], ["a"] * 70_000, "class_names"),
        (["folds", 0, "into"], None, "into"),
        (["task"], "a\nb", "task"),
    ],
)
def test_values(conv, refused, path, value, match):
    put(conv.manifest, path, value)
    refused(conv.seal(), match)


def test_a_graph_twice(conv, refused):
    conv.manifest["graphs"].append(conv.manifest["graphs"][0])
    refused(conv.seal(), "distinct names")
    conv.manifest["graphs"][1] = conv.manifest["graphs"][0] | {"name": "other"}
    refused(conv.seal(), "of its own")


def test_a_graph_that_no_record_names(conv, refused):
    conv.manifest["sections"].append({"kind": "graph"})
    conv.sections.append(conv.sections[-1])
    refused(conv.seal(), "of its own")


def test_bytes_that_no_tensor_has(conv, refused):
    conv.sections[1] += b"\0"
    refused(conv.seal(), "streams take")


def test_bytes_that_no_table_has(conv, refused):
    conv.sections[0] += b"\0"
    refused(conv.seal(), "tables take")


@pytest.mark.parametrize(
    ("limits", "match"),
    [
        ({"manifest_bytes": 100}, "more than the limit of 100"),
        ({"records": 3}, "records"),
        ({"elements": 700}, "elements"),
        ({"graph_bytes": 100}, "more than the limit of 100"),
        ({"nodes": 4}, "5 nodes|fields"),
        ({"value_elements": 300}, "more than (the limit of )?300"),
        ({"graph_elements": 1000}, "more than 1000"),
    ],
)
def test_every_limit_holds(files, refused, limits, match):
    refused(files["conv_net"], match, limits=Limits(**limits))
