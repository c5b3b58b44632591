"""The inner loops in C. Everything else about the package is in ``pyproject.toml``.

The extensions are optional: without a C compiler the installation goes on, and Python does their work
(``coding/kernels.py``, ``solvers/column_blocks.py``).
"""

import sys
import sysconfig

from setuptools import Extension, setup

# One build serves every Python from 3.11 up; builds without the interpreter's lock have no stable interface yet.
STABLE = not sysconfig.get_config_var("Py_GIL_DISABLED")
SOLVERS = "attar._src.methods.quantize.ptq.solvers"


def extension(name, source, depends=(), flags=()):
    """Return an extension of one C file."""
    return Extension(
        name,
        [f"src/attar/c/{source}"],
        depends=[f"src/attar/c/{each}" for each in depends],
        define_macros=[("Py_LIMITED_API", "0x030B0000")] if STABLE else [],
        extra_compile_args=list(flags),
        py_limited_api=STABLE,
        optional=True,
    )


setup(
    ext_modules=[
        extension("attar._src.coding._native", "native.c", ["attar.h"]),
        # Sums are those of numpy, bit for bit: no product is fused with one.
        extension(
            f"{SOLVERS}._columns",
            "columns.c",
            flags=["/std:c11"] if sys.platform == "win32" else ["-O3", "-ffp-contract=off"],
        ),
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if STABLE else {},
)
