"""What Python reads of a file, as :mod:`tests.device.program` has what C reads of it, and where they differ."""

import json
from collections.abc import Sequence

import numpy as np
from tests.attacks.reseal import seal
from tests.device.program import ELEMENTS, FileRead, Result, TensorRead

from attar._src.artifact import layout
from attar._src.artifact.limits import Limits
from attar._src.artifact.reader import Artifact, open_artifact
from attar._src.core.errors import ArtifactError, SpecError
from attar._src.core.tensors import Codebook, CompressedTensor, Dense, Quantized, Sparse

LIMITS = Limits(elements=ELEMENTS)


def difference(data: bytes, read: FileRead) -> str:
    """Return how what C read of a file differs from what Python reads of it; nothing if it does not.

    C does not look at graphs and at what a manifest tells of the model: a file that C alone opens must be one whose
    tensors Python reads once all the rest of it is replaced.
    """
    try:
        artifact = open_artifact(data, limits=LIMITS)
    except ArtifactError as error:
        if read.status != "OK":
            return ""
        try:
            artifact = open_artifact(tensors_alone(data), limits=LIMITS)
        except ArtifactError as still:
            if "a bias in steps" in str(still) and any(tensor.refused for tensor in read.tensors):
                return ""  # C looks for the weight of a bias when it reads the bias
            return f"C opens what Python does not: {error}; its tensors alone: {still}"
    if read.status != "OK":
        return f"C refuses it with {read.status}, Python opens it"
    if len(artifact.names) != len(read.tensors):
        return f"C finds {len(read.tensors)} tensors, Python {len(artifact.names)}"
    found = (
        _tensor_difference(artifact, name, tensor) for name, tensor in zip(artifact.names, read.tensors, strict=True)
    )
    return "; ".join(filter(None, found))


def _tensor_difference(artifact: Artifact, name: str, read: TensorRead) -> str:
    try:
        tensor = artifact.tensor(name)
    except (ArtifactError, SpecError) as error:
        return "" if read.refused else f"C reads {name!r}, which Python refuses: {error}"
    wanted = expected(name, tensor)
    for what in ("values", "mask", "parts"):
        if getattr(wanted, what) != getattr(read, what):
            return f"{what} of {name!r} are {getattr(read, what)}, not {getattr(wanted, what)}"[:500]
    return ""


def expected(name: str, tensor: CompressedTensor) -> TensorRead:
    """Return what is to be read of a tensor."""
    inner = tensor.values if isinstance(tensor, Sparse) else tensor
    mask = Result("OK", tensor.mask.tobytes()) if isinstance(tensor, Sparse) else None
    values = np.ascontiguousarray(tensor.dense())
    return TensorRead(name, Result("OK", values.tobytes()), mask, list(_parts(inner)))


def _parts(tensor: Dense | Quantized | Codebook) -> Sequence[Result]:
    if isinstance(tensor, Dense):
        return [Result("WRONG_KIND")] * 3
    offsets = tensor.offset if isinstance(tensor, Codebook) else tensor.zero_point
    offsets = np.zeros_like(tensor.scale) if offsets is None else offsets.astype(np.float32)
    return [Result("OK", array.tobytes()) for array in (tensor.codes, tensor.scale, offsets)]


def tensors_alone(data: bytes) -> bytes:
    """Return the file with its tensors and tables, every tensor under a name of its own, one empty graph, and no more.

    Whatever cannot be taken apart is returned as it is.
    """
    view = memoryview(data)
    try:
        minor = layout.read_header(view)
        text, place = layout.manifest_text(view, minor, Limits())
        found = json.loads(text)
        tensors = found.get("tensors", [])
        names = [record["name"] for record in tensors]
        for index, record in enumerate(tensors):
            if names.count(record["name"]) > 1 and index > names.index(record["name"]):
                record["name"] = f"{index}, again {record['name']}"[: max(8, len(record["name"]))]
        graph = {"length": 0, "inputs": [], "outputs": []}
        kept = {key: found[key] for key in ("tables", "tensors", "sections") if key in found} | {"parameters": 0}
        if minor >= layout.COMPACT:
            stored = [record["stored"] for record in found.get("graphs", [])]
            sections, graphs = [data[16 : place.start]], [graph | {"stored": sum(stored)}]
            kept |= {"unbound": [record["name"] for record in tensors]}
        else:
            where = layout.places([record["length"] for record in found["sections"]], minor)
            sections = [data[start:stop] for start, stop in where]
            numbers = [index for index, record in enumerate(found["sections"]) if record["kind"] == "graph"]
            if not numbers:
                numbers = [len(sections)]
                sections.append(b"")
                found["sections"].append({"kind": "graph", "length": 0, "crc32": 0})
            graphs = [graph | {"name": str(number), "section": number} for number in numbers]
    except (ArtifactError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return data
    return seal(sections, json.dumps(kept | {"graphs": graphs}).encode(), header={"minor": minor}, footer={})
