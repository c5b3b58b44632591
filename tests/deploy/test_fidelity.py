import numpy as np
import pytest
import torch

from attar._src.core.errors import DataError
from attar._src.deploy.fidelity import (
    ComparedExamples,
    Fidelity,
    Floating,
    compare_with_floating,
    labelled_examples,
    metric_loss,
)
from attar._src.deploy.tolerance import Tolerance
from attar._src.measure.difference import DECISIONS, INTEGERS, SCORES, VALUES, Difference
from attar._src.measure.metric import find
from attar._src.measure.metric_change import MetricChange
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.compressed_model import FileInfo


class File:
    """A session of a module of torch that is off by a little."""

    def __init__(self, module):
        self.module, self.main_output = module, "y"
        self.inputs = [type("Port", (), {"name": "x"})]

    def run(self, feed):
        with torch.no_grad():
            return {"y": self.module(torch.from_numpy(feed["x"])).numpy()}


def fidelity(got, want, kind, examples=512, **fields):
    seen = Difference()
    seen.add(np.asarray(got), np.asarray(want))
    return Fidelity("the module", examples, {"y": (kind, seen)}, "y", **fields)


def test_a_file_is_compared_on_all_examples_and_judged_by_the_labels():
    x, weight = torch.randn(90, 4), torch.randn(4, 3)
    labels = (x @ weight).argmax(1)
    labels[::9] = (labels[::9] + 1) % 3
    inputs = CalibrationInputs(tuple((part,) for part in x.split(40)))
    file = File(lambda x: x @ weight + 0.5 * torch.tensor([1.0, 0, 0]))
    found = compare_with_floating(
        file, Floating("it", lambda x: x @ weight), FileInfo(), labelled_examples(inputs, labels, None)
    )
    assert (found.examples, found.outputs["y"][0]) == (90, SCORES)
    assert found.metric.floating == pytest.approx(80 / 90)
    right = (x @ weight + 0.5 * torch.tensor([1.0, 0, 0])).argmax(1) == labels
    assert found.metric.file == pytest.approx(float(right.float().mean()))
    assert found.metric.better == 1
    assert found.metric.standard_error > 0
    assert found.as_dict()["metric"]["examples"] == 90


def compare(net, file, x, labels, use=None, **fields):
    inputs = CalibrationInputs(tuple((part,) for part in x.split(20)), **fields)
    return compare_with_floating(
        File(file), Floating("it", net), use or FileInfo(), labelled_examples(inputs, labels, None)
    )


def test_an_output_with_a_target_for_each_element_has_no_classes_to_choose_from():
    x = torch.randn(60, 4)
    found = compare(lambda x: 9 * x, lambda x: 9 * x, x, (4 * x).long())
    assert (found.outputs["y"][0], found.metric.name, found.metric.better) == (VALUES, "mean_squared_error", -1)


@pytest.mark.parametrize("width", [(), (1,), (4,)])
@pytest.mark.parametrize("shares", [False, True])
def test_outputs_with_labels_of_yes_and_no_are_judged_by_their_decisions(width, shares):
    """One logit or several, or their probabilities; a file whose answers all move by 0.2 flips what lies between."""
    torch.manual_seed(0)
    x = torch.randn(400, *width)
    labels = (x > 0).long()

    def net(x):
        return torch.sigmoid(x) if shares else x

    def file(x):
        return net(x + 0.2)

    found = compare(net, file, x, labels)
    flipped = float(((x <= 0) & (x + 0.2 > 0)).float().mean())
    kind, seen = found.outputs["y"]
    assert (kind, found.metric.name, found.metric.floating) == (DECISIONS, "binary_accuracy", 1.0)
    assert seen.figures(kind)["equal_predictions"] == pytest.approx(1 - flipped)
    assert found.metric.file == pytest.approx(1 - flipped)
    assert "of the predictions equal" in found.losses(Tolerance())["y"]
    # A task says the same of one output, without labels.
    assert compare(net, file, x, None, FileInfo(task="classification")).outputs["y"][0] == (
        SCORES if width == (4,) else DECISIONS
    )


def test_labels_in_the_data_judge_a_module_that_knows_them_and_no_other():
    torch.manual_seed(0)
    x, weight = torch.randn(300, 4), torch.randn(4, 3)
    labels = (x @ weight).argmax(1)

    def net(x):
        return x @ weight

    found = compare(net, net, x, None, targets=tuple(labels.split(20)))
    assert (found.outputs["y"][0], found.metric.name, found.metric.floating) == (SCORES, "accuracy", 1.0)
    # The same module embeds, and the labels are of something else: no metric, and no classes to choose from.
    other = torch.randint(0, 3, (300,))
    found = compare(lambda x: 0.1 * net(x), net, x, None, targets=tuple(other.split(20)))
    assert (found.outputs["y"][0], found.metric) == (VALUES, None)
    # Of given labels that is shown.
    assert compare(net, net, x, other).metric.floating < 0.5


