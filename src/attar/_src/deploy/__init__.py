"""From a PyTorch module to a verified ``.attar`` file, and back."""
