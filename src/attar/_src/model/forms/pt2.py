"""``.pt2`` files of ``torch.export.save``, opened without running code of theirs.

PyTorch's reader would run code from a file in four ways, each of which is refused before it is called:

| in the file                                            | what the reader does                                        |
|--------------------------------------------------------|-------------------------------------------------------------|
| objects (``custom_obj``, ``opaque_obj``), and tensors and sample inputs that are pickled | unpickles them          |
| sizes, such as ``2*s0``                                | evaluates them as Python (``sympy.sympify``)                |
| targets of calls, such as ``torch.hub.load``           | looks them up in ``torch``; the program calls them later    |
| compiled code (``data/aotinductor``)                   | loads it as a library                                       |
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from attar._src.core.errors import ModelError, missing_file, short_message

#: Operators, by their registered names, and Python's own of scalars.
_TARGETS = re.compile(
    r"torch\.ops\.(?!load|import)[a-z]\w*\.(?!__)\w+(\.(?!__)\w+)?|torch\.sym_\w+|torch\._sym_sqrt|math\.[a-z]\w*"
    r"|_operator\.(add|sub|mul|neg|pos|abs|floordiv|truediv|mod|pow|eq|ne|lt|le|gt|ge|and_|or_|not_|getitem)"
)
#: Sizes: numbers, symbols, and functions of PyTorch and sympy, without attributes, subscripts and other strings.
_EXPRESSION = re.compile(r"(?:\d+(?:\.\d+)?|[A-Za-z]\w*|'[suz]\w*'|[-+*/%(),=<>!&|~^ ])*")
_FUNCTIONS = re.compile(
    r"[suz]+\d+\w*|Symbol|positive|integer|nonnegative|real|evaluate|True|False|true|false|oo|Max|Min|Abs|Mod|Pow|Add|Mul"
    r"|Integer|Rational|Float|Eq|Ne|Lt|Le|Gt|Ge|And|Or|Not|floor|ceiling|sqrt|FloorDiv|ModularIndexing|Where|PythonMod"
    r"|CleanDiv|CeilToInt|FloorToInt|CeilDiv|IsNonOverlappingAndDenseIndicator|TruncToInt|TruncToFloat|RoundToInt"
    r"|RoundDecimal|ToFloat|FloatPow|PowByNatural|IntTrueDiv|FloatTrueDiv|LShift|RShift|Identity"
)
_LONGEST = 1000


def open_pt2(path: Path) -> torch.export.ExportedProgram:
    """Return the program in a ``.pt2`` file.

    Raises:
        ModelError: there is no such file, it cannot be opened, or opening it would run code.
    """
    if not path.is_file():
        raise ModelError(missing_file(path))
    try:
        # The bytes that are checked are those that are opened.
        data = path.read_bytes()
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            fault = next(_faults(archive), None)
        if fault is None:
            return torch.export.load(io.BytesIO(data))
    except Exception as error:
        # The readers raise nearly any exception on a damaged or foreign file.
        raise ModelError(
            f"{path} cannot be opened as a program of torch.export.save: {short_message(error)}; export the module "
            "again with this version of PyTorch, or give the module itself"
        ) from error
    raise ModelError(
        f"{path} is not opened: {fault}, and PyTorch's reader would run what it says; give the module itself, or, if "
        "you trust the file, attar.quantize(torch.export.load(path), ...)"
    )


def _faults(archive: zipfile.ZipFile) -> Iterator[str]:
    """Yield in words what would run code."""
    names = archive.namelist()
    if len(set(names)) < len(names):
        # Readers differ in which of two they take.
        yield "two of its entries have one name"
    for name in names:
        parts = name.split("/")
        if "aotinductor" in parts or "executorch" in parts:
            yield f"{name} is compiled code"
        elif parts[-1].startswith(("custom_obj", "opaque_obj")) or parts[-1].startswith("serialized_"):
            yield f"{name} is a pickled object"
        elif "sample_inputs" in parts or parts[-1].endswith(".pt"):
            yield from _pickle_faults(archive.read(name), name)
        elif parts[-1].endswith(".json"):
            record = json.loads(archive.read(name))
            yield from _record_faults(record, name)
            yield from _payload_faults(archive, record, name)


def _payload_faults(archive: zipfile.ZipFile, record: Any, name: str) -> Iterator[str]:
    """Yield the pickled tensors of a list of weights or constants that are more than tensors."""
    config = record.get("config") if isinstance(record, dict) else None
    for entry in config.values() if isinstance(config, dict) else ():
        if entry.get("use_pickle"):
            stored = str(Path(name).parent / entry["path_name"])
            yield from _pickle_faults(archive.read(stored), stored)


def _pickle_faults(data: bytes, name: str) -> Iterator[str]:
    if not data:
        return
    try:
        torch.load(io.BytesIO(data), weights_only=True)
    except Exception as error:  # noqa: BLE001 - a pickle may raise anything
        yield f"{name} has more than tensors ({short_message(error, 1)})"


def _record_faults(record: Any, name: str) -> Iterator[str]:
    todo = [record]
    while todo:
        each = todo.pop()
        if isinstance(each, list):
            todo.extend(each)
        elif isinstance(each, dict):
            for key, value in each.items():
                if key in ("target", "as_operator") and isinstance(value, str) and not _TARGETS.fullmatch(value):
                    yield f"{name} calls {value[:80]!r}, which is no operator"
                elif key == "expr_str" and not _is_size(value):
                    yield f"{name} has the size {str(value)[:80]!r}"
            todo.extend(each.values())


def _is_size(text: Any) -> bool:
    plain = isinstance(text, str) and len(text) <= _LONGEST and _EXPRESSION.fullmatch(text) is not None
    return plain and all(_FUNCTIONS.fullmatch(word) for word in re.findall(r"[A-Za-z_]\w*", text))
