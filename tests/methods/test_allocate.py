import json
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from tests.methods.test_sensitivity import TiedText
from tests.methods.toys import Net, data
from torch import nn

import attar
from attar._src.artifact.writer import pack
from attar._src.core.errors import AttarError, SpecError
from attar._src.core.tensors import Quantized
from attar._src.methods.allocate.allocate import Allocator
from attar._src.methods.allocate.choose import by_name, choose_levels
from attar._src.methods.allocate.sensitivity_table import SensitivityTable
from attar._src.methods.allocate.target import BitTarget
from attar._src.methods.quantize.ptq.stage import PostTrainingQuantize
from attar._src.methods.quantize.short_numbers import shorten_numbers
from attar._src.methods.quantize.unquantized import left_in_floating_point
from attar._src.model.trace import trace
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.compressed_model import CompressedModel, FileInfo
from attar._src.work.context import Context


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    net, (x, y) = Net(width=16), data(256)
    optimizer = torch.optim.Adam(net.parameters(), 0.02)
    for _ in range(20):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    return net.eval(), x, y


def widths(result):
    return {n: t.scheme.bits for n, t in result.compressed.tensors.items() if isinstance(t, Quantized)}


def packed(result):
    return pack(result.compressed.contents(result.use))


@pytest.mark.parametrize("seed", range(12))
def test_the_choice_is_the_best_of_all(seed):
    rng = np.random.default_rng(seed)
    layers, levels = int(rng.integers(1, 6)), int(rng.integers(1, 5))
    errors = rng.exponential(size=(layers, levels)) * 10.0 ** -np.arange(levels)
    sizes = rng.integers(10, 1000, (layers, levels)).astype(float)
    most = float(rng.uniform(sizes.min(1).sum(), sizes.max(1).sum() + 1))
    every = list(product(range(levels), repeat=layers))
    cost = {p: sum(errors[i][j] for i, j in enumerate(p)) for p in every}
    fits = [p for p in every if sum(sizes[i][j] for i, j in enumerate(p)) <= most]
    found = choose_levels(errors.tolist(), sizes.tolist(), most)
    assert cost[tuple(found)] == pytest.approx(min(cost[p] for p in fits), rel=1e-9)
    assert sum(sizes[i][j] for i, j in enumerate(found)) <= most
    assert found == choose_levels(errors.tolist(), sizes.tolist(), most)


def test_choices_at_the_ends():
    assert choose_levels([], [], 5) == []
    assert choose_levels([[1.0, 0.0]], [[10, 20]], 9) is None
    assert choose_levels([[1.0, 0.0]], [[10, 20]], 10) == [0]
    assert choose_levels([[0.0, 0.0]], [[10, 20]], 15) == [0]
    assert by_name({"a": {2: 1.0, 8: 0.0}}, {"a": {2: 5, 8: 9}}, 9) == {"a": 8}


def test_a_size_holds_on_the_packed_file(trained):
    net, x, _ = trained
    result = attar.quantize(net, x, max_bytes=1700, tolerance=None)
    assert 0.9 * 1700 < len(packed(result)) <= 1700
    assert len(set(widths(result).values())) > 1
    note = result.compressed.notes["bits"]
    predicted = int(note.split("; ")[1].split(" bytes")[0].replace(",", ""))
    assert predicted == pytest.approx(len(packed(result)), rel=0.01)
    again = attar.quantize(net, x, max_bytes=1700, tolerance=None)
    assert packed(again) == packed(result)


@pytest.mark.parametrize("target", [{"size": 3.0}, {"max_bytes": 1700}, {"max_drop": 1.0}])
def test_bits_beside_a_target_are_refused(trained, target):
    """Guards against an option that has no effect."""
    net, x, _ = trained
    (name,) = target
    with pytest.raises(SpecError, match=rf"bits=4 stand beside {name}=, which chooses .*: leave bits= out, or fix"):
        attar.quantize(net, x, bits=4, **target)


def test_bits_per_weight_are_those_of_the_report(trained, tmp_path):
    net, x, _ = trained
    report = attar.quantize(net, x, size=5, tolerance=None).save(tmp_path / "m.attar")
    assert 4 < report["bits_per_weight"] <= 5
    assert "bits per weight" in report["notes"]["bits"]


def test_mixed_bits_err_less_than_uniform_ones_in_as_many_bytes(trained):
    net, x, _ = trained
    uniform = attar.quantize(net, x, bits=3, tolerance=None)
    mixed = attar.quantize(net, x, max_bytes=len(packed(uniform)) + 40, tolerance=None)
    with torch.no_grad():
        errors = [float(((each.module(x) - net(x)) ** 2).mean()) for each in (uniform, mixed)]
    assert errors[1] <= errors[0]


