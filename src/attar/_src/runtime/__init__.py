"""Run a ``.attar`` file with numpy and ONNX Runtime."""
