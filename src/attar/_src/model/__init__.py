"""From a module to a traced graph: tracing, batch-norm folding, sites, and the ONNX graph with its bindings."""
