"""Sensitivities of channels, and how many of each group they let go under a target.

Guards against figures of other channels than are removed, targets that are missed, choices that are worse than by
scores alone, tables of another module or score, and measurements that cannot be resumed.
"""

import csv
import json

import numpy as np
import pytest
import safetensors.torch
import torch
from tests.methods.toys import context, data, fresh, net
from torch import nn

import attar
from attar._src.cli import main
from attar._src.core.errors import SpecError
from attar._src.core.spec import build_spec
from attar._src.methods.allocate.sensitivity_table import SensitivityTable
from attar._src.methods.prune.channels.allocation import ChannelAllocation
from attar._src.methods.prune.channels.amount import ChannelPruning
from attar._src.methods.prune.channels.choose import ChannelChoice
from attar._src.methods.prune.channels.costs import ChannelCosts
from attar._src.methods.prune.channels.pruning import rank_channels
from attar._src.methods.prune.channels.sensitivities import JudgedChannels
from attar._src.methods.prune.channels.stage import PruneChannels
from attar._src.model.capture import capture
from attar._src.model.dependencies.find import find_dependencies
from attar._src.pipeline.sensitivities.folder import SensitivityFolder
from attar._src.train.batch import Batch
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.context import Trial

LEVELS = (0.25, 0.5, 0.75)