def test_a_target_that_cannot_be_met_names_the_nearest(trained):
    net, x, _ = trained
    with pytest.raises(SpecError, match=r"no file of 700 bytes.*max_bytes=(\d+)") as caught:
        attar.quantize(net, x, max_bytes=700, tolerance=None)
    nearest = int(str(caught.value).split("max_bytes=")[1].split(",")[0])
    assert set(widths(attar.quantize(net, x, max_bytes=nearest, tolerance=None)).values()) == {2}


def test_a_drop_holds_on_the_decoded_file(trained):
    net, x, y = trained
    loose = attar.quantize(net, x, labels=y, max_drop=20, tolerance=None)
    strict = attar.quantize(net, x, labels=y, max_drop=0, tolerance=None)
    assert len(packed(loose)) <= len(packed(strict)) + 8
    with torch.no_grad():
        before, *after = (float((each(x).argmax(1) == y).float().mean()) for each in (net, loose.module, strict.module))
    assert before - after[0] <= 0.2
    assert before - after[1] <= 0
    changed = attar.quantize(net, x, max_drop=1, tolerance=None)
    with torch.no_grad():
        assert float((changed.module(x).argmax(1) != net(x).argmax(1)).float().mean()) <= 0.01


def test_fixed_bits_and_kept_layers_are_not_chosen(trained):
    net, x, _ = trained
    result = attar.quantize(net, x, max_bytes=2000, overrides={"first": 7}, keep=("head",), tolerance=None)
    assert widths(result)["first.weight"] == 7
    assert widths(result).keys() == {"first.weight", "second.weight"}
    assert "first" not in result.compressed.notes["bits"]


def test_one_layer_with_room_stays_in_floating_point():
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(8, 4)), torch.randn(32, 8)
    assert widths(attar.quantize(net, x, size=2000, tolerance=None)) == {}


def test_what_a_target_leaves_in_floating_point_nobody_asked_to_keep(trained):
    net, x, _ = trained
    left = left_in_floating_point(attar.quantize(net, x, size=20, keep=["first"], tolerance=None).compressed)
    assert left["first.weight"].startswith("kept by request")
    assert left["head.weight"].startswith("a target has room for it")


def test_tied_and_recurrent_weights_and_integer_activations(trained):
    torch.manual_seed(0)
    ids = torch.randint(20, (64, 7))
    result = attar.quantize(TiedText(), ids, size=12, tolerance=None)
    assert widths(result).keys() == {"out.weight", "gru.weight_ih_l0", "gru.weight_hh_l0"}
    net, x, _ = trained
    result = attar.quantize(net, x, max_bytes=2100, activations=8, tolerance=None)
    assert len(packed(result)) <= 2100
    assert result.compressed.main.activations


def test_under_a_target_most_levels_are_judged_by_their_layer(trained, monkeypatch):
    """Guards against estimates far from what the network does, and against a part that no run has seen."""
    net, x, _ = trained
    tables = []

    def measured(allocator):
        tables.extend(
            list(replace(allocator.meter, every=every, levels=allocator.levels).measure()) for every in (True, False)
        )
        return own(allocator)

    own = Allocator.smallest
    monkeypatch.setattr(Allocator, "smallest", measured)
    attar.quantize(net, x, max_bytes=2400, scales="gptq", tolerance=None)
    every, some = tables
    ratios = []
    for whole, part in zip(every, some, strict=True):
        ran = [one for one, other in zip(part.levels, whole.levels, strict=True) if one == other]
        assert len(ran) >= 5
        assert (len(whole.levels), len({each.key for each in whole.levels})) == (18, 18)
        ratios += [one.error / other.error for one, other in zip(part.levels, whole.levels, strict=True)]
        assert all(one.bytes == other.bytes for one, other in zip(part.levels, whole.levels, strict=True))
    assert len(ratios) == 18 * len(every)
    assert np.exp(np.abs(np.log(ratios)).mean()) < 1.3
    assert max(ratios) < 4


