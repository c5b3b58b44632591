import numpy as np
import pytest
import torch
from torch import nn

from attar._src.deploy.dry_run import dry_run
from attar._src.deploy.fidelity import ComparedExamples
from attar._src.measure.class_layout import FROM_SHAPES
from attar._src.measure.metric import find
from attar._src.pipeline.floating import compared_examples, compression_start, floating_before
from attar._src.recipe.recipe import Recipe
from attar._src.train.feed import ArrayFeed, preprocessor
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.compressed_model import FileInfo
from attar._src.work.learner import Learner

TRAIN = {"stage": "train", "epochs": 1}
PTQ = {"stage": "quantize"}
QAT = {"stage": "finetune", "epochs": 1, "objective": ["cross_entropy"], "constraints": [{"name": "quantize"}]}
PLAIN = {"stage": "finetune", "epochs": 1, "objective": ["cross_entropy"]}


def stages(*given):
    return Recipe(data="digits", models={"net": {"source": "net.py:net", "stages": [*given]}}).models["net"].stages


@pytest.mark.parametrize(
    ("given", "start"),
    [((), None), ((TRAIN, PLAIN), None), ((TRAIN, PTQ), 1), ((QAT,), 0), ((TRAIN, PLAIN, QAT, PTQ), 2)],
)
def test_compression_starts_where_something_is_first_rounded_or_pruned(given, start):
    assert compression_start(stages(*given)) == start


def test_the_floating_model_is_the_learner_before_that_stage():
    net = nn.Linear(3, 2)
    x = torch.randn(8, 3)
    inputs = CalibrationInputs(((x[:4],), (x[4:],)))
    tried = dry_run(net, FileInfo(), inputs, dynamic=(0,))
    learner = Learner(net, tried.captured, tried.traced)
    with torch.no_grad():
        net.weight.mul_(2)
        want = net(x).numpy()
    found = floating_before(learner, stages(TRAIN, PTQ), 1, ComparedExamples(inputs))
    with torch.no_grad():
        net.weight.mul_(3)
    np.testing.assert_allclose(np.concatenate([each for (each,) in found.outputs]), want, rtol=1e-5)
    assert (found.what, found.trained_since) == ("the model after stage 0, train", False)
    since = floating_before(learner, stages(QAT, PTQ), 0, ComparedExamples(inputs))
    assert (since.what, since.trained_since) == ("the model as its source gives it", True)


def test_files_are_compared_on_validation_examples_with_their_targets():
    class Source:
        parameters = {"x": True}

    x, y = np.random.default_rng(0).normal(size=(700, 3)).astype(np.float32), np.arange(700)
    calibration = CalibrationInputs(((torch.randn(5, 3),),))
    feed = ArrayFeed((x,), y, batch=200, prepare=preprocessor(None), augment=(), seed=0)
    found = compared_examples(Source(), feed, calibration, find("accuracy"), FROM_SHAPES)
    assert found.inputs.examples == 512
    assert torch.cat(list(found.targets)).tolist() == list(range(512))
    assert found.metric[0] == "accuracy"
    without = compared_examples(Source(), None, calibration, find("accuracy"), FROM_SHAPES)
    assert (without.inputs.batches, without.targets, without.metric) == (calibration.batches, (), None)