def chain():
    """Three groups of 8, 16 and 12 channels, the second of which the outputs hardly need."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(2, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 4),
    )  # fmt: skip
    with torch.no_grad():
        module[3].weight[4:] *= 0.01
        module[3].bias[4:] = 0
    return module.eval()


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    module, (x, y) = chain(), data(96)
    folder = tmp_path_factory.mktemp("sensitivity")
    return module, x, attar.sensitivity(module, x, labels=y, what="channels", levels=LEVELS, folder=folder), folder


@pytest.fixture(scope="module")
def captured(measured):
    module, x, _, _ = measured
    return capture(module, (x[:2],), train=False)


def ranked(given, captured, **fields):
    """The channels of the module that was measured; `attar.prune` exports it, too, which takes seconds."""
    module, x, _, folder = given
    if fields.get("scope") is None:
        fields |= {"sensitivity": str(folder)}
    pruning = build_spec(ChannelPruning, where="", **fields)
    return rank_channels(module, captured, pruning, dict, judged=JudgedChannels(CalibrationInputs(((x,),)))), pruning


def smaller(given, captured, **fields):
    found, pruning = ranked(given, captured, **fields)
    return found.without(pruning)


def relative(got, want):
    return float(((got - want) ** 2).sum() / ((want - want.mean(0)) ** 2).sum())


def test_a_group_alone_has_the_error_and_the_size_of_the_module_without_these_channels(measured, captured):
    module, x, table, _ = measured
    names = [layer.name for layer in table.layers]
    assert names == ["0.weight", "3.weight", "7.weight"]
    assert [layer.shape for layer in table.layers] == [(8,), (16,), (12,)]
    for layer in table.layers:
        others = [name.partition(".")[0] for name in names if name != layer.name]
        for level in LEVELS:
            alone = smaller(measured, captured, channels=level, exclude=others, scope="layer", least=0.0, update="none")
            with torch.no_grad():
                error = relative(alone.module(x), module(x))
            seen = layer.at(level)
            assert seen.error == pytest.approx(error, rel=1e-3)
            assert seen.macs == alone.figures["macs"][1]
            assert table.macs == alone.figures["macs"][0]
            removed = [
                sum(each.numel() for each in (*made.parameters(), *made.buffers())) for made in (module, alone.module)
            ]
            assert layer.before - seen.bytes == 4 * (removed[0] - removed[1])
            assert seen.estimate is None
    assert table.floating is not None
    assert all(each.metric is not None for each in table.layers[0].levels)


def test_the_folder_has_the_forms_of_all_tables(measured):
    _, _, table, folder = measured
    assert SensitivityTable.read(folder) == table
    rows = list(csv.DictReader((folder / "sensitivity.csv").read_text().splitlines()))
    assert [float(row["macs"]) for row in rows] == [each.macs for layer in table.layers for each in layer.levels]
    page = (folder / "sensitivity.html").read_text()
    assert "What each layer costs with fewer channels" in page
    assert "Multiplications" in page
    assert "attar prune MODEL" in page


def test_a_measurement_of_channels_goes_on_with_the_same_bytes(measured, tmp_path, monkeypatch):
    module, x, _, folder = measured
    add = SensitivityFolder.add

    def killed(self, layer):
        add(self, layer)
        raise KeyboardInterrupt

    options = {"what": "channels", "levels": LEVELS, "folder": tmp_path, "labels": data(96)[1]}
    monkeypatch.setattr(SensitivityFolder, "add", killed)
    with pytest.raises(KeyboardInterrupt):
        attar.sensitivity(module, x, **options)
    monkeypatch.setattr(SensitivityFolder, "add", add)
    attar.sensitivity(module, x, **options)
    assert {each.name: each.read_bytes() for each in folder.iterdir()} == {
        each.name: each.read_bytes() for each in tmp_path.iterdir()
    }


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7])
def test_a_target_is_met_closely_and_no_worse_than_by_scores(measured, captured, share):
    module, x, _, _ = measured
    chosen = smaller(measured, captured, macs=share)
    whole, left = chosen.figures["macs"]
    assert share <= 1 - left / whole < share + 0.2
    with torch.no_grad():
        want = module(x)
        mine = relative(chosen.module(x), want)
        others = [smaller(measured, captured, macs=share, scope=scope) for scope in ("global", "layer")]
        assert mine <= min(relative(each.module(x), want) for each in others) * (1 + 1e-5)
    assert "relative error of the outputs" in chosen.note


def test_what_the_outputs_hardly_need_goes_first(measured, captured):
    """Guards sensitivities that do not count: by size alone all groups would lose channels."""
    removed, count = smaller(measured, captured, macs=0.4).groups["3.weight"]
    assert removed / count >= 0.5


def test_a_target_of_bytes_holds_in_the_packed_file(measured, tmp_path):
    module, x, _, folder = measured
    most = 9_000
    result = attar.prune(module, x, unit="channel", max_bytes=most, sensitivity=folder)
    assert 0.8 * most < result.save(tmp_path / "m.attar")["file_bytes"] <= most
    with pytest.raises(SpecError, match=r"max_bytes=1000: without all that can be removed the file has [\d,]+ bytes"):
        attar.prune(module, x, unit="channel", max_bytes=1000, sensitivity=folder)


def test_shares_that_cannot_be_had_name_the_most(measured, captured):
    with pytest.raises(SpecError, match=r"macs=0.99: .*; the most is 0\.\d+"):
        smaller(measured, captured, macs=0.99)


def test_multiples_and_least_shares_hold(measured, captured):
    groups = smaller(measured, captured, macs=0.4, round_to=4, least=0.5).groups
    assert all((count - removed) % 4 == 0 and count - removed >= count / 2 for removed, count in groups.values())


def test_foreign_tables_are_refused(measured, captured, tmp_path):
    module, x, table, folder = measured
    with pytest.raises(SpecError, match="measured with the score l2, here it is l1"):
        smaller(measured, captured, macs=0.5, score="l1")
    for name, changes, said in (
        ("model", {"model": "0" * 64}, "of another model, or not of channels"),
        ("what", {"what": "sparsity"}, "of another model, or not of channels"),
        ("few", {"layers": table.layers[1:]}, r"lacks \['0.weight'\]"),
    ):
        (tmp_path / name).write_text(table.model_copy(update=changes).text())
        with pytest.raises(SpecError, match=said):
            smaller((module, x, table, tmp_path / name), captured, macs=0.5)
    rest = smaller((module, x, table, tmp_path / "few"), captured, macs=0.3, exclude=("0",))
    assert rest.groups.keys() == {"3.weight", "7.weight"}
    with pytest.raises(SpecError, match="a table of sensitivities is for scope sensitivity, and layer came"):
        build_spec(ChannelPruning, where="", macs=0.5, sensitivity=str(folder), scope="layer")


def test_costs_are_those_of_the_dependencies_and_of_the_module():
    module, (x, _) = net(), data(4)
    captured = capture(module, (x[:2],), train=False)
    found = find_dependencies(module, captured)
    costs, units = ChannelCosts(found, module), [unit for group in found.groups for unit in group.units[::3]]
    assert costs.macs(()) == found.macs()
    assert costs.macs(units) == found.macs(units)
    assert costs.elements(()) == sum(each.numel() for each in module.state_dict().values())
    assert costs.units(units) == sum(len(group.units) for group in found.groups) - len(units)


def test_groups_that_share_products_are_counted_together(measured, captured):
    """Guards sums of savings, of each group beside whole others: half of two neighbours is three quarters of a product,
    not all of it."""
    found, pruning = ranked(measured, captured, macs=0.5, scope="sensitivity")
    chooser = found.chooser(pruning)
    assert isinstance(chooser, ChannelAllocation)
    assert isinstance(found.chooser(pruning.model_copy(update={"scope": "global"})), ChannelChoice)
    for share in (0.2, 0.6, 0.8):
        chosen = chooser.under(found.removable.found, found.costs.macs, (1 - share) * found.costs.macs(()))
        assert chosen is not None
        assert found.costs.macs(chosen.units) <= (1 - share) * found.costs.macs(())


def test_the_note_says_what_was_removed(measured, captured):
    """Guards against a note of levels of which multiples keep a part."""
    found, pruning = ranked(measured, captured, macs=0.5, round_to=8)
    chosen = found.without(pruning.model_copy(update={"macs": found.most_macs(pruning) - 1e-6}))
    shares, _, _ = chosen.note.partition("; ")
    told = dict(each.split(" ") for each in shares.split(", "))
    assert {name: float(each) for name, each in told.items()} == {
        name: pytest.approx(removed / total, rel=1e-2) for name, (removed, total) in chosen.groups.items()
    }
    assert all((total - removed) % 8 == 0 or total < 16 for removed, total in chosen.groups.values())


def test_the_stage_measures_on_the_calibration_examples(tmp_path):
    learner, lent = fresh(), context(tmp_path)
    before = sum(each.numel() for each in learner.module.parameters())
    stage = PruneChannels(macs=0.4, scope="sensitivity")
    assert stage.try_on(fresh(1), _trial()).module is not None
    after = stage.run(learner, lent)
    whole, left = after.record[-1]["macs"]
    assert left <= 0.6 * whole
    assert "relative error" in after.record[-1]["chosen"]
    assert sum(each.numel() for each in after.module.parameters()) < before


def _trial():
    x, y = data(16)
    return Trial(Batch((x,), y), {})


def test_the_commands(tmp_path, capsys):
    (tmp_path / "nets.py").write_text(
        "import numpy as np\nfrom torch import nn\n\n\ndef net():\n"
        "    return nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 3))\n\n\n"
        "def sets(split):\n    rng = np.random.default_rng(0)\n"
        "    x = rng.normal(size=(64, 6)).astype('float32')\n    return x, x[:, :3].argmax(1)\n"
    )
    torch.manual_seed(0)
    made = nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 3))
    safetensors.torch.save_file(made.state_dict(), tmp_path / "w.safetensors")
    given = [f"{tmp_path / 'nets.py'}:net", "-w", str(tmp_path / "w.safetensors"), "-d", f"{tmp_path / 'nets.py'}:sets"]
    folder, out = str(tmp_path / "s"), str(tmp_path / "half.safetensors")
    assert main(["sensitivity", *given, "--what", "channels", "--levels", "0.25,0.5,0.75", "-o", folder]) == 0
    assert "Multiplications" in capsys.readouterr().out
    arguments = ["prune", *given, "--macs", "0.5", "--sensitivity", folder, "-o", out, "--json"]
    assert main(arguments) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["macs"][1] <= 0.5 * figures["macs"][0]
    assert main(["sensitivity", *given, "--what", "bits", "--score", "l1", "-o", str(tmp_path / "b")]) == 1
    assert "bits have none" in capsys.readouterr().err
    assert np.isfinite(figures["parameters"]).all()
