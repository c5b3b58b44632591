"""The registry of ways to train, cheap and promising first."""

from __future__ import annotations

from attar._src.core.registry import Registry
from attar._src.search.training.distilled import Distilled
from attar._src.search.training.narrower import Narrower
from attar._src.search.training.shallower import Shallower
from attar._src.search.training.sparse import Sparser
from attar._src.search.training.way import TrainedWay

TRAINED_WAYS: Registry[TrainedWay] = Registry("way to train", Narrower(), Distilled(), Sparser(), Shallower())
