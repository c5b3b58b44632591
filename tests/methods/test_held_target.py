"""A target holds whatever comes after the bits were chosen: rates, reconstruction, the coder, what a file tells."""

from dataclasses import replace

import pytest
import torch
from tests.methods.toys import Net, data
from torch import nn

import attar
from attar._src.artifact.writer import pack
from attar._src.core.errors import SpecError
from attar._src.core.scheme import PerChannel, Scheme
from attar._src.core.tensors import Quantized
from attar._src.methods.allocate.level import FLOAT, Level
from attar._src.methods.allocate.target import BitTarget
from attar._src.methods.quantize.coded_rate import interpolated_bits
from attar._src.methods.quantize.ptq.reconstruct.code_budget import CodeBudget
from attar._src.methods.quantize.ptq.reconstruct.learned import LearnedWeight, Mode
from attar._src.methods.quantize.ptq.reconstruct.stage import Reconstruct
from attar._src.methods.quantize.ptq.stage import PostTrainingQuantize
from attar._src.methods.quantize.short_numbers import shorten_numbers
from attar._src.model.trace import trace
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.compressed_model import CompressedModel, FileInfo
from attar._src.work.context import Context, JudgedExamples


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    net, (x, y) = Net(width=32), data(256)
    optimizer = torch.optim.Adam(net.parameters(), 0.02)
    for _ in range(20):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    return net.eval(), x, y


@pytest.fixture(scope="module")
def model(trained):
    net, x, _ = trained
    return CompressedModel.of(trace(net, (x[:2],)))


def packed(model, use=None, coder="auto"):
    return pack(shorten_numbers(model).contents(use or FileInfo()), coder=coder)


def made_of(model):
    return CompressedModel(model.graphs)


def divergence(model, net, x):
    with torch.no_grad():
        wanted, made = net(x).log_softmax(1), model.simulate()(x).log_softmax(1)
    return float((wanted.exp() * (wanted - made)).sum(1).mean())


@pytest.fixture(scope="module")
def allocated(trained, model):
    _, x, _ = trained
    given = Context(CalibrationInputs(((x[:128],), (x[128:],))))
    stage = PostTrainingQuantize(scales="gptq", bits=BitTarget(max_bytes=2400))
    return stage.run(model, given), given


def test_bits_and_rates_meet_a_target_together(allocated):
    """Guards the levels: the middle layer, most of this net, has two bits or less here, at a rate."""
    made, given = allocated
    assert 0.97 * 2400 < len(packed(made)) <= 2400
    small = PostTrainingQuantize(scales="gptq", bits=BitTarget(max_bytes=1900)).run(made_of(made), given)
    assert 0.95 * 1900 < len(packed(small)) <= 1900
    assert "second.weight 2 at 0." in small.notes["bits"]
    assert [str(each) for each in (Level(4), Level(3, 0.01), Level(FLOAT))] == ["4", "3 at 0.01", "float"]


def test_reconstruction_keeps_to_the_bytes_and_errs_less(trained, allocated):
    """Guards the price of bits: free codes take more bytes than were asked for."""
    net, x, _ = trained
    made, given = allocated
    stage = Reconstruct(steps=80, network_steps=160)
    better = stage.run(made, given)
    assert better.record[-1]["stage"] == "reconstruct"
    assert len(packed(better)) <= 2400
    assert divergence(better, net, x) < divergence(made, net, x)
    changed = [name for name in made.tensors if not (made.tensors[name].dense() == better.tensors[name].dense()).all()]
    assert changed
    again = stage.run(made, given)
    assert packed(again) == packed(better)


def test_what_cannot_hold_its_target_stays_as_it_was(allocated, monkeypatch):
    """Guards the promise: a file that is too large, or loses too much, is never returned."""
    made, given = allocated
    monkeypatch.setattr(type(made.target), "holds", lambda *_: False)
    kept = Reconstruct(steps=2, network_steps=2).run(made, given)
    assert packed(kept) == packed(made)
    assert "nothing was kept" in kept.notes["reconstruct"]


def test_a_target_of_8_bits_leaves_nothing_to_improve(allocated):
    """Guards runs of hours: that no weight has fewer bits is a choice of the target, and no mistake."""
    made, given = allocated
    whole = replace(PostTrainingQuantize(bits=8).run(made_of(made), given), target=made.target)
    kept = Reconstruct(steps=2).run(whole, given)
    assert "nothing was done: reconstruct finds no weight" in kept.notes["reconstruct"]
    assert packed(kept) == packed(whole)


def test_another_coder_at_the_end_is_refused_and_one_from_the_start_counted(trained, tmp_path):
    """Guards ``max_bytes`` against the coder of ``save``, and predictions against that of ``auto``: codes without
    entropy coding take a third more."""
    net, x, _ = trained
    result = attar.quantize(net, x, max_bytes=5000, tolerance=None)
    with pytest.raises(SpecError, match=r"5,000 were asked for, which hold with the coder 'auto'"):
        result.save(tmp_path / "raw.attar", coder="raw")
    assert not (tmp_path / "raw.attar").exists()
    report = attar.quantize(net, x, max_bytes=5000, coder="raw", tolerance=None).save(tmp_path / "raw.attar")
    assert 4500 < report["file_bytes"] <= 5000


