"""Two processes train one module: they agree, go on to the byte, stop together, and sum over the examples of both."""

import hashlib

import pytest
import torch
from lightning_fabric import Fabric
from tests.train.jobs import Work, feed, summed
from tests.two_ranks import said_by_both

from attar._src.core.errors import AttarError
from attar._src.train.fit import fit
from attar._src.train.plan import TrainingPlan
from attar._src.train.store import CheckpointStore


def trained_on_rank(fabric, folder):
    """What a rank has to say of a few trainings."""
    rank, said = fabric.global_rank, {}

    def run(name, epochs, seed=0, **options):
        work = Work(seed=seed + rank, **options)
        on = feed(rank=rank, world=2)
        # The rate is that of two epochs of four: what is left is only the stopping.
        plan = TrainingPlan(epochs=epochs, batch=32, schedule="constant")
        try:
            store = CheckpointStore(folder / name)
            history = fit(work.job(), plan, on, fabric, seed=5, store=store, log=lambda row: None, what="x")
        except AttarError as error:
            said[name + " error"] = str(error)
            return
        parts = [data for _, data in sorted(work.bytes().items())]
        said[name] = hashlib.blake2b(b"".join(parts)).hexdigest()
        said[name + " loss"] = [row["loss"] for row in history]

    run("straight", 4)
    run("halves", 2)
    run("halves", 4, seed=9)
    run("poison", 2, poison=3 if rank == 1 else None)
    (folder / "file").write_bytes(b"")
    run("file/stage", 1)
    said["sums"] = summed(fabric, folder / f"sums{rank}", rank=rank, world=2)
    return said


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each of two ranks said, and the folder they worked in."""
    folder = tmp_path_factory.mktemp("ranks")
    return folder, *said_by_both("tests.train.test_ranks:trained_on_rank", folder)


def test_two_ranks_agree_and_go_on_to_the_byte(ranks):
    folder, first, second = ranks
    assert {name for name in first if "error" not in name} - {"sums"} == {
        "straight",
        "straight loss",
        "halves",
        "halves loss",
    }
    assert all(first[name] == second[name] for name in ("straight", "straight loss", "halves", "halves loss"))
    assert first["halves"] == first["straight"]
    assert len(first["halves loss"]) == 4
    assert [path.name for path in (folder / "straight").iterdir()] == ["epoch-000004.safetensors"]


def test_two_ranks_stop_together(ranks):
    _, first, second = ranks
    assert "the loss is nan in step 3 of epoch 1" in first["poison error"]
    assert first["poison error"] == second["poison error"]
    assert "cannot be written" in first["file/stage error"]
    assert "see its error message" in second["file/stage error"]


def test_gradients_and_movement_are_those_of_both(ranks, tmp_path):
    """Guards buffers that hold the sums of one rank: DDP gives those of the first to the others before every step."""
    _, first, second = ranks
    assert first["sums"] == second["sums"]
    for name, values in summed(Fabric(accelerator="cpu", devices=1), tmp_path).items():
        torch.testing.assert_close(torch.tensor(first["sums"][name]), torch.tensor(values), rtol=1e-4, atol=1e-5)
