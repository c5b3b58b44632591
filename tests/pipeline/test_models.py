"""Work: where banks of teachers are kept, and by which seed their variants are drawn."""

import threading
from pathlib import Path
from types import SimpleNamespace

import filelock
import pytest
from torch import nn

import attar
from attar._src.core.errors import AttarError
from attar._src.pipeline import models
from attar._src.pipeline.models import RunModels


def working(tmp_path, **banks):
    recipe = attar.Recipe(
        data="digits", models={name: {"source": nn.Linear(2, 2)} for name in "ab"}, teacher_cache=banks
    )
    folder = SimpleNamespace(state=tmp_path / "state", first=True)
    fabric = SimpleNamespace(barrier=lambda: None)
    return RunModels(recipe, None, {}, {}, None, None, folder, fabric, seed=3)


@pytest.mark.parametrize(("file", "seed"), [(True, 0), (False, 3)])
def test_banks_are_drawn_alike_where_one_serves_other_runs(tmp_path, monkeypatch, file, seed):
    made = []
    monkeypatch.setattr(models, "build_cache", lambda teacher, feed, path, **given: made.append((path, given["seed"])))
    own = tmp_path / "kept" / "a.safetensors"
    doing = working(tmp_path, a={"variants": 2, "file": str(own) if file else None}, b={"variants": 2})
    for name in "ab":
        doing._cache(name, None, None)
    kept = tmp_path / "state" / "teacher_cache" / "seed-3"
    assert dict(made) == {own if file else kept / "a.safetensors": seed, kept / "b.safetensors": seed}


def test_a_bank_that_another_run_makes_is_waited_for(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    lock = path.with_name(".a.safetensors.lock")
    another, waited, free = filelock.FileLock(lock, thread_local=False), [], []

    def patient(tries, what):
        for number, _ in enumerate(tries):
            waited.append((what, len(free)))
            if number == 1:
                another.release()
            yield

    def build(*given, **named):
        try:
            filelock.FileLock(lock).acquire(blocking=False)
            free.append(True)
        except filelock.Timeout:
            free.append(False)

    monkeypatch.setattr(models, "track", patient)
    monkeypatch.setattr(models, "build_cache", build)
    held = threading.Thread(target=another.acquire)  # as another process would have it
    held.start()
    held.join()
    working(tmp_path, a={"file": str(path)})._cache("a", None, None)
    assert waited == [("waiting for another run, which makes a.safetensors", 0)] * 2
    assert free == [False, True]  # nobody else could make it meanwhile, and it is let go before it is read


@pytest.mark.parametrize("at", ["mkdir", "lock"])
def test_a_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch, at):
    def denied(*given, **named):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(*((Path, "mkdir") if at == "mkdir" else (models.filelock.FileLock, "acquire")), denied)
    with pytest.raises(
        AttarError, match=r"recipe\.teacher_cache\.a: the folder .*kept cannot be written \(Permission denied\)"
    ):
        working(tmp_path, a={"file": str(tmp_path / "kept" / "a.safetensors")})._cache("a", None, None)
