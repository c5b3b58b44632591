"""The program that reads files in C, built once."""

import pytest
from tests.device.program import build_best, has


@pytest.fixture(scope="session")
def program(tmp_path_factory):
    """The program, with sanitizers where the compiler has them."""
    if not has("cc"):
        pytest.skip("no C compiler")
    return build_best(tmp_path_factory.mktemp("device"))
