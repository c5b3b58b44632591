"""A backend: ONNX as text that people can read, evaluated in numpy by the reference of the format."""

import onnx
from onnx.reference import ReferenceEvaluator

from attar.extend import Runner, lower, write_atomically


class OnnxText:
    """The first graph as a text of ONNX."""

    name = "onnx_text"
    suffix = ".onnxtxt"
    needs = ()

    def supports(self, manifest):
        return None if manifest.graphs else "it holds no graph"

    def export(self, artifact, path):
        model = lower(artifact, artifact.manifest.graphs[0].name).model
        write_atomically(path, onnx.printer.to_text(model).encode())

    def open(self, path, *, threads=None):
        model = ReferenceEvaluator(onnx.parser.parse_model(path.read_text()))

        def run(feed):
            return dict(zip(model.output_names, model.run(None, feed), strict=True))

        return Runner(path, tuple(model.input_names), run)


onnx_text = OnnxText()
