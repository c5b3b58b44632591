"""Guards against a bound on the main output that is held while another output is lost."""

import json

import numpy as np
import pytest
import torch

import attar
from attar._src.core.errors import AttarWarning
from attar._src.methods.allocate.judge import Judge, Labelled, ModelOutputs
from attar._src.search.goal import Goal
from attar._src.search.searched_module import SearchedModule
from attar._src.search.tried_file import TriedFile

X = torch.randn(600, 8, generator=torch.Generator().manual_seed(0))
Y = X[:, :4].argmax(1)


class TwoHeads(torch.nn.Module):
    """Classes from the first four inputs; the place, the other four, by layers of its own."""

    def __init__(self, width=16):
        super().__init__()
        torch.manual_seed(0)
        self.classes, self.wide = torch.nn.Linear(8, 4), torch.nn.Linear(8, width)
        self.place = torch.nn.Linear(width, 4)
        with torch.no_grad():
            self.classes.weight.copy_(4 * torch.eye(4, 8))
            self.classes.bias.zero_()
            self.place.weight.copy_(torch.linalg.pinv(self.wide.weight)[4:])
            self.place.bias.copy_(-self.place.weight @ self.wide.bias)

    def forward(self, x):
        return {"logits": self.classes(x), "place": self.place(self.wide(x)), "first": x.argmax(1)}


def test_of_each_other_output_it_is_told_what_is_lost():
    of = SearchedModule.of(TwoHeads(), X[:256], "test", labels=Y[:256], validation=(X[256:], Y[256:]))
    judge = of.judge
    assert judge.kinds == {"place": "values", "first": "integers"}
    assert of.learns_others

    def changed(place, first):
        for want, others in zip(judge.wanted, judge.others, strict=True):
            noise = np.random.default_rng(0).normal(size=others["place"].shape)
            scaled = noise * np.sqrt(place * others["place"].var(0))
            count = round(first * len(others["first"]))
            moved = others["first"] + (np.arange(len(want)) < count)
            yield ModelOutputs(want, {"place": others["place"] + scaled.astype(np.float32), "first": moved})

    mild, strong, wrong = (judge.judge(changed(*each)) for each in ((0.2, 0.0), (0.9, 0.1), (0.0, 0.75)))
    assert mild.others == {"place": pytest.approx(0.2, rel=0.1), "first": 0.0}
    assert strong.worst_other == strong.others["place"] == pytest.approx(0.9, rel=0.1)
    assert wrong.others == {"place": 0.0, "first": pytest.approx(0.75, abs=0.02)}
    assert [judge.points(each) for each in (mild, strong, wrong)] == [0, 0, 0]
    assert [judge.ruins(each) for each in (mild, strong, wrong)] == [False, True, True]
    assert mild.error == pytest.approx(0.1, rel=0.1)  # the mean over those in floating point


def test_no_loss_that_was_agreed_to_ruins_another_output():
    kept = {"name": "a", "options": {}, "file_bytes": 10, "drop": 0.0, "unit": "points", "ms": 1.0}
    for goal in (Goal(max_drop=90), Goal(max_bytes=100), Goal(max_drop=1, max_bytes=100), Goal(minimise="bytes")):
        assert goal.holds(TriedFile(**kept, others=0.4))
        assert goal.holds(TriedFile(**kept, others=None))
        assert not goal.holds(TriedFile(**kept, ruined=True, others=0.6))


def test_an_allocation_for_a_drop_keeps_the_other_output(tmp_path):
    """Without it the classes, which 2 bits keep, let the place be lost."""
    made = attar.quantize(TwoHeads(), X[:400], labels=Y[:400], max_drop=20, tolerance=None)
    net = TwoHeads().eval()
    with torch.no_grad():
        want = net(X[400:])["place"].numpy()
    with pytest.warns(AttarWarning, match="of outputs 'place', 'first' it is only seen to"):
        made.save(tmp_path / "m.attar")
    got = attar.Session(tmp_path / "m.attar").run(X[400:].numpy())["place"]
    assert ((got - want) ** 2).sum() < 0.5 * ((want - want.mean(0)) ** 2).sum()


def test_a_search_trains_the_other_output_and_says_what_it_lost(tmp_path):
    net, seen = TwoHeads(256).eval(), 400
    with pytest.warns(AttarWarning, match="it is only seen to that no more than half is lost"):
        found = attar.compress(net, (X[:seen], Y[:seen]), tmp_path / "s", train=True, epochs=12, max_drop=5)
    trained = [each for each in found.files if each.way]
    assert trained
    with torch.no_grad():
        want = net(X[seen:])["place"].numpy()
    for each in trained:
        got = attar.Session(tmp_path / "s" / each.file).run(X[seen:].numpy())["place"]
        share = ((got - want) ** 2).sum() / ((want - want.mean(0)) ** 2).sum()
        assert share == pytest.approx(each.others, abs=0.25)
        assert {"name": "other_outputs", "teacher": "teacher"} in each.stages[-1]["terms"]
    assert found.best.others <= 0.5
    told = json.loads((tmp_path / "s" / "search.json").read_text())
    assert all(each["others"] is not None for each in told["files"])
    page = (tmp_path / "s" / "search.html").read_text()
    assert "others: the most that an output beside the main one lost" in page


def test_one_output_has_no_others():
    net = torch.nn.Sequential(torch.nn.Linear(8, 4)).eval()
    of = SearchedModule.of(net, X[:256], "test", labels=Y[:256], validation=(X[256:], Y[256:]))
    assert not of.learns_others
    judged = of.judge.judge(ModelOutputs(want) for want in of.judge.wanted)
    assert (judged.others, judged.worst_other) == ({}, None)
    assert Judge.of(of.traced.graph, of.held, "", Labelled()).kinds == {}
