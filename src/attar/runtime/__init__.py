"""Opens a ``.attar`` file and runs it, with numpy and ONNX Runtime; above ``artifact``, under ``measure``, ``data``."""

from attar.runtime.lower import Lowered, Placement, lower
from attar.runtime.preprocess import preprocess
from attar.runtime.session import Layer, Session

__all__ = ["Layer", "Lowered", "Placement", "Session", "lower", "preprocess"]
