"""Guards against a bound on the main output that is held while another output is lost."""

import json

import numpy as np
import pytest
import torch
from pydantic import ValidationError

import attar
from attar._src.core.errors import AttarWarning, SpecError
from attar._src.methods.allocate.judge import Judge, Labelled, ModelOutputs
from attar._src.search.goal import Goal
from attar._src.search.recommended import front_of, recommended
from attar._src.search.searched_module import SearchedModule
from attar._src.search.trials.spec import SearchSpec
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
    assert judge.kinds == {"place": "values"}  # what integers mean is not known
    assert of.learns_others

    def changed(share):
        for want, others in zip(judge.wanted, judge.others, strict=True):
            noise = np.random.default_rng(0).normal(size=others["place"].shape)
            scaled = noise * np.sqrt(share * others["place"].var(0))
            yield ModelOutputs(want, {"place": others["place"] + scaled.astype(np.float32)})

    mild, strong, broken = (judge.judge(changed(share)) for share in (0.2, 0.9, np.inf))
    assert mild.others == {"place": pytest.approx(0.2, rel=0.1)}
    assert strong.worst_other == strong.others["place"] == pytest.approx(0.9, rel=0.1)
    assert broken.worst_other == np.inf
    assert [judge.points(each) for each in (mild, strong, broken)] == [0, 0, 0]
    assert [judge.ruins(each) for each in (mild, strong, broken)] == [False, True, True]
    assert mild.error == pytest.approx(0.1, rel=0.1)  # the mean over those in floating point


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_scores_that_are_no_numbers_are_lost():
    """Guards against an output of NaN that counts as kept because none of its predictions is another."""
    net = torch.nn.Linear(8, 4).eval()

    class Two(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = net, torch.nn.Linear(8, 3)

        def forward(self, x):
            return {"logits": self.one(x), "shares": self.two(x).softmax(1)}

    of = SearchedModule.of(Two().eval(), X[:256], "test", labels=Y[:256], validation=(X[256:], Y[256:]))
    assert of.judge.kinds == {"shares": "scores"}
    rows = [
        ModelOutputs(want, {"shares": np.full_like(others["shares"], np.nan)})
        for want, others in zip(of.judge.wanted, of.judge.others, strict=True)
    ]
    seen = of.judge.judge(rows)
    assert seen.others == {"shares": np.inf}
    assert of.judge.ruins(seen)


def test_no_loss_that_was_agreed_to_ruins_another_output():
    kept = {"name": "a", "options": {}, "file_bytes": 10, "drop": 0.0, "unit": "points", "ms": 1.0}
    whole = TriedFile(**kept | {"name": "floating point", "file_bytes": 100}, others=0.0)
    for goal in (Goal(max_drop=90), Goal(max_bytes=100), Goal(max_drop=1, max_bytes=100), Goal(minimise="bytes")):
        assert goal.holds(TriedFile(**kept, others=0.4))
        assert goal.holds(TriedFile(**kept, others=None))
        ruined = TriedFile(**kept, ruined=True, others=0.6)
        assert not goal.holds(ruined)
        assert recommended(goal, [whole, ruined]) is whole
        assert [each.name for each in front_of(goal, [whole, ruined])] == ["floating point"]


def test_what_others_may_lose_is_bounded_where_it_is_asked(tmp_path):
    tried = {"name": "a", "options": {}, "file_bytes": 10, "drop": 0.0, "unit": "points", "ms": 1.0}
    goal, shares = Goal(max_drop=1, max_others=5), (None, 0.0, 0.05, 0.06)
    assert [goal.holds(TriedFile(**tried, others=each)) for each in shares] == [True, True, True, False]
    assert "of other outputs 5 % at most" in goal.words()
    # No warning: what others may lose is said.
    found = attar.compress(TwoHeads(), X, tmp_path / "s", labels=Y, max_drop=50, max_others=2)
    assert found.met
    assert found.best.others <= 0.02 < max(each.others for each in found.files)
    with pytest.raises(SpecError, match="max_others=2: the module has no output beside the main one"):
        attar.compress(OneHead(), X, tmp_path / "one", labels=Y, max_drop=50, max_others=2)
    with pytest.raises(ValidationError, match="trials are judged by the metric"):
        SearchSpec(max_drop=1, max_others=5)


def test_an_allocation_for_a_drop_keeps_the_other_output(tmp_path):
    """Without it the classes, which 2 bits keep, let the place be lost."""
    made = attar.quantize(TwoHeads(), X[:400], labels=Y[:400], max_drop=20, tolerance=None)
    net = TwoHeads().eval()
    with torch.no_grad():
        want = net(X[400:])["place"].numpy()
    with pytest.warns(AttarWarning, match="of output 'place' it is only seen to"):
        made.save(tmp_path / "m.attar")
    got = attar.Session(tmp_path / "m.attar").run(X[400:].numpy())["place"]
    assert ((got - want) ** 2).sum() < 0.5 * ((want - want.mean(0)) ** 2).sum()


def test_a_search_trains_the_other_output_and_says_what_it_lost(tmp_path):
    net, seen = TwoHeads(256).eval(), 400
    with pytest.warns(AttarWarning, match="it is only seen to that no more than half is lost"):
        found = attar.compress(net, (X[:seen], Y[:seen]), tmp_path / "s", train=True, epochs=12, max_drop=5)
    trained = [each for each in found.files if each.way]
    with torch.no_grad():
        want = net(X[seen:])["place"].numpy()
    for each in trained:
        got = attar.Session(tmp_path / "s" / each.file).run(X[seen:].numpy())["place"]
        share = ((got - want) ** 2).sum() / ((want - want.mean(0)) ** 2).sum()
        assert share == pytest.approx(each.others, abs=0.25)
        assert {"name": "other_outputs", "teacher": "teacher"} in each.stages[-1]["terms"]
    # Untrained, the rate takes all that only the place reads.
    assert min(each.others for each in trained) < 0.3
    assert found.best.way
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


class OneHead(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.classes = TwoHeads().classes

    def forward(self, x):
        return self.classes(x)


def test_a_teacher_without_the_other_output_leaves_it_to_the_module_itself(tmp_path):
    with pytest.warns(AttarWarning, match="it is only seen to"):
        found = attar.compress(
            TwoHeads(256), (X, Y), tmp_path / "s", train=True, epochs=1, max_bytes=1400, teacher=OneHead()
        )
    trained = [each for each in found.files if each.way]
    assert trained, found.failed
    assert {"name": "other_outputs", "teacher": "itself"} in trained[0].stages[-1]["terms"]
