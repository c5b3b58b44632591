"""Schemes: weights on some levels of an integer grid, with their scales."""
