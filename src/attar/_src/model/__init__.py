"""From a module to a traced graph, in PyTorch and in ONNX, and what is known of its operators, weights and values."""
