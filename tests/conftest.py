"""Fixtures of every suite."""

import numpy as np
import pytest


@pytest.fixture
def rng():
    """A generator of the same numbers each time."""
    return np.random.default_rng(0)
