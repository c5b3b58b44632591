"""Backends: a file in the form another runtime takes; beside ``methods`` and ``report``, above ``work``."""

from attar.deploy.backend import Backend
from attar.deploy.registry import BACKENDS

__all__ = ["BACKENDS", "Backend"]