def test_known_outputs_stand_for_the_module_and_where_they_end_so_does_the_comparison():
    x = torch.randn(20, 3)
    inputs = CalibrationInputs(tuple((part,) for part in x.split(10)))
    known = Floating("it", outputs=[[x[:10].numpy()]], trained_since=True)
    found = compare_with_floating(File(lambda x: x + 0.1), known, FileInfo(task="regression"), ComparedExamples(inputs))
    assert (found.examples, found.trained_since, found.metric) == (10, True, None)
    assert found.outputs["y"][1].largest == pytest.approx(0.1, rel=1e-4)
    assert (
        compare_with_floating(File(torch.nn.Identity()), Floating("it"), FileInfo(), ComparedExamples(inputs)) is None
    )


def test_labels_follow_the_examples():
    inputs = CalibrationInputs(((torch.zeros(3, 2),), (torch.zeros(2, 2),)))
    found = labelled_examples(inputs, np.arange(9.0), "accuracy_of_mine")
    assert [each.tolist() for each in found.targets] == [[0, 1, 2], [3, 4]]
    assert (found.metric, found.given) == (None, True)
    assert labelled_examples(inputs, np.arange(9), "mean_squared_error").metric[0] == "mean_squared_error"
    with pytest.raises(DataError, match="4 labels for 5 examples"):
        labelled_examples(inputs, np.arange(4), None)


def test_a_loss_within_the_tolerance_or_by_chance_is_none(rng):
    want = np.eye(10)[rng.integers(0, 10, 1000)]
    got = want.copy()
    got[:80] = np.roll(got[:80], 1, axis=1)
    assert "92.0% of the predictions equal" in fidelity(got, want, SCORES).losses(Tolerance())["y"]
    # Of 100 examples, 8 may be chance.
    assert fidelity(got, want, SCORES, examples=100).losses(Tolerance()) == {}
    assert fidelity(got, want, SCORES).losses(Tolerance(equal_predictions=0.9)) == {}
    assert fidelity(got, want, VALUES).losses(Tolerance(signal_to_noise_db=5.0)) == {}
    assert "dB" in fidelity(got, want, VALUES).losses(Tolerance())["y"]
    assert fidelity(got, want, SCORES, trained_since=True).losses(Tolerance()) == {}
    ranks = want.argmax(1)
    assert "92.0% of the integers equal" in fidelity(got.argmax(1), ranks, INTEGERS).losses(Tolerance())["y"]


def test_scores_below_their_noise_are_a_loss_although_one_class_always_wins(rng):
    want = np.array([5.0, 0, 0]) + 0.1 * rng.normal(size=(200, 3))
    got = np.array([5.0, 0, 0]) + 0.1 * rng.normal(size=(200, 3))
    assert fidelity(got, want, SCORES).outputs["y"][1].equal_predictions == 1
    assert "dB" in fidelity(got, want, SCORES).losses(Tolerance())["y"]
    assert fidelity(want + 0.02 * rng.normal(size=(200, 3)), want, SCORES).losses(Tolerance()) == {}


def test_an_output_that_does_not_vary_is_judged_by_its_relative_error():
    constant = np.full((50, 3), 4.0)
    assert fidelity(1.1 * constant, constant, VALUES).losses(Tolerance()) == {}
    assert "relative error is 30.0%" in fidelity(1.3 * constant, constant, VALUES).losses(Tolerance())["y"]


@pytest.mark.parametrize(
    ("floating", "file", "better", "error", "lost"),
    [
        (0.95, 0.93, 1, 0.001, True),
        (0.95, 0.945, 1, 0.001, False),
        (0.95, 0.93, 1, 0.011, False),
        (0.95, 0.93, 1, None, True),
        (0.93, 0.95, 1, 0.001, False),
        (0.137, 0.167, -1, 0.001, True),
        (0.137, 0.140, -1, 0.001, False),
        (0.167, 0.137, -1, 0.001, False),
        (0.9, 0.1, 0, 0.001, False),
    ],
)
def test_a_metric_loses_beyond_its_noise_in_the_direction_that_is_worse(floating, file, better, error, lost):
    change = MetricChange("m", floating, file, 500, better, error)
    assert bool(metric_loss(change, Tolerance())) == lost


def test_a_metric_says_itself_which_direction_is_better():
    def equal_error_rate(outputs, targets):
        return 0.1

    assert find(equal_error_rate)[1].larger_is_better is None
    equal_error_rate.larger_is_better = False
    assert find(equal_error_rate)[1].larger_is_better is False
    assert find("accuracy")[1].larger_is_better is True
    assert find("mean_squared_error")[1].larger_is_better is False


@pytest.mark.parametrize("form", ["one-hot", "one-hot numbers", "a column"])
def test_labels_of_classes_in_any_form_are_judged_alike(form):
    """A net that is right everywhere: yes and no of its logits would say otherwise."""
    torch.manual_seed(0)
    x = torch.randn(80, 4)
    labels = x.argmax(1)
    hot = torch.nn.functional.one_hot(labels, 4)
    given = {"one-hot": hot, "one-hot numbers": hot.float(), "a column": labels[:, None]}[form]
    found = compare(lambda x: x, lambda x: x.roll(1, 1), x, given)
    assert (found.outputs["y"][0], found.metric.name) == (SCORES, "accuracy")
    assert (found.metric.floating, found.metric.file) == (1.0, 0.0)
