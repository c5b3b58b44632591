"""``attar.compress`` and ``attar compress`` from a module to a folder."""

import hashlib
import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from sklearn.datasets import load_digits

import attar
from attar._src.cli import main
from attar._src.cli.compress import print_found
from attar._src.core.errors import SpecError
from attar._src.core.registry import load_object
from attar._src.search import goal_search, plan
from attar._src.search.plan import next_step
from attar._src.search.post_training import PostTraining

DIGITS = Path(__file__).parents[2] / "examples" / "digits.py"
#: How well a file is reconstructed is not what is tested here.
QUICK = {"steps": 10, "network_steps": 20}
#: Bytes that hold little more than the fewest bits for every weight of it.
LEAST = 870


@pytest.fixture(scope="module")
def trained():
    """A network that reads digits, calibration and validation examples."""
    digits = load_digits()
    x, y = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16, torch.tensor(digits.target)
    torch.manual_seed(0)
    net = load_object(f"{DIGITS}:DigitNet")(width=6)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(60):
        rows = torch.randint(1000, (100,))
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
        optimizer.step()
    return net.eval(), (x[:64], y[:64]), (x[1000:1300], y[1000:1300])


@pytest.fixture(scope="module")
def found(trained, tmp_path_factory):
    net, data, validation = trained
    said = []
    folder = tmp_path_factory.mktemp("search") / "found"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(plan, "RECONSTRUCT", QUICK)
        result = attar.compress(net, data, folder, max_drop=2, validation=validation, on_step=said.append)
    return result, said


def test_the_best_file_holds_the_goal_and_is_the_smallest_that_does(found):
    result, said = found
    assert result.met
    assert result.best.drop <= 2
    assert result.best.file_bytes == min(each.file_bytes for each in result.files if each.drop <= 2)
    assert result.best.file_bytes < next(each for each in result.files if each.name == "4 bits").file_bytes
    assert (result.folder / "best.attar").stat().st_size == result.best.file_bytes
    assert result.best in result.front
    # No example of 300 changed: half of one may have.
    assert result.files[0].noise == pytest.approx(100 * (0.5 / 300 / 300) ** 0.5)
    assert all(each.noise >= result.files[0].noise for each in result.files)
    # Of a step that takes seconds, as all do on a busy machine, it is said before that it does.
    began, ended = said[:3], [each for each in said[3:] if ": about " not in each]
    assert len(ended) == len(result.files) + len(result.failed)
    # Guards against a minute without a word before the first file.
    assert began[0].startswith("reading examples; running and exporting the module")
    assert began[1] == "running the module on 300 validation examples, which judge"
    assert began[2].startswith("floating point: packed, verified and judged")
    assert result.as_dict()["validation"] == 300


def test_the_loss_is_that_of_the_decoded_file_on_the_validation_examples(found, trained):
    result, (net, _, (x, y)) = found[0], trained
    session = attar.Session(result.folder / "best.attar")
    right = (session.run({session.inputs[0].name: x.numpy()})[session.main_output].argmax(1) == y.numpy()).mean()
    with torch.no_grad():
        before = (net(x).argmax(1) == y).float().mean().item()
    assert result.best.metric == pytest.approx(right)
    assert result.best.drop == pytest.approx(100 * (before - right), abs=1e-4)


def test_options_make_a_file_again_byte_for_byte(found, trained, tmp_path):
    """Guards against sizes that share solutions and come out other than alone."""
    result, (net, data, _) = found[0], trained
    sized = [each for each in result.front if "max_bytes" in each.options][-1]
    attar.quantize(net, data, **sized.options, tolerance=None).save(tmp_path / "again.attar")
    assert hashlib.sha256((tmp_path / "again.attar").read_bytes()).hexdigest() == sized.sha256


def test_the_folder_tells_what_was_tried(found):
    result = found[0]
    told = json.loads((result.folder / "search.json").read_text())
    assert told["best"] == result.best.name
    assert [each["name"] for each in told["files"]] == [each.name for each in result.files]
    page = (result.folder / "search.html").read_text()
    assert result.best.name in page
    assert "Why it ended" in page


