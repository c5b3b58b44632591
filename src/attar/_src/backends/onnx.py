"""The backend ``onnx``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

import onnx

from attar._src.artifact.manifest import Manifest, canonical
from attar._src.artifact.reader import Artifact
from attar._src.artifact.writer import write_atomically
from attar._src.backends.backend import Backend
from attar._src.core.errors import ArtifactError
from attar._src.measure.runner import Runner, open_onnx
from attar._src.runtime.lower import lower


class OnnxBackend(Backend):
    """``onnx``: the graph that :class:`Session` runs, with int8 weights between Q/DQ operators for layers that run in
    integers and float32 weights for the others.

    Operators are of the standard domain, so that every ONNX runtime can run them. Preprocessing, task and class names
    are metadata: JSON under the keys of ``docs/format.md``. Of several graphs the first is exported.
    """

    name: ClassVar[str] = "onnx"
    suffix: ClassVar[str] = ".onnx"
    needs: ClassVar[tuple[str, ...]] = ()

    def supports(self, manifest: Manifest) -> str | None:
        return None if manifest.graphs else "it holds no graph"

    def export(self, artifact: Artifact, path: Path) -> None:
        lowered = lower(artifact, artifact.manifest.graphs[0].name)
        lowered.model.producer_name = "attar"
        for key in ("preprocessing", "task", "class_names", "metric", "licence"):
            if value := getattr(artifact.manifest, key):
                lowered.model.metadata_props.add(key=key, value=json.dumps(canonical(value), sort_keys=True))
        data = lowered.serialized()
        try:
            onnx.checker.check_model(data, full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            raise ArtifactError(f"the exported graph is not standard ONNX: {error}", section="graph") from error
        write_atomically(path, data)

    def open(self, path: Path, *, threads: int | None = None) -> Runner:
        return open_onnx(path, threads=threads)
