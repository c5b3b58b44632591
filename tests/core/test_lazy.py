"""Names that are imported on first use."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest

from attar._src.core.lazy import lazy_names


@pytest.fixture
def public() -> Iterator[ModuleType]:
    module = ModuleType("public_for_a_test")
    module.__all__, module.__getattr__, module.__dir__ = lazy_names(module.__name__, {"core.slow": "fast wrong"})
    sys.modules[module.__name__] = module
    yield module
    del sys.modules[module.__name__]


def test_a_module_is_imported_without_the_collector(public: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def load(name: str) -> ModuleType:
        seen.append((name, gc.isenabled()))
        module = ModuleType(name)
        module.fast = 3
        return module

    monkeypatch.setattr("importlib.import_module", load)
    assert gc.isenabled()
    assert public.fast == 3
    assert seen == [("attar._src.core.slow", False)]
    assert gc.isenabled()
    with pytest.raises(AttributeError):
        _ = public.wrong
    assert gc.isenabled()
    gc.disable()
    try:
        with pytest.raises(AttributeError):
            _ = public.wrong
        assert not gc.isenabled(), "it was off before"
    finally:
        gc.enable()
    assert sorted({"fast", "wrong"} - set(dir(public))) == []


def test_what_an_import_made_is_not_searched_for_garbage_again(
    public: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards the cold start; and what a user has frozen, or has as garbage, which is still collected."""

    def load(name: str) -> ModuleType:
        module = ModuleType(name)
        module.fast = module.wrong = [[place] for place in range(5000)]
        garbage: list[object] = []
        garbage.append(garbage)
        return module

    monkeypatch.setattr("importlib.import_module", load)
    # Other tests may run in a process that froze what it had.
    before = gc.get_freeze_count()
    gc.unfreeze()
    gc.collect()
    try:
        assert len(public.fast) == 5000
        assert len(gc.get_objects(generation=0)) < 5000
        assert gc.get_freeze_count() == 0
        assert gc.collect() >= 1
        gc.freeze()
        frozen = gc.get_freeze_count()
        assert len(public.wrong) == 5000
        assert gc.get_freeze_count() >= frozen - 100
    finally:
        gc.unfreeze()
        if before:
            gc.freeze()