def test_a_stage_that_made_the_file_larger_is_not_blamed_on_the_coder(allocated):
    """Guards the reason: a stage of one's own may follow a target, and the advice must be of use."""
    made, _ = allocated
    file = packed(made) + bytes(400)
    assert "put that stage before" in made.target.missed(file, "auto")
    assert "which hold with the coder 'auto'" in made.target.missed(file, "raw")
    assert made.target.missed(packed(made), "auto") == ""


def test_what_a_file_tells_its_user_counts(trained, model):
    """Guards ``Context.use``: names of classes of a recipe are bytes of the file."""
    _, x, _ = trained
    use = FileInfo(class_names=tuple(f"a class with a long name {each * 7919}" for each in range(40)))
    given = Context(CalibrationInputs(((x[:128],), (x[128:],))), use=use)
    made = PostTrainingQuantize(bits=BitTarget(max_bytes=4000)).run(model, given)
    assert 3600 < len(packed(made, use)) <= 4000
    assert len(packed(made)) < len(packed(made, use)) - 200


def test_a_drop_is_measured_on_examples_that_calibration_does_not_see(trained, model):
    """Guards the held-out examples: labels of the validation decide, not those of the calibration."""
    net, x, y = trained
    with pytest.raises(SpecError, match="validation= is for max_drop="):
        attar.quantize(net, x, max_bytes=4000, validation=x)
    with torch.no_grad():
        right = net(x).argmax(1)
    halves = CalibrationInputs(((x[:128],), (x[128:],)), targets=(y[:128], y[128:]))
    one, other = halves.halves()
    assert [each.examples for each in (one, other)] == [128, 128]
    assert sum(map(len, other.targets)) == 128
    single = CalibrationInputs(((x,),), targets=(y,)).halves()
    assert [each.examples for each in single] == [128, 128]
    stage = PostTrainingQuantize(bits=BitTarget(max_drop=0.5))
    seen = CalibrationInputs(((x,),), targets=(right,))
    made = stage.run(model, Context(halves, judged=JudgedExamples(seen, given=True)))
    with torch.no_grad():
        assert float((made.simulate()(x).argmax(1) != right).float().mean()) <= 0.005
    assert "on 256 other examples" in made.notes["bits"]


def test_a_budget_prices_bits(trained):
    """Guards the dual ascent: above the budget the price rises, below it falls."""
    torch.manual_seed(0)
    weight = torch.randn(16, 40)
    scale = torch.full((16,), 0.5)
    codes = (weight / 0.5).round().clamp(-3, 3).to(torch.int8)
    scheme = Scheme(bits=3, symmetric=True, granularity=PerChannel())
    part = LearnedWeight(weight, Quantized(codes.numpy(), scale.numpy(), scheme))
    _, rounded = interpolated_bits(codes.float().reshape(-1), -3, 3)
    free = CodeBudget([part])
    assert free.bits == pytest.approx(float(rounded))
    assert free.refused() == 0
    part.straighten()
    part.mode = Mode.STRAIGHT
    tight, loose = CodeBudget([part], 0.8 * free.bits), CodeBudget([part], 1.2 * free.bits)
    prices = {}
    for budget in (tight, loose):
        budget.start(0.1)
        seen = [float(budget.penalty().detach()) for _ in range(5)]
        prices[budget] = seen[-1] / seen[0]
    assert prices[tight] > 1 > prices[loose]
    tight.penalty().backward()
    # Bits pull codes towards zero, the most frequent one.
    pull = part.v.grad * part.v.detach().sign()
    assert float(pull[(part.v.abs() > 0.6) & (part.v.abs() < 2.9)].mean()) > 0
    part.mode = Mode.STORED
    assert tight.refused() > 0


def test_a_single_batch_of_a_fixed_size_calibrates_and_judges(trained):
    """Guards graphs that take one size of batch alone: half a batch would not run."""
    net, x, _ = trained
    made = attar.quantize(net, x[:32], batch=32, dynamic=(), max_drop=20, tolerance=None)
    assert "on 32 other examples" not in made.compressed.notes["bits"]
    assert "on 32 examples" in made.compressed.notes["bits"]


def test_a_target_that_leaves_nothing_to_reconstruct_keeps_what_was_chosen(trained):
    """Guards against an error after all bits were chosen: weights of 8 bits are not improved."""
    net, x, _ = trained
    made = attar.quantize(net, x, size=20.0, reconstruct={"steps": 2}, tolerance=None)
    assert {tensor.scheme.bits for tensor in made.compressed.tensors.values() if isinstance(tensor, Quantized)} == {8}
    assert made.compressed.notes["reconstruct"].startswith("nothing was done: reconstruct finds no weight")
    with pytest.raises(SpecError, match="finds no weight to improve"):
        attar.quantize(net, x, bits=8, reconstruct={"steps": 2}, tolerance=None)
