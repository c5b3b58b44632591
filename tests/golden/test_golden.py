"""Files that released versions wrote are read as they were meant; a missing one fails."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from tests.golden.make import summary

from attar._src.artifact.layout import MAJOR, MINOR
from attar._src.artifact.reader import open_artifact
from attar._src.coding.contexts.table import ContextTable
from attar._src.runtime.session import Session

HERE = Path(__file__).parent
#: Every golden file there has ever been, and its SHA-256.
GOLDEN = {
    "v1_0": "638f59c2cff294857d727c8e8483fb805e4c2022eb49a1936b913edf45dfe91b",
    "v1_0_huffman": "6d54fc534e365020405e219e8742f10a5abca1b1aed764f2222dea20eaf65fea",
    "v1_1": "4616ed951cb1597838987a3e9054556ac5271202efded91c91577fbb3f3903f7",
    "v1_1_huffman": "d500dccc69c94b2a77e6b5a6b63eed19ee8c33484832df992162df5bfb037ec9",
    "v1_2": "ee2fd23dfed55167a73f89de4d595e355c70bef60adcf8bcec111d437e862f49",
    "v1_2_huffman": "b2b26581919f008ce0137f1beb4faee743588d288226f2caebdfd0789c020454",
    "v1_3": "03039499112dc2e4608853ef81056769d0f9f87b8826d1b0ab456ccfd05de317",
    "v1_3_huffman": "b1a719fc2a30a967835ebd0c694a3dd0d2634bc9db03165a398634022ce29123",
    "v1_3_recurrent": "887f6dca154fa8ff6ced8f799cdf46cd3b067ee35a187afc33066087ec3e5d97",
    "v1_4_apart": "4330acb44e45a345d62045d9b6d5d3f5ad64d8ddb8655e66efc3aa9744615c09",
    "v1_4": "270e24e74b9db0a3c2eb46cd6ab4b5e967f8225df4da5ea30e16d40c0c3bc34c",
    "v1_4_context": "a4b8389cd5eb238714d8494f60ca33099a97c10a17c4f057d8c2883046bf0b58",
    "v1_4_huffman": "73570dcb07bd590f2296043d7eebdd84f8d5b35fb9b00f02c7a609ad8c757799",
    "v1_4_recurrent": "401c0593e8208978be6410d5865d1533152e68137671be86c93d05bfdc43c783",
    "v1_4_steps": "1c1c67859367fa3ddc5bce531f7fc3bd2db60c2f8b8299c6f2c33415a58c9523",
}


@pytest.mark.parametrize("name", GOLDEN)
def test_a_golden_file_means_what_it_meant(name):
    data = (HERE / f"{name}.attar").read_bytes()
    assert hashlib.sha256(data).hexdigest() == GOLDEN[name]
    artifact = open_artifact(data)
    artifact.verify()
    meant = json.loads((HERE / f"{name}.json").read_text())
    meant.pop("example", None)
    assert json.loads(json.dumps(summary(artifact))) == meant


@pytest.mark.parametrize("name", ["v1_3_recurrent", "v1_4_recurrent"])
def test_dynamic_recurrent_layers_compute_what_they_did(name):
    """A sum of gates in another order may tip a state between two codes; a faulty gate would be off by far more."""
    session = Session(HERE / f"{name}.attar", threads=1)
    assert [layer.kernel for layer in session.layers if layer.name.startswith("lstm")] == ["DynamicQuantizeLSTM"]
    assert all(layer.plan == "dynamic integers" for layer in session.layers)
    example = json.loads((HERE / f"{name}.json").read_text())["example"]
    found = session.run(np.array(example["x"], np.float32))
    np.testing.assert_allclose(found, np.array(example["y"]), atol=0.02)
    assert np.abs(found).max() > 0.2


def test_the_present_version_has_a_golden_file():
    assert f"v{MAJOR}_{MINOR}" in GOLDEN


def test_every_golden_file_is_listed():
    assert {path.stem for path in HERE.glob("*.attar")} == set(GOLDEN)


def test_the_file_of_pruned_tensors_holds_zero_apart():
    """A choice of the writer that moved would leave this form of table without a file."""
    artifact = open_artifact((HERE / "v1_4_apart.attar").read_bytes())
    tables = [table for table in artifact._tables if table.record.coder == "context"]
    held = [ContextTable.read(table.data, table.record.alphabet) for table in tables]
    assert sum(table.apart for table in held) >= 3
