"""The commands on a file packed here; none of them may import PyTorch."""

import functools
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
from tests import samples
from tests.runtime.reference import file_of, node

from attar._src.artifact.writer import pack, write_atomically
from attar._src.cli import main
from attar._src.cli.files import bench, export
from attar._src.core.tensors import Dense
from attar._src.runtime.lower import lower
from attar._src.runtime.session import Session


@pytest.fixture(autouse=True)
def no_progress(monkeypatch):
    """Errors alone are on standard error, however long a busy machine takes."""
    monkeypatch.setattr("attar._src.core.progress._LINE_EVERY", float("inf"))


@pytest.fixture
def file(tmp_path):
    """A convolutional net whose biases are in whole steps, so that it runs in integers."""
    path = tmp_path / "model.attar"
    net = samples.conv_net()
    on_steps = {name: Dense(np.zeros(count, np.float32)) for name, count in (("conv.bias", 4), ("fc.bias", 10))}
    write_atomically(path, pack(replace(net, tensors={**net.tensors, **on_steps})))
    return path


@pytest.fixture
def data(tmp_path, rng, file):
    """Raw examples with the labels the file gives them, but for one."""
    x = rng.integers(0, 256, (20, 3, 8, 8)).astype(np.uint8)
    session = Session(file)
    y = session.run(session.preprocess(x)).argmax(-1).astype(np.int64)
    y[0] = (y[0] + 1) % 10
    np.savez(tmp_path / "data.npz", x_test=x, y_test=y)
    return f"npz:{tmp_path / 'data.npz'}"


@pytest.fixture
def one_start(monkeypatch):
    """One fresh process is enough to see what is printed of it."""
    monkeypatch.setattr(bench, "cold_start", functools.partial(bench.cold_start, repeats=1))


