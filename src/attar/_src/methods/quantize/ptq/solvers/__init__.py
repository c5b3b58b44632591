"""Solvers: the scales and codes of weights after training."""
