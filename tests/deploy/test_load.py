import pytest
import torch
from torch import nn

import attar


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)).eval()


def inference():
    with torch.inference_mode():
        return net()


@pytest.mark.parametrize("form", ["float32", "float16", "float64", "inference mode", "wrapper"])
def test_the_users_own_module_has_the_weights_of_the_file(form, tmp_path):
    """In its own types, whatever copy is computed with."""
    x = torch.randn(32, 8)
    attar.quantize(net(), x, bits=4).save(tmp_path / "m.attar")
    make = {"float16": lambda: net().half(), "float64": lambda: net().double(), "inference mode": inference}
    into = make.get(form, net)()
    inner = into
    into = nn.DataParallel(into) if form == "wrapper" else into
    with torch.inference_mode(form == "inference mode"):
        for each in inner.parameters():
            each.zero_() if form == "inference mode" else each.data.zero_()
    loaded = attar.load(tmp_path / "m.attar", into)
    stored = attar.open_artifact(tmp_path / "m.attar")
    kind = {"float16": torch.float16, "float64": torch.float64}.get(form, torch.float32)
    for name, own in inner.state_dict().items():
        value = torch.from_numpy(stored.tensor(name).dense().copy())
        assert own.dtype == kind
        torch.testing.assert_close(own, value.to(kind), rtol=0, atol=0)
    want = torch.from_numpy(attar.Session(tmp_path / "m.attar").run(x.numpy()))
    torch.testing.assert_close(loaded(x), want, rtol=1e-5, atol=1e-5)
