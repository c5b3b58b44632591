"""``attar.compress`` on other data, options and failures than the usual ones."""

import hashlib
import json
import math
from dataclasses import replace

import pytest
import torch

import attar
from attar._src.core.errors import DataError, ParityError, SpecError, UnknownName
from attar._src.search import post_training
from attar._src.search.post_training import PostTraining


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.ReLU(), torch.nn.Linear(32, 4)).eval()


@pytest.fixture(scope="module")
def examples():
    return torch.randn(64, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def quick(monkeypatch):
    """Time each file for a moment."""
    monkeypatch.setattr(PostTraining.times, "__defaults__", (0.02,))


@pytest.fixture
def broken(monkeypatch):
    """Names of files whose outputs are not finite."""
    names, judge = set(), post_training.judge_file

    def judged(path, *rest):
        seen = judge(path, *rest)
        return replace(seen, error=math.inf, changed=math.inf) if path.stem in names else seen

    monkeypatch.setattr(post_training, "judge_file", judged)
    return names


@pytest.mark.usefixtures("quick")
def test_kept_layers_are_among_the_options_that_make_a_file_again(net, examples, tmp_path):
    """Guards against options that make another file than the one they stand beside."""
    found = attar.compress(net, examples, tmp_path / "s", max_ms=100, keep=["0"], validation=examples + 1)
    file = next(each for each in found.files if each.name == "8 bits")
    attar.quantize(net, examples, **file.options, tolerance=None).save(tmp_path / "again.attar")
    assert hashlib.sha256((tmp_path / "again.attar").read_bytes()).hexdigest() == file.sha256


def test_what_fails_in_floating_point_ends_the_search_with_its_own_words(net, examples, tmp_path):
    """Guards against an unknown name that fails every step, and then ``min() arg is an empty sequence``."""
    with pytest.raises(UnknownName, match="no layer named 'nothing'"):
        attar.compress(net, examples, tmp_path, max_drop=5, keep=["nothing"])


@pytest.mark.usefixtures("quick")
def test_one_file_that_cannot_be_had_leaves_the_others(net, examples, tmp_path, broken, monkeypatch):
    """Guards against a search that is lost for one file: with outputs that are not finite, or without parity."""
    made = PostTraining.make

    def make(self, options):
        if options.get("activations") == "dynamic":
            raise ParityError("the outputs differ")
        return made(self, options)

    monkeypatch.setattr(PostTraining, "make", make)
    broken.add("4-bits")
    found = attar.compress(net, examples, tmp_path, max_ms=100)
    assert found.failed == {
        "8 bits, dynamic": "the outputs differ",
        "4 bits": "its outputs are not finite on validation examples",
    }
    assert [each.name for each in found.files] == ["floating point", "8 bits", "8 bits, static", "4 bits, static"]
    assert json.loads((tmp_path / "search.json").read_text())["failed"] == found.failed


@pytest.mark.usefixtures("quick")
def test_a_search_goes_on_with_the_same_data_only(net, examples, tmp_path):
    """Guards against losses of two data sets in one table, and against a table without its reference at the top."""
    attar.compress(net, examples, tmp_path, max_ms=100)
    with pytest.raises(SpecError, match="another data and validation"):
        attar.compress(net, 2 * examples, tmp_path, max_ms=100, resume=True)
    with pytest.raises(SpecError, match="another file information"):
        attar.compress(net, examples, tmp_path, max_ms=100, resume=True, licence="MIT")
    other = torch.nn.Sequential(net[0], torch.nn.GELU(), net[2])
    with pytest.raises(SpecError, match="another module"):
        attar.compress(other, examples, tmp_path, max_ms=100, resume=True)
    (tmp_path / "files" / "floating-point.attar").unlink()
    found = attar.compress(net, examples, tmp_path, max_ms=100, minutes=1e-6, resume=True)
    assert found.files[0].name == "floating point"
    assert len(found.files) == 6


class _Words(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.last = torch.nn.Embedding(50, 8), torch.nn.Linear(8, 3)

    def forward(self, ids):
        return self.last(self.table(ids)).mean(1)


def test_validation_that_the_graph_does_not_take_is_refused_with_a_fix(net, examples, tmp_path):
    """Guards against an error of PyTorch about ``args[0].shape``; ``attar.quantize`` reads validation alike."""
    with pytest.raises(DataError, match="no batch of 16 examples"):
        attar.compress(net, examples, tmp_path, max_drop=5, batch=16, dynamic=(), validation=examples[:10])
    with pytest.raises(DataError, match="give 4 batches of 64 or more"):
        attar.compress(net, examples, tmp_path, max_drop=5, dynamic=())
    words = _Words().eval()
    with pytest.raises(DataError, match=r"write dynamic=\{'ids': \(0, 1\)\}"):
        attar.quantize(words, torch.randint(50, (32, 12)), max_drop=5, validation=torch.randint(50, (16, 20)))
