"""Choices that are measured: activations, and the best options within some minutes."""
