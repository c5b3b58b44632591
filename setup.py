"""The coders in C. Everything else about the package is in ``pyproject.toml``.

The extension is optional: without a C compiler the installation goes on, and Python codes (``coding/kernels.py``).
"""

import sysconfig

from setuptools import Extension, setup

# One build serves every Python from 3.11 up; builds without the interpreter's lock have no stable interface yet.
STABLE = not sysconfig.get_config_var("Py_GIL_DISABLED")

setup(
    ext_modules=[
        Extension(
            "attar._src.coding._native",
            ["src/attar/c/native.c"],
            depends=["src/attar/c/attar.h"],
            define_macros=[("Py_LIMITED_API", "0x030B0000")] if STABLE else [],
            py_limited_api=STABLE,
            optional=True,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if STABLE else {},
)
