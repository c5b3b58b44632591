"""All backends by name."""

from __future__ import annotations

from attar._src.backends.backend import Backend
from attar._src.backends.onnx import OnnxBackend
from attar._src.core.registry import Registry

BACKENDS: Registry[Backend] = Registry("backend", OnnxBackend())
