import resource
import signal

import pytest
import torch

from attar._src.core.errors import AttarError
from attar._src.train.store import Checkpoint, CheckpointStore, flatten_state, unflatten_state


def tensors():
    shared = torch.arange(12.0)
    return {
        "f32": torch.randn(3, 4),
        "bf16": torch.randn(5).bfloat16(),
        "i64": torch.arange(3),
        "u8": torch.arange(4, dtype=torch.uint8),
        "bool": torch.tensor([True, False]),
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
        "across": torch.randn(4, 6).t()[::2],
        "channels_last": torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last),
        "view": shared[2:7],
        "same": shared,
        "special": torch.tensor([torch.nan, torch.inf, -0.0, 1e-42]),
        "gradient": torch.nn.Parameter(torch.ones(2)),
    }


FACTS = {"history": [{"loss": 0.1 + 0.2, "epoch": 1}], "betas": [0.9, None, "é"]}


def test_a_folder_without_a_checkpoint(tmp_path):
    assert CheckpointStore(tmp_path / "none").latest() is None


def test_every_kind_of_tensor_and_fact_comes_back(tmp_path):
    store, given = CheckpointStore(tmp_path / "a" / "b"), tensors()
    store.save(Checkpoint(12, given, FACTS, done=True))
    assert [path.name for path in store.folder.iterdir()] == ["epoch-000012.safetensors"]
    found = store.latest()
    assert (found.epoch, found.done, found.facts) == (12, True, FACTS)
    assert set(found.tensors) == set(given)
    for name, tensor in given.items():
        assert found.tensors[name].dtype == tensor.dtype
        assert found.tensors[name].shape == tensor.shape
        assert torch.equal(found.tensors[name].nan_to_num(7), tensor.detach().nan_to_num(7)), name


def test_the_same_checkpoint_is_the_same_bytes(tmp_path):
    given = tensors()
    for name in ("a", "b"):
        CheckpointStore(tmp_path / name).save(Checkpoint(1, given, FACTS))
    assert (tmp_path / "a/epoch-000001.safetensors").read_bytes() == (
        tmp_path / "b/epoch-000001.safetensors"
    ).read_bytes()


def test_of_two_that_a_killed_process_left_the_newest_counts(tmp_path):
    for epoch, folder in ((9, "nine"), (10, "ten")):
        CheckpointStore(tmp_path / folder).save(Checkpoint(epoch, {"a": torch.zeros(1)}, {}))
        (tmp_path / folder / f"epoch-{epoch:06d}.safetensors").rename(tmp_path / f"epoch-{epoch:06d}.safetensors")
    assert CheckpointStore(tmp_path).latest().epoch == 10


def test_only_the_newest_stays_and_what_a_killed_process_left_is_cleared(tmp_path):
    store = CheckpointStore(tmp_path)
    (tmp_path / ".epoch-000001.safetensors.99.part").write_bytes(b"half")
    for epoch in (9, 10, 11):
        store.save(Checkpoint(epoch, {"a": torch.full((2,), float(epoch))}, {}))
        assert [path.name for path in tmp_path.iterdir()] == [f"epoch-{epoch:06d}.safetensors"]
    store.save(Checkpoint(11, {"a": torch.zeros(2)}, {}, done=True))
    assert store.latest().done


@pytest.mark.parametrize("harm", ["truncate", "empty", "header", "tensor", "facts", "foreign"])
def test_a_damaged_checkpoint_is_named(tmp_path, harm):
    store = CheckpointStore(tmp_path)
    store.save(Checkpoint(3, {"a": torch.arange(100.0)}, {"loss": 0.25}))
    path = tmp_path / "epoch-000003.safetensors"
    data = path.read_bytes()
    harmed = {
        "truncate": data[:-9],
        "empty": b"",
        "header": b"\xff" * 8 + data[8:],
        "tensor": data[:-2] + bytes([data[-2] ^ 1]) + data[-1:],
        "facts": data.replace(b"0.25", b"0.75"),
        "foreign": data.replace(b"attar-checkpoint-", b"other-checkpoint-"),
    }[harm]
    assert harmed != data
    path.write_bytes(harmed)
    with pytest.raises(AttarError, match=r"epoch-000003\.safetensors is damaged"):
        store.latest()


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(AttarError, match=r"cannot be written .* the stage will start again"):
        CheckpointStore(tmp_path / "file" / "stage").save(Checkpoint(1, {"a": torch.zeros(1)}, {}))


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path):
    store = CheckpointStore(tmp_path)
    store.save(Checkpoint(1, {"a": torch.ones(10)}, {}))
    limit, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limit[1]))
    try:
        with pytest.raises(AttarError, match=r"run again to resume from epoch-000001\.safetensors"):
            store.save(Checkpoint(2, {"a": torch.ones(10_000)}, {}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert [path.name for path in tmp_path.iterdir()] == ["epoch-000001.safetensors"]
    assert store.latest().epoch == 1


def test_nested_values_come_back():
    given = {0: {"step": torch.tensor(3.0), "none": None}, "betas": (0.9, [True, {}]), "text": "a", "tensor": ()}
    tensors = {}
    packed = flatten_state(given, "optimizer", tensors)
    assert list(tensors) == ["optimizer.0.step"]
    assert unflatten_state(packed, tensors) == given


def test_what_is_no_number_string_or_tensor_is_named():
    with pytest.raises(AttarError, match=r"optimizer\.state\.closure is a function"):
        flatten_state({"state": {"closure": flatten_state}}, "optimizer", {})
