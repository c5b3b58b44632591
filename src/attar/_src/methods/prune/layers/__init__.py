"""Structured pruning of depth: whole residual blocks and transformer layers are removed."""
