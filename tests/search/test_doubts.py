"""What is said of a bound on the drop that examples cannot tell, and of a reference that knows nothing."""

import json
from types import SimpleNamespace

import pytest
import torch

import attar
from attar._src.core.errors import AttarWarning
from attar._src.methods.allocate.judge import OutputError
from attar._src.report.search_page import search_cells
from attar._src.search.comparison import compare as comparing
from attar._src.search.compress import GoalSearch
from attar._src.search.goal import Goal
from attar._src.search.post_training import drop_noise
from attar._src.search.recommended import with_gains
from attar._src.search.searched_module import SearchedModule
from attar._src.search.tried_file import TriedFile


@pytest.fixture(scope="module")
def data():
    """Inputs whose largest value is the class, and 144 others that judge."""
    torch.manual_seed(0)
    x = torch.randn(400, 4)
    return (x[:256], x[:256].argmax(1)), (x[256:], x[256:].argmax(1))


def net(*, trained):
    torch.manual_seed(1)
    module = torch.nn.Linear(4, 4, bias=False)
    with torch.no_grad():
        if trained:
            module.weight.copy_(torch.eye(4))
        else:
            module.weight.zero_()
    return torch.nn.Sequential(module)


@pytest.fixture(scope="module")
def searched(data):
    given, validation = data
    return {
        trained: SearchedModule.of(net(trained=trained), given[0], "test", labels=given[1], validation=validation)
        for trained in (True, False)
    }


def test_a_module_that_knows_the_examples_by_heart_is_told_of():
    """Guards against a loss on training examples that is taken for that on new ones."""
    torch.manual_seed(0)
    x = torch.randn(700, 4)
    found = {}
    for share in (0.0, 0.01):
        y = x.argmax(1)
        y[: round(share * 400)] = (y[: round(share * 400)] + 1) % 4
        of = SearchedModule.of(
            net(trained=True), x[400:], "test", labels=x[400:].argmax(1), validation=(x[:400], y[:400])
        )
        found[share] = [*of.doubts(1.0, "max_drop")]
        assert [*of.doubts(None, "max_drop")] == []
    (said,) = found[0.0]
    assert said.startswith("the module is right about 100 % of 400 validation examples. If it was trained on them")
    assert "give examples it has not seen (validation=), or a larger max_drop=" in said
    assert found[0.01] == []


def test_a_bound_of_less_than_one_example_is_doubted(searched):
    (said,) = searched[True].doubts(0.5, "max_drop")
    assert said.startswith(
        "max_drop=0.5 is less than one of 144 validation examples, 0.69 points: a file may lose none"
    )
    assert "Say max_drop=0.7, or give more if there are more (validation=)" in said
    assert [*searched[True].doubts(0.7, "max_drop")] == []
    assert [*searched[True].doubts(0.0, "max_drop")] == []
    assert [*searched[True].doubts(None, "max_drop")] == []


def test_a_reference_that_is_no_better_than_chance_is_doubted(searched):
    """Guards against files that hold every bound because there is nothing to lose."""
    (said,) = searched[False].doubts(5, "max_drop")
    assert said.startswith("on 144 validation examples the module's accuracy of 0.")
    assert "is no better than chance: class " in said
    assert said.endswith("so that a loss says nothing; give it trained weights, or its own labels")


def test_labels_that_are_not_counted_are_told_of(data):
    """Guards against a loss of accuracy that is none."""
    given, validation = data
    of = SearchedModule.of(net(trained=False), given, "test", validation=validation)
    (said,) = of.doubts(5, "max_drop")
    assert said.startswith("labels do not count here: accuracy is 0.")
    assert said.endswith("What a file loses is told in % relative error")


class TwoHeads(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.classes, self.place = net(trained=True), torch.nn.Linear(4, 2)

    def forward(self, x):
        return {"logits": self.classes(x), "place": self.place(x)}


def test_outputs_that_no_drop_counts_are_told_of(data):
    """Guards against a bound that is held while another output is lost."""
    given, validation = data
    labelled = SearchedModule.of(TwoHeads(), given[0], "test", labels=given[1], validation=validation)
    assert [*labelled.doubts(5, "max_drop")] == [
        "a drop is of the main output; of output 'place' it is only seen to that no more than half is lost, of "
        "predictions or of variance"
    ]
    made = attar.quantize(TwoHeads(), given[0], labels=given[1], max_drop=5, tolerance=None).compressed
    assert any("of output 'place' it is only seen to that" in each for each in made.warnings)


@pytest.mark.parametrize("make", [attar.compress, attar.compare])
def test_doubts_are_warnings_before_anything_is_made(make, data, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(GoalSearch, "run", stop)
    monkeypatch.setattr(comparing.Comparison, "run", stop)
    (x, y), validation = data
    name = "max_drop" if make is attar.compress else "drop"
    with pytest.warns(AttarWarning) as caught, pytest.raises(KeyboardInterrupt):
        make(net(trained=False), x, tmp_path / "s", labels=y, validation=validation, **{name: 0.5})
    said = [str(each.message) for each in caught]
    assert any("no better than chance" in each for each in said)
    assert any(f"{name}=0.5 is less than one of 144 validation examples" in each for each in said)


def test_the_error_of_a_drop_is_in_the_json_and_the_tables():
    seen = OutputError(error=0.1, changed=0.04)
    judge = SimpleNamespace(unit="points of accuracy")
    noise = drop_noise(seen, judge, 100)
    assert noise == pytest.approx(2.0)
    assert drop_noise(OutputError(error=0.1), judge, 100) is None
    # Of a drop that is no share of predictions these say nothing.
    assert drop_noise(seen, SimpleNamespace(unit="% of root_loss"), 100) is None
    assert drop_noise(seen, SimpleNamespace(unit="% of predictions"), 100) == noise
    file = TriedFile(name="a", options={}, file_bytes=10, drop=1.5, unit="points of accuracy", noise=noise, ms=1.0)
    (told,) = with_gains(Goal(max_drop=1), [file])
    assert json.loads(json.dumps(told))["noise"] == noise
    result = {"best": "a", "front": ["a"], "files": [told]}
    assert search_cells({**result, "best": "b"}, {**told, "ruined": True})[1] == "ruined"
    assert search_cells(result, told)[2:5] == ["10", "1.5", "2"]
    assert search_cells(result, {**told, "noise": None})[4] == "–"
