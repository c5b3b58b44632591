"""Opens a ``.attar`` file and runs it, with numpy and ONNX Runtime; above ``artifact``, under ``measure``, ``data``."""
