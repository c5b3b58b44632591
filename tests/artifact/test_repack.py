"""A file written again: the same numbers, or numbers of fewer digits."""

import numpy as np
import pytest
from tests.attacks.fuzz import every_kind
from tests.house.repository import ROOT
from tests.samples import conv_net, dynamic_lstm, on_steps, transformer

from attar._src.artifact.graph.integer_biases import bias_steps
from attar._src.artifact.reader import open_artifact
from attar._src.artifact.repack import contents_of, repack, shortened
from attar._src.artifact.writer import pack
from attar._src.core.float16 import round_nearest
from attar._src.core.numbers.steps import from_steps, step_sizes, to_steps
from attar._src.runtime.session import Session


@pytest.mark.parametrize("make", [conv_net, every_kind, dynamic_lstm, transformer])
@pytest.mark.parametrize("coder", ["rans", "huffman", "raw"])
def test_every_number_stays(make, coder):
    older = open_artifact(pack(make(), compact=False))
    data = repack(older, coder=coder)
    assert data == pack(make(), coder=coder)
    assert repack(open_artifact(data), coder=coder) == data
    for name in older.names:
        np.testing.assert_array_equal(open_artifact(data).tensor(name).dense(), older.tensor(name).dense())


@pytest.mark.parametrize("path", sorted((ROOT / "tests" / "golden").glob("v1_[0-3].attar")), ids=lambda path: path.stem)
def test_files_of_earlier_versions(path):
    older = open_artifact(path)
    data = repack(older)
    assert len(data) < older.file_bytes
    assert [open_artifact(data).tensor(name).dense().tobytes() for name in older.names] == [
        older.tensor(name).dense().tobytes() for name in older.names
    ]


def test_biases_of_integer_layers_are_whole_steps_of_the_new_scales():
    before, after = on_steps(), shortened(on_steps())
    weight = after.tensors["conv.weight"]
    np.testing.assert_array_equal(round_nearest(weight.scale, 8), weight.scale)
    assert (weight.scale != before.tensors["conv.weight"].scale).any()
    for name, each in bias_steps(after.graphs, after.tensors).items():
        sizes = step_sizes(each.input_scale, after.tensors[each.weight].scale)
        numbers = to_steps(after.tensors[name].data, sizes)
        np.testing.assert_array_equal(from_steps(numbers, sizes), after.tensors[name].data)
        assert (np.abs(after.tensors[name].data - before.tensors[name].data) <= 0.51 * sizes).all()
    sessions = [Session(pack(each)) for each in (before, after)]
    assert sessions[1].integer_layers() == sessions[0].integer_layers() != ()


def test_what_shortening_changes_is_small_and_done_once():
    before = every_kind()
    after = shortened(before)
    assert pack(shortened(after)) == pack(after)
    for name, tensor in before.tensors.items():
        old, new = tensor.dense(), after.tensors[name].dense()
        np.testing.assert_allclose(new, old, rtol=2.0**-9, atol=2.0**-24)


def test_contents_of_a_file_are_what_it_was_packed_from():
    data = pack(every_kind())
    assert pack(contents_of(open_artifact(data))) == data
