"""Weights that stay packed in memory, for products with activations in floating point, and tables."""
