"""ONNX: the model the runtime itself runs, as a standard file of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import onnx

from attar._src.artifact.manifest import Manifest, canonical
from attar._src.artifact.reader import Artifact
from attar._src.artifact.writer import write_atomically
from attar._src.core.errors import ArtifactError
from attar._src.runtime.lower import lower


class OnnxBackend:
    """``onnx``: int8 weights with Q/DQ where the file runs in integers, float32 weights elsewhere.

    Operators of the standard domain only, so that any runtime of the operator set can run it. Preprocessing, task and
    class names travel as metadata (JSON under the keys of ``docs/format.md``). A file with several graphs is exported
    by its first.
    """

    name: ClassVar[str] = "onnx"
    suffix: ClassVar[str] = ".onnx"
    needs: ClassVar[tuple[str, ...]] = ()

    def supports(self, manifest: Manifest) -> str | None:
        """Return None: every file holds a graph."""
        return None if manifest.graphs else "it holds no graph"

    def export(self, artifact: Artifact, path: Path, module: Any = None) -> None:
        """Write the first graph of a file as ONNX.

        Raises:
            ArtifactError: the file is malformed, or larger than an ONNX message can be.
        """
        manifest = artifact.manifest
        lowered = lower(artifact, manifest.graphs[0].name)
        model = lowered.model
        model.producer_name = "attar"
        for key in ("preprocessing", "task", "class_names", "metric", "licence"):
            if value := getattr(manifest, key):
                model.metadata_props.add(key=key, value=json.dumps(canonical(value), sort_keys=True))
        data = lowered.serialized()
        try:
            onnx.checker.check_model(data, full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            raise ArtifactError(f"the exported graph is not standard ONNX: {error}", section="graph") from error
        write_atomically(path, data)
