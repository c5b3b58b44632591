import io
import json
import re
import zipfile

import pytest
import torch
from torch import nn

from attar._src.core.errors import ModelError
from attar._src.model.forms.exported import from_export
from attar._src.model.forms.pt2 import open_pt2


class Net(nn.Module):
    """Sizes that are computed, and several outputs."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 6)
        self.register_buffer("table", torch.arange(6.0))

    def forward(self, x):
        y = torch.softmax(self.layer(x).reshape(x.shape[0] // 2, 12), -1).reshape(-1, 6)
        return torch.cat([y + self.table, y[: x.shape[0] - 1]]), {"sum": y.sum()}


@pytest.fixture
def saved(tmp_path):
    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(Net().eval(), (torch.randn(4, 6),), dynamic_shapes=({0: 2 * batch},))
    torch.export.save(program, tmp_path / "m.pt2")
    return tmp_path / "m.pt2"


def rewritten(path, change):
    """Write the archive again with ``change(name, data)`` in the place of each entry."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, change(name, data))


class Command:
    """What runs a command when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return open, (str(self.marker), "w")


def pickled(value):
    data = io.BytesIO()
    torch.save(value, data)
    return data.getvalue()


def test_programs_open_as_pytorch_opens_them(saved):
    x = torch.randn(8, 6)
    want, got = torch.export.load(saved).module()(x), from_export(saved)(x)
    torch.testing.assert_close(got[0], want[0])


@pytest.mark.parametrize("kind", ["inputs", "size", "target", "weight", "object", "compiled", "twice"])
def test_what_would_run_code_is_refused_and_does_not_run(saved, tmp_path, kind):
    marker = tmp_path / "ran"
    evil = pickled({"x": Command(marker)})

    def change(name, data):
        if kind == "inputs" and "sample_inputs" in name:
            return evil
        if kind == "size" and name.endswith("model.json"):
            size = rf'"expr_str": "open({str(marker)!r}, \'w\')"'
            return re.sub(r'"expr_str": ?"[^"]*"', lambda _: size.replace("\\'", "'"), data.decode(), count=1)
        if kind == "target" and name.endswith("model.json"):
            return data.replace(b"torch.ops.aten.linear.default", b"torch.hub.load")
        if kind == "weight" and name.endswith("weights_config.json"):
            config = json.loads(data)
            for each in config["config"].values():
                each["use_pickle"] = True
            return json.dumps(config)
        return evil if kind == "weight" and "weight_" in name else data

    rewritten(saved, change)
    with zipfile.ZipFile(saved, "a") as archive:
        root = archive.namelist()[0].split("/")[0]
        if kind == "object":
            archive.writestr(f"{root}/data/constants/opaque_obj_0", evil)
        if kind == "compiled":
            archive.writestr(f"{root}/data/aotinductor/model/a.so", b"")
        if kind == "twice":
            with pytest.warns(UserWarning, match="Duplicate"):
                archive.writestr(f"{root}/models/model.json", "{}")
    with pytest.raises(ModelError, match=r"m\.pt2 is not opened: .* if you trust the file, .*torch\.export\.load"):
        open_pt2(saved)
    assert not marker.exists()


def test_a_foreign_file_is_one_sentence(tmp_path):
    (tmp_path / "m.pt2").write_bytes(b"no archive")
    with pytest.raises(ModelError, match=r"cannot be opened as a program of torch\.export\.save"):
        open_pt2(tmp_path / "m.pt2")
    with pytest.raises(ModelError, match="there is no file"):
        open_pt2(tmp_path / "n.pt2")