def ran(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    streams = capsys.readouterr()
    assert streams.err == ""
    assert code == 0
    return streams.out


@pytest.mark.parametrize("compact", [False, True])
def test_verify_names_the_part_that_is_damaged(file, capsys, compact):
    """Since format 1.4 sections have no checksums of their own: the digest covers them."""
    file.write_bytes(sound := pack(samples.conv_net(), compact=compact))
    places = {
        section["kind"]: section["offset"] for section in json.loads(ran(capsys, "inspect", file, "--json"))["sections"]
    }
    assert {"tensors", "graph"} <= places.keys()
    for kind, offset in (*places.items(), ("manifest", len(sound) - 70), ("footer", len(sound) - 20), ("header", 3)):
        damaged = bytearray(sound)
        damaged[offset] ^= 4
        file.write_bytes(damaged)
        assert main(["verify", str(file)]) == 1
        error = capsys.readouterr().err
        assert ("footer: the digest" if compact and kind in places else kind) in error, error


@pytest.mark.parametrize("short", [False, True])
def test_repack_writes_an_older_file_again_in_fewer_bytes(file, data, capsys, short):
    net = samples.conv_net()
    net = replace(net, tensors={**net.tensors, "more": samples.quantized(np.random.default_rng(0), (64, 3))})
    file.write_bytes(older := pack(net, compact=False))
    flags = ["--short"] if short else []
    said = ran(capsys, "repack", file, file.with_name("new.attar"), *flags)
    size = file.with_name("new.attar").stat().st_size
    assert f"{size:,} bytes, {len(older):,} before" in said
    assert size < len(older) - 150
    accuracy = [
        json.loads(ran(capsys, "eval", each, "--data", data, "--json"))["accuracy"]
        for each in (file, file.with_name("new.attar"))
    ]
    assert accuracy[0] == accuracy[1]
    ran(capsys, "verify", file.with_name("new.attar"))
    assert main(["repack", str(file), str(file), "--coder", "raw"]) == 0
    assert 0 < file.stat().st_size < len(older)


def test_inspect_shows_where_every_byte_goes(file, capsys):
    found = json.loads(ran(capsys, "inspect", file, "--json"))
    size = file.stat().st_size
    assert sum(found["parts"].values()) == size
    assert found["file_bytes"] == size
    assert found["weights_bytes"] + found["graph_bytes"] + found["overhead_bytes"] == size
    assert found["bits_per_weight"] == (size - found["graph_bytes"]) * 8 / found["parameters"]
    keys = {"name", "shape", "kind", "bits", "elements", "nonzero", "entropy_bits", "payload_bytes"}
    assert all(keys <= item.keys() for item in found["tensors"])
    text = ran(capsys, "inspect", file)
    assert "conv.weight" in text
    assert "█" in text
    assert f"{size:,}" in text
    assert "input x f32 batchx3x8x8; output y f32 batchx10" in text
    conv = next(line for line in text.splitlines() if line.startswith("conv.weight"))
    assert found["tensors"][0]["coders"][0] in conv
    parts = text[text.index("part ") :].splitlines()[1:]
    counts = {line.split()[0]: int(line.split()[1].replace(",", "")) for line in parts if line.strip()}
    assert counts.pop("file") == sum(counts.values()) == size


def test_verify_is_silent_agreement_or_names_the_section(file, capsys):
    assert ran(capsys, "verify", file).startswith("sound: ")
    data = bytearray(file.read_bytes())
    data[70] ^= 1
    file.write_bytes(data)
    assert main(["verify", str(file)]) == 1
    assert capsys.readouterr().err.startswith("error: ")


def test_eval_gives_the_share_of_right_predictions(file, data, capsys):
    found = json.loads(ran(capsys, "eval", file, "--data", data, "--json"))
    assert (found["accuracy"], found["examples"], found["split"]) == (0.95, 20, "test")
    limited = json.loads(ran(capsys, "eval", file, "--data", data, "--limit", 4, "--batch", 3, "--json"))
    assert (limited["accuracy"], limited["examples"]) == (0.75, 4)
    assert "95.00%" in ran(capsys, "eval", file, "--data", data)


def test_eval_leaves_out_the_label_that_is_ignored(file, data, tmp_path, capsys):
    with np.load(data.partition(":")[2]) as given:
        arrays = dict(given)
    arrays["y_test"][:5] = 255
    np.savez(tmp_path / "void.npz", **arrays)
    where = f"npz:{tmp_path / 'void.npz'}"
    assert main(["eval", str(file), "--data", where]) == 1
    assert "--ignore-index 255" in capsys.readouterr().err
    found = json.loads(ran(capsys, "eval", file, "--data", where, "--ignore-index", 255, "--class-axis", 1, "--json"))
    assert (found["predictions"], found["examples"]) == (15, 20)


def test_eval_says_so_where_the_set_has_a_preprocessing_and_the_file_has_none(file, tmp_path, capsys):
    """A file made from prepared inputs sees raw ones otherwise, and the accuracy is of another model."""
    write_atomically(tmp_path / "bare.attar", pack(replace(samples.conv_net(), preprocessing=None)))
    (tmp_path / "sets.py").write_text(
        "import numpy as np\n"
        "from attar.extend import Dataset, Preprocessing\n"
        "def own(split):\n"
        "    x, y = np.zeros((4, 3, 8, 8), np.uint8), np.zeros(4, np.int64)\n"
        "    centred = Preprocessing(name='centred', layout='NCHW', mean=(0.5,), std=(0.25,))\n"
        "    return Dataset(x, y, 'own', split, centred)\n"
    )
    for name, noted in (("bare.attar", True), (file.name, False)):
        assert main(["eval", str(tmp_path / name), "--data", f"{tmp_path / 'sets.py'}:own"]) == 0
        assert ("it sees own raw, without 'centred'" in capsys.readouterr().err) == noted


def test_eval_of_a_missing_split_is_an_error(file, data, capsys):
    assert main(["eval", str(file), "--data", data, "--split", "tset"]) == 1
    assert "test" in capsys.readouterr().err


def test_export_writes_onnx(file, tmp_path, capsys):
    ran(capsys, "export", file, "--to", "onnx", tmp_path / "out.onnx")
    onnx.checker.check_model(str(tmp_path / "out.onnx"))
    assert main(["export", str(file), "--to", "onx", str(tmp_path / "o")]) == 1
    assert "onnx" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_export_knows_before_any_work_that_it_cannot_write(file, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(export, "open_artifact", lambda *_: pytest.fail("work was done"))
    assert main(["export", str(file), str(tmp_path / "no" / "out.onnx")]) == 1
    assert f"mkdir -p {tmp_path / 'no'}" in capsys.readouterr().err


def test_bench_holds_files_against_each_other(file, tmp_path, capsys, one_start):
    other = tmp_path / "other.onnx"
    ran(capsys, "export", file, other)
    options = ("--against", other, "--batch", 3, "--rounds", 5)
    found = json.loads(ran(capsys, "bench", file, *options, "--json"))
    assert [item["file"] for item in found["files"]] == [str(file), str(other)]
    keys = {"file_bytes", "median_ms", "p99_ms", "spread", "ratio", "cold_start_ms", "peak_memory_bytes", "rounds"}
    assert all(keys <= item.keys() for item in found["files"])
    assert (found["batch"], found["threads"], found["files"][0]["ratio"]) == (3, 1, 1.0)
    kernels = {layer["name"]: layer["kernel"] for layer in found["layers"][str(file)]}
    assert kernels["conv"] == "QLinearConv"
    assert found["plans"][str(file)] == [
        {"plan": "integers", "layers": 2, "why": "what they read has a grid in the file"}
    ]
    text = ran(capsys, "bench", file, *options)
    assert "other.onnx" in text
    assert "2 of 2 layers ran in integers" in text
    assert "integers: 2 layers (what they read has a grid in the file)" in text
    assert "batch 3, 1 thread, 5 rounds, inputs x 3x3x8x8" in text


def test_bench_says_why_a_layer_is_not_in_integers(tmp_path, capsys, one_start):
    write_atomically(tmp_path / "m.attar", pack(samples.lstm()))
    text = ran(capsys, "bench", tmp_path / "m.attar", "--rounds", 2)
    assert "0 of 3 layers ran in integers" in text
    assert "in floating point: lstm (LSTM reads real numbers)" in text


def test_bench_gives_a_reason_once_for_all_layers_that_share_it(tmp_path, capsys, one_start, rng):
    """A line for each of many layers with the same reason hides the others."""
    weights = {f"w{i}": samples.quantized(rng, (8, 8)) for i in range(3)}
    nodes = [node("Gemm", f"{'x' if i == 0 else f'h{i}'} w{i}", f"h{i + 1}" if i < 2 else "y") for i in range(3)]
    artifact = file_of(nodes, weights, x=("batch", 8), y=("batch", 8))
    write_atomically(tmp_path / "m.attar", artifact.data)
    text = ran(capsys, "bench", tmp_path / "m.attar", "--rounds", 2)
    assert text.count("in floating point: ") == 1
    assert "in floating point: w0, w1 and w2 (" in text


def test_bench_shows_packed_weights(rng, tmp_path, capsys, one_start):
    weight = samples.quantized(rng, (256, 300))
    artifact = file_of([node("Gemm", "x w", "y", transB=1)], {"w": weight}, x=("batch", 300), y=("batch", 256))
    write_atomically(tmp_path / "m.attar", artifact.data)
    options = ("--weights", "packed", "--rounds", 2)
    found = json.loads(ran(capsys, "bench", tmp_path / "m.attar", *options, "--json"))
    assert found["weights"] == "packed"
    assert found["plans"][str(tmp_path / "m.attar")] == [{"plan": "packed weights", "layers": 1, "why": "on request"}]
    text = ran(capsys, "bench", tmp_path / "m.attar", *options)
    assert "packed weights: 1 layer (on request)" in text


def test_bench_makes_peers_and_times_them_beside_the_file(file, data, capsys, one_start, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    options = ("--peers", "--batch", 3, "--rounds", 3)
    found = json.loads(ran(capsys, "bench", file, *options, "--json"))
    names = [item["file"] for item in found["files"] if item["peer"]]
    assert names == ["ONNX Runtime float32", "ONNX Runtime dynamic int8", "ONNX Runtime static int8"]
    assert all(item["median_ms"] > 0 and item["cold_start_ms"] > 0 for item in found["files"])
    assert found["missing"] == {"OpenVINO of the export": "openvino is not installed: pip install openvino"}
    assert found["calibration"] == "normal numbers"
    text = ran(capsys, "bench", file, *options, "--data", data, "--split", "test")
    assert "no OpenVINO of the export: openvino is not installed" in text
    assert f"ONNX Runtime static int8 is calibrated on {data}" in text
    assert "the fastest peer" in text
    assert main(["bench", str(file), "--data", data]) == 1
    assert "add --peers" in capsys.readouterr().err


def test_peers_are_made_from_a_floating_model_beside_the_file(file, tmp_path, capsys, one_start):
    other = tmp_path / "other.onnx"
    other.write_bytes(lower(Session(file).artifact, floating=True).serialized())
    found = json.loads(ran(capsys, "bench", file, "--peers", "--against", other, "--rounds", 3, "--json"))
    sizes = {item["file"]: item["file_bytes"] for item in found["files"]}
    assert sizes["ONNX Runtime float32"] == sizes[str(other)] == other.stat().st_size


def test_bench_wants_our_file_first(file, tmp_path, capsys):
    ran(capsys, "export", file, tmp_path / "other.onnx")
    assert main(["bench", str(tmp_path / "other.onnx"), "--against", str(file)]) == 1
    assert "name a .attar file first" in capsys.readouterr().err


def test_every_command_works_where_pytorch_cannot_be_imported(file, data, tmp_path):
    code = f"""
import sys
for name in ("torch", "lightning_fabric", "onnxscript", "safetensors", "sklearn", "plotly"):
    sys.modules[name] = None
from attar._src.cli import main
from attar._src.cli.files import bench
from attar._src.core import progress
progress._LINE_EVERY = float("inf")
file, out = {str(file)!r}, {str(tmp_path / "out.onnx")!r}
for arguments in (
    ["verify", file],
    ["inspect", file],
    ["eval", file, "--data", {data!r}],
    ["export", file, "--to", "onnx", out],
    ["bench", file, "--against", out, "--rounds", "2"],
):
    assert main(arguments) == 0, arguments
print(file=sys.stderr)
for arguments in (
    ["run", "recipe.yaml"],
    ["schema"],
    ["quantize", "n.py:Net", "--weights", "w.pt", "--data", {data!r}, "--split", "test", "--output", out],
):
    assert main(arguments) == 1, arguments
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    nothing, *refusals = done.stderr.splitlines()
    assert nothing == ""
    assert len(refusals) == 3
    assert all("pip install 'attar[compress]'" in line and "torch" in line for line in refusals), refusals


@pytest.mark.parametrize("command", ["eval", "bench"])
def test_of_several_files_the_damaged_one_is_named(file, data, tmp_path, capsys, command):
    damaged = tmp_path / "damaged.attar"
    damaged.write_bytes(file.read_bytes()[:-40])
    arguments = [damaged, "--data", data] if command == "eval" else [file, "--against", damaged]
    assert main([command, *map(str, arguments)]) == 1
    said = "footer: the end is missing: the file is truncated or damaged"
    assert capsys.readouterr().err == f"error: {damaged}: {said}\n"
