"""A metric of the user's own judges wherever one is taken: guards against one that is accepted and never called."""

import inspect
import json

import pytest
import torch

import attar
from attar._src.core.errors import DataError, UnknownName
from attar._src.runtime.session import Session
from attar._src.search.searched_module import SearchedModule


def square_root_loss(outputs, targets):
    """Return the root of the mean distance of the first output: smaller is better."""
    return float(abs(outputs[:, 0] - targets).mean() ** 0.5)


square_root_loss.larger_is_better = False


def undirected(outputs, targets):
    return float(outputs.mean())


@pytest.fixture(scope="module")
def example():
    draw = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3)).eval()
    x = torch.randn(160, 6, generator=draw)
    return net, x, torch.randint(3, (160,), generator=draw).numpy()


@pytest.fixture
def reference(tmp_path):
    source = inspect.getsource(square_root_loss) + "\n\nsquare_root_loss.larger_is_better = False\n"
    path = tmp_path / "own.py"
    path.write_text(source)
    return f"{path}:square_root_loss"


@pytest.mark.parametrize("form", ["function", "reference"])
def test_quantize_measures_it_and_names_it(example, reference, form, tmp_path):
    net, x, y = example
    metric = square_root_loss if form == "function" else reference
    report = attar.quantize(net, x, bits=3, labels=y, metric=metric).save(tmp_path / "m.attar")
    found = report["fidelity"]["metric"]
    assert found["name"] == "square_root_loss"
    assert found["floating"] == pytest.approx(square_root_loss(net(x).detach().numpy(), y), rel=1e-5)
    # A path of this machine is nothing for a file.
    assert Session(tmp_path / "m.attar").manifest.metric == "square_root_loss"


def test_a_drop_is_counted_in_it(example, tmp_path):
    net, x, y = example
    told = []
    found = attar.compress(
        net,
        x[:80],
        tmp_path / "s",
        max_drop=5,
        minutes=0.02,
        validation=(x[80:], y[80:]),
        metric=square_root_loss,
        on_step=told.append,
    )
    assert all("% of square_root_loss lost" in each for each in told if " lost" in each)
    first = found.as_dict()["files"][0]
    assert first["metric"] == pytest.approx(square_root_loss(net(x[80:]).detach().numpy(), y[80:]), rel=1e-5)


@pytest.mark.filterwarnings("ignore:max_drop=")
def test_a_search_does_not_go_on_with_another_function_of_its_name(example, tmp_path):
    """Guards against a front whose losses are of two metrics."""
    net, x, y = example

    def go_on(function):
        attar.compress(
            net,
            x[:80],
            tmp_path / "s",
            max_drop=5,
            minutes=0.001,
            resume=True,
            validation=(x[80:], y[80:]),
            metric=function,
        )

    def square_root_loss(outputs, targets):
        return float(abs(outputs[:, 1] - targets).mean() ** 0.5)

    square_root_loss.larger_is_better = False
    before = globals()["square_root_loss"]
    go_on(before)
    go_on(before)
    with pytest.raises(attar.SpecError, match="has a search with another metric"):
        go_on(square_root_loss)


def test_a_word_that_only_tells_what_to_measure_trains_nothing(example):
    """Guards against a search that ends where it would train: no metric of a recipe is called so."""
    net, x, y = example
    given = {"validation": (x[80:], y[80:]), "labels": y[:80]}
    for metric, wanted in (("bleu", "accuracy"), (None, "accuracy"), (square_root_loss, square_root_loss)):
        of = SearchedModule.of(net, x[:80], "test", metric=metric, **given)
        assert of.recipe_fields(None)["metric"] == wanted
    assert of.use.metric == "square_root_loss"


def test_sensitivities_and_pruning_take_it(example, tmp_path):
    net, x, y = example
    table = attar.sensitivity(net, x, levels=[2, 8], labels=y, metric=square_root_loss, folder=tmp_path / "t")
    assert json.loads((tmp_path / "t" / "sensitivity.json").read_text())["metric"] == "square_root_loss"
    assert table.metric == "square_root_loss"
    pruned = attar.prune(net, x, channels=0.5, labels=y, metric=square_root_loss)
    assert pruned.figures["metric"]["name"] == "square_root_loss"


def flat(outputs, targets):
    return 0.5


flat.larger_is_better = True


@pytest.mark.parametrize("labels", ["beside", "with"])
def test_zeros_under_a_drop_are_counted_in_it(example, labels):
    """Guards against a metric, or labels, that pruning takes and does not count a drop by."""
    net, x, _ = example
    y = net(x).detach().argmax(1)
    given = {"data": x, "labels": y} if labels == "beside" else {"data": (x, y)}
    asked = {"max_drop": 0.1, "score": "l1", "update": "none", **given}
    zeros = [attar.prune(net, **asked, metric=metric).figures["nonzero"][1] for metric in (None, flat)]
    # What loses nothing by any zero gets all that are tried.
    assert zeros[1] < 0.2 * sum(each.numel() for each in net.parameters()) < zeros[0]


def test_a_drop_in_a_metric_without_a_direction_is_refused_with_the_fix(example, tmp_path):
    net, x, y = example
    with pytest.raises(DataError, match=r"undirected\.larger_is_better = False for an error"):
        attar.compress(net, x[:80], tmp_path / "s", max_drop=5, validation=(x[80:], y[80:]), metric=undirected)
    # Both values are reported where nothing is decided by them.
    report = attar.quantize(net, x, bits=8, labels=y, metric=undirected).save(tmp_path / "m.attar")
    assert report["fidelity"]["metric"]["name"] == "undirected"


def test_a_reference_to_nothing_is_refused(example):
    net, x, y = example
    with pytest.raises((DataError, UnknownName, attar.SpecError), match=r"none\.py"):
        attar.quantize(net, x, labels=y, metric="none.py:metric")
