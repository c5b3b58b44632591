"""The one training loop and what feeds it; knows nothing of stages, constraints or files."""