class TwoInputs(nn.Module):
    """One layer sees the first half of the examples, the other the second, and its logarithm may not be finite."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(16, 8), nn.Linear(16, 8)

    def forward(self, x):
        return self.one(x[:, :16]) + torch.log(1.5 + self.two(x[:, 16:]))


def test_a_layer_that_the_first_examples_do_not_reach_is_measured_by_others(monkeypatch):
    """Guards against estimates of one batch, as of data in the order of classes."""
    torch.manual_seed(0)
    x, found = torch.randn(128, 32), []
    x[:64, 16:], x[64:, :16] = 0, 0

    def measured(allocator):
        found.extend(list(replace(allocator.meter, every=every).measure()) for every in (True, False))
        return own(allocator)

    own = Allocator.smallest
    monkeypatch.setattr(Allocator, "smallest", measured)
    attar.quantize(TwoInputs().eval(), x, max_bytes=2100, scales="gptq", tolerance=None, keep=["*bias"])
    for whole, part in zip(*found, strict=True):
        for one, other in zip(part.levels, whole.levels, strict=True):
            assert (one.error is None) == (other.error is None)
            assert other.error is None or 0.2 < one.error / other.error < 5


def test_several_graphs_share_their_bits():
    torch.manual_seed(0)
    shared = nn.Linear(8, 8)
    one, two = nn.Sequential(shared, nn.ReLU()), nn.Sequential(shared, nn.Tanh(), shared)
    x = torch.randn(32, 8)
    model = CompressedModel.of({"one": trace(one, (x[:2],)), "two": trace(two, (x[:2],))})
    inputs = CalibrationInputs(((x,),))
    four = PostTrainingQuantize(bits=4).run(model, Context({"one": inputs, "two": inputs}))
    most = len(pack(shorten_numbers(four).contents(FileInfo()))) + 20
    stage = PostTrainingQuantize(bits=BitTarget(max_bytes=most))
    done = stage.run(model, Context({"one": inputs, "two": inputs}))
    assert len(pack(shorten_numbers(done).contents(FileInfo()))) <= most
    assert [tensor.scheme.bits for tensor in done.tensors.values() if isinstance(tensor, Quantized)]
    assert done.record[-1]["bits"] == {"max_bytes": most}


def test_a_table_is_read_and_one_of_another_model_refused(trained, tmp_path):
    net, x, _ = trained
    attar.sensitivity(net, x, levels=(2, 4, 6), examples=64, folder=tmp_path / "s")
    result = attar.quantize(net, x, max_bytes=1700, sensitivity=tmp_path / "s", tolerance=None)
    assert set(widths(result).values()) <= {2, 4, 6}
    with pytest.raises(SpecError, match="another model"):
        attar.quantize(Net(width=16), x, max_bytes=1700, sensitivity=tmp_path / "s", tolerance=None)


def test_targets_that_contradict_each_other(trained):
    net, x, _ = trained
    with pytest.raises(SpecError, match="give one of size"):
        attar.quantize(net, x, size=2, max_drop=1)
    with pytest.raises(SpecError, match="add size="):
        attar.quantize(net, x, sensitivity="s")
    with pytest.raises(SpecError, match="files of one size"):
        attar.quantize(net, x, size=2, activations="auto")


def test_a_drop_that_no_file_holds_names_the_nearest():
    """Files round biases to half precision, even beside weights in floating point: some figures of none are equal."""
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1)), torch.randn(64, 8)
    with pytest.raises(
        SpecError, match=r"no file drops by 0 % relative error at most.*nearest target is max_drop="
    ) as refused:
        attar.quantize(net, x, max_drop=0, activations=2, tolerance=None)
    nearest = float(str(refused.value).split("max_drop=")[1].split(";")[0])
    attar.quantize(net, x, max_drop=nearest, activations=2, tolerance=None)


def test_a_table_measured_with_other_grids_is_refused(trained, tmp_path):
    """Its errors and bytes are not those of the file."""
    net, x, _ = trained
    attar.sensitivity(net, x, levels=(2, 4, 8), examples=64, folder=tmp_path / "s")
    with pytest.raises(SpecError, match=r"another scales and granularity: scales gptq, here mse"):
        attar.quantize(
            net, x, max_bytes=2000, sensitivity=tmp_path / "s", scales="mse", granularity="tensor", tolerance=None
        )
    with pytest.raises(SpecError, match="another correct_bias: correct_bias default, here False"):
        attar.quantize(net, x, max_bytes=2000, sensitivity=tmp_path / "s", correct_bias=False, tolerance=None)


def test_a_drop_names_its_unit_and_labels_that_do_not_count(trained):
    """Guards ``max_drop`` against another meaning without a word: accuracy, predictions and errors are all called 5."""
    net, x, y = trained
    with torch.no_grad():
        right = net(x).argmax(1)

    def told(data, validation):
        made = attar.quantize(net, data, validation=validation, max_drop=20, overrides={"second": 4}, tolerance=None)
        return made.compressed.notes["bits"], " ".join(made.compressed.warnings)

    note, warned = told((x[:64], right[:64]), (x, right))
    assert "points of accuracy on 256 other examples" in note
    assert warned == ""
    note, warned = told((x[:64], right[:64]), x)
    assert "% of predictions on 256 other examples" in note
    assert "the examples of data have labels, those of validation none" in warned
    note, warned = told((x[:64], right[:64]), (x[:32], y[:32].roll(1)))
    assert "% of predictions on 32 other examples" in note
    assert "as the labels give no metric: accuracy is" in warned
    assert "on 32 examples, a rough measure; validate on 200 or more" in warned


@pytest.fixture(scope="module")
def measured(trained, tmp_path_factory):
    net, x, _ = trained
    folder = tmp_path_factory.mktemp("s")
    options = {"levels": (2, 4, 8), "rates": (0, 0.03), "scales": "gptq", "examples": 64}
    attar.sensitivity(net, x, folder=folder, **options)
    return folder


def test_a_table_gives_levels_at_the_rate_that_is_asked(trained, measured):
    """Guards ``rate`` beside a table: it chose among all rates, or none."""
    net, x, _ = trained
    options = {"max_bytes": 1900, "scales": "gptq", "sensitivity": measured, "tolerance": None}
    note = attar.quantize(net, x, rate=0.03, **options).compressed.notes["bits"]
    levels = {words.partition(" ")[2] for words in note.split("; ")[0].split(", ")}
    assert levels & {"2 at 0.03", "4 at 0.03", "8 at 0.03"}
    assert levels <= {"2 at 0.03", "4 at 0.03", "8 at 0.03", "float"}
    with pytest.raises(SpecError, match=r"rate 0.1: the table.* the rates \[0.0, 0.03\]; measure it with --rates 0.1"):
        attar.quantize(net, x, rate=0.1, **options)


@pytest.mark.parametrize("option", ["power_of_two", "equalize"])
def test_a_table_is_not_combined_with_what_it_is_measured_without(trained, measured, option):
    """Guards errors and bytes that are not those of the file."""
    net, x, _ = trained
    with pytest.raises(SpecError, match=f"measured without {option}.*leave the table out"):
        attar.quantize(net, x, size=5, scales="gptq", sensitivity=measured, **{option: True})


def test_a_table_of_sparsity_is_refused(trained, tmp_path):
    """Guards levels: shares are no bits."""
    net, x, _ = trained
    attar.sensitivity(net, x, what="sparsity", levels=(0.5,), examples=64, folder=tmp_path)
    with pytest.raises(SpecError, match="of another model or of sparsity"):
        attar.quantize(net, x, size=5, sensitivity=tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("level", 9, "levels.2: 9 bits: whole numbers from 2 to 8"),
        ("level", 2.5, "levels.2: 2.5 bits: whole numbers"),
        ("level", 0, "levels.2: 0 bits"),
        ("level", 32, "levels.2: 32 bits"),
        ("level", 4, "has other levels than first.weight, or one twice"),
        ("bytes", -1e9, "bytes: Input should be greater than or equal to 0"),
        ("beside", -1.0, "beside: Input should be greater than or equal to 0"),
        ("error", -5.0, "error: Input should be greater than or equal to 0"),
        ("rate", -0.1, "rate: Input should be greater than or equal to 0"),
    ],
)
def test_a_damaged_table_is_refused_where_it_is_read(measured, tmp_path, key, value, message):
    """Guards the choice against figures that no measurement gives; the message has the field."""
    table = json.loads((measured / "sensitivity.json").read_text())
    for layer in table["layers"]:
        layer["levels"] = [each for each in layer["levels"] if each["rate"] == 0]
    assert SensitivityTable.model_validate(table)
    table["layers"][1]["levels"][2][key] = value
    (tmp_path / "sensitivity.json").write_text(json.dumps(table))
    with pytest.raises(AttarError, match=r"layers\.1") as refused:
        SensitivityTable.read(tmp_path)
    assert message in str(refused.value)


def test_a_time_that_is_no_number_is_refused(trained):
    """Guards ``max_ms``: every comparison with NaN fails, so that nothing would hold or be missed."""
    net, x, _ = trained
    with pytest.raises(SpecError, match="give a time above 0"):
        attar.quantize(net, x, max_ms=float("nan"))
