"""Every backend by name."""

from __future__ import annotations

from attar.core.registry import Registry
from attar.deploy.backend import Backend
from attar.deploy.onnx import OnnxBackend

BACKENDS: Registry[Backend] = Registry("backend", OnnxBackend())
