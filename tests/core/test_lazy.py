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
