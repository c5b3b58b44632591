"""What the term ``rate`` does behind the last step: codes move until a budget holds that training nearly reached."""

import copy

import pytest
import torch
from tests.methods.test_compress import begun, compressed, trained  # noqa: F401 -- a fixture
from tests.methods.toys import data, fresh
from torch import nn

from attar._src.artifact.writer import pack
from attar._src.methods.prune.masks import Mask, MaskConstraint
from attar._src.methods.quantize.lsq.rule import Lsq
from attar._src.methods.quantize.qat import rate as module
from attar._src.methods.quantize.qat.normalize import Normalize
from attar._src.methods.quantize.qat.rate import Rate, _CodeRoom, _rates
from attar._src.methods.quantize.qat.straight_through import StraightThrough
from attar._src.methods.quantize.short_numbers import shorten_numbers
from attar._src.model.capture import capture
from attar._src.model.trace import trace
from attar._src.work.compressed_model import FileInfo
from attar._src.work.learner import Learner
from attar._src.work.size_budget import SizeBudget

pytestmark = pytest.mark.usefixtures("one_thread")
NAMES = ("first.weight", "second.weight")


def codes(learner):
    with torch.no_grad():
        return {name: each.codes() for name, each in learner.weight_view().grid_positions().items()}


def rate_of(learner):
    with torch.no_grad():
        return float(_rates(learner.weight_view().grid_positions())[1])


def finished(learner, rate):
    with torch.no_grad():
        rate.build(learner).finish(learner)


@pytest.mark.parametrize("flat", [False, True], ids=["trained", "equally frequent"])
@pytest.mark.parametrize(
    "rule",
    [
        Lsq(bits=4),
        Lsq(bits=2),
        Lsq(bits=6),
        Lsq(bits=4, granularity="tensor"),
        Lsq(bits=4, offset=True),
        StraightThrough(bits=4),
    ],
    ids=["rows", "2 bits", "6 bits", "tensor", "offset", "spanning"],
)
def test_codes_move_to_their_neighbours_until_the_rate_is_in_the_budget(trained, rule, flat):  # noqa: F811
    """Guards against prices that promise little of codes that are equally frequent, so that most of them move."""
    learner = begun(trained)
    if flat:
        with torch.no_grad():
            for name in NAMES:
                learner.tensor(name).copy_(torch.rand(learner.tensor(name).shape) - 0.5)
    learner.attach(rule.attach(learner))
    before, budget = codes(learner), rate_of(learner) / 1.03
    finished(learner, Rate(bits=budget))
    assert 0.995 * budget < rate_of(learner) <= budget
    after = codes(learner)
    steps = torch.cat([(after[name] - before[name]).abs().reshape(-1) for name in before])
    assert float(steps.max()) == 1
    assert 0 < float(steps.mean()) < 0.3, "few are enough"


@pytest.mark.parametrize("excess", [0.9, 1.0, 1.2])
def test_weights_within_their_budget_or_far_from_it_stay(trained, excess):  # noqa: F811
    """Far above it so many codes would have to move that a file above its budget is the lesser evil."""
    learner = begun(trained)
    learner.attach(Lsq(bits=4).attach(learner))
    before = {name: learner.tensor(name).clone() for name in NAMES}
    finished(learner, Rate(bits=rate_of(learner) / excess))
    for name, value in before.items():
        torch.testing.assert_close(learner.tensor(name), value, rtol=0, atol=0)


def test_pruned_weights_stay_zero(trained):  # noqa: F811
    learner = begun(trained)
    mask = Mask(
        (torch.arange(learner.tensor("second.weight").numel()) % 2 == 0).reshape(learner.tensor(NAMES[1]).shape)
    )
    learner.attach(MaskConstraint({"second.weight": mask}))
    learner.attach(Lsq(bits=4).attach(learner))
    budget = rate_of(learner) / 1.03
    finished(learner, Rate(bits=budget))
    assert rate_of(learner) <= budget
    assert not codes(learner)["second.weight"][~mask.mask.bool()].any()


def test_what_does_not_follow_its_parameter_stays(trained):  # noqa: F811
    """Guards against steps on the grid that are added to a weight which is normalized, frozen or computed."""
    learner = begun(trained)
    with torch.no_grad():
        for name in NAMES:
            learner.tensor(name).mul_(0.2)
    learner.attach(Normalize().attach(learner))
    learner.attach(Lsq(bits=4).attach(learner))
    before, rate = codes(learner), rate_of(learner)
    finished(learner, Rate(bits=rate / 1.03))
    after = codes(learner)
    assert max(float((after[name] - before[name]).abs().max()) for name in before) <= 1
    assert rate_of(learner) <= rate


def test_weights_that_are_computed_leave_the_moves_to_others():
    module = copy.deepcopy(fresh(width=48).module).eval()
    nn.utils.parametrizations.weight_norm(module.second)
    example = (data(2)[0],)
    learner = Learner(module, capture(module, example), trace(module, example))
    learner.attach(Lsq(bits=4).attach(learner))
    budget = rate_of(learner) / 1.01
    before = codes(learner)
    finished(learner, Rate(bits=budget))
    after = codes(learner)
    moved = {name: bool((after[name] != before[name]).any()) for name in before}
    assert rate_of(learner) <= budget
    assert moved == {"first.weight": True, "second.weight": False, "head.weight": True}


def packed_bytes(learner):
    return len(pack(shorten_numbers(learner.deployed(emit=False)).contents(learner.use), coder=learner.coder))


@pytest.mark.parametrize("activations", [None, 8])
def test_a_file_holds_by_what_the_coder_takes(trained, activations):  # noqa: F811
    """Guards against what comes into a file after a budget is made, such as grids of activations."""

    def attached():
        learner = begun(trained)
        learner.attach(Lsq(bits=4, granularity="tensor", activations=activations).attach(learner))
        return learner

    twin = attached()
    twin.graph(train=True)(data(64)[0])
    size, positions = packed_bytes(twin), twin.weight_view().grid_positions()
    room = _CodeRoom.of(SizeBudget(max_bytes=size), positions, twin)
    codes_bytes = room.coded_bits(positions) * sum(each.at.numel() for each in positions.values()) / 8
    most = round(size - 0.04 * codes_bytes)
    learner = attached()
    rate = Rate(max_bytes=most).build(learner)
    learner.graph(train=True)(data(64)[0])
    room = float(rate.begun[1])
    with torch.no_grad():
        rate.finish(learner)
    assert 0.97 * most < packed_bytes(learner) <= most
    assert (float(rate.begun[1]) < room) == (activations is not None), "grids of activations take bytes"


def test_a_training_that_ends_above_its_budget_is_corrected(trained, tmp_path, monkeypatch):  # noqa: F811
    """Guards against files a per cent above ``max_bytes``, at which push and loss are in balance."""
    lengths = []
    for nearly in (0.0, module._NEARLY):
        monkeypatch.setattr(module, "_NEARLY", nearly)
        learner = compressed(trained, tmp_path / str(nearly), max_bytes=1300, bits=4)
        lengths.append(len(pack(shorten_numbers(learner.deployed()).contents(FileInfo()))) + 128)
    assert lengths[0] > 1300, "nothing to correct"
    assert lengths[1] <= 1300
