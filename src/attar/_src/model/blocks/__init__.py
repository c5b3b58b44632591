"""Residual layers: submodules that a network can do without, as they return the shape that they read."""