def test_a_search_that_was_cut_goes_on_to_the_same_files(found, trained, tmp_path, monkeypatch):
    """Guards against lost work and against a front that depends on where a search was cut."""
    whole, (net, data, validation) = found[0], trained
    made, left = PostTraining.make, [4]

    def cut(self, options):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return made(self, options)

    monkeypatch.setattr(PostTraining, "make", cut)
    with pytest.raises(KeyboardInterrupt):
        attar.compress(net, data, tmp_path / "s", max_drop=2, validation=validation)
    assert (tmp_path / "s" / "best.attar").exists()
    with pytest.raises(SpecError, match="has a search already; go on with it"):
        attar.compress(net, data, tmp_path / "s", max_drop=2, validation=validation)
    with pytest.raises(SpecError, match="another goal"):
        attar.compress(net, data, tmp_path / "s", max_drop=3, validation=validation, resume=True)
    (tmp_path / "s" / "files" / "8-bits.attar").write_bytes(b"damaged")
    left[0] = 100
    # The first sizes tell as much as all.
    monkeypatch.setattr(goal_search, "next_step", lambda goal, files, *more: _next(goal, files, *more, most=8))
    again = attar.compress(net, data, tmp_path / "s", max_drop=2, validation=validation, resume=True)
    assert {each.name: each.sha256 for each in again.files} == {each.name: each.sha256 for each in whole.files[:8]}
    assert left[0] == 100 - (8 - 3)


def _next(goal, files, *more, most):
    return next_step(goal, files, *more) if len(files) < most else None


def test_what_cannot_be_had_ends_with_the_nearest(trained, tmp_path, monkeypatch):
    net, data, validation = trained
    monkeypatch.setattr(plan, "RECONSTRUCT", QUICK)
    result = attar.compress(net, data, tmp_path / "s", max_bytes=400, validation=validation)
    assert not result.met
    assert result.best.file_bytes == min(each.file_bytes for each in result.files)
    assert any("no file of 400 bytes" in why for why in result.failed.values())


def test_few_bytes_that_lose_the_network_are_not_recommended(trained, tmp_path, monkeypatch, capsys):
    """Guards against a best.attar that knows nothing any more, with exit code 0."""
    net, data, validation = trained
    monkeypatch.setattr(plan, "RECONSTRUCT", {"steps": 1, "network_steps": 1})
    result = attar.compress(net, data, tmp_path / "s", max_bytes=LEAST, validation=validation)
    small = [each for each in result.files if each.file_bytes <= LEAST]
    assert small
    assert all(each.ruined for each in small)
    assert not result.met
    assert not result.best.ruined
    told = json.loads((tmp_path / "s" / "search.json").read_text())
    assert [each["ruined"] for each in told["files"]] == [each.ruined for each in result.files]
    page = (tmp_path / "s" / "search.html").read_text()
    assert "No file holds the goal and keeps the network. The nearest that keeps it is" in page
    print_found(told, tmp_path / "s")
    out = capsys.readouterr().out
    assert f"no file holds the goal and keeps the network; nearest that keeps it: {result.best.name}" in out
    assert "ruined: more than half of what the network knows is lost" in out


def test_the_command(trained, tmp_path, capsys):
    weights = tmp_path / "w.safetensors"
    safetensors.torch.save_file(trained[0].state_dict(), weights)
    given = ["compress", f"{DIGITS}:DigitNet", "--arg", "width=6", "-d", "digits", "-w", str(weights)]
    given += ["--examples", "64", "--validation", "200", "-o", str(tmp_path / "s")]
    assert main(given) == 2
    assert "--max-drop 0.5" in capsys.readouterr().err
    assert main([*given, "--max-bytes", "3k", "--time", "1s"]) in (0, 1)
    out, err = capsys.readouterr()
    assert "best.attar" in out
    assert "no time" in out or "time was up" in out
    assert "floating point" in err
    assert main([*given, "--max-bytes", "3k", "--time", "soon"]) == 2
    assert "--time 'soon'" in capsys.readouterr().err
